package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller/events"
)

// Options of New.
type Options struct {
	// Profile decides for the pods whose spec.schedulerName is Name. plugins.Default() is Kubernetes' own.
	Profile Profile
	// Name is the spec.schedulerName of the pods that Profile is for. Default default-scheduler.
	Name string
	// Profiles decide instead of Profile, each for the pods that name it. Other pods are left alone.
	Profiles []NamedProfile
	// Binders is how many pods are bound at once. Default 16.
	Binders int
	// BindTimeout bounds one attempt to bind. Default 30s.
	BindTimeout time.Duration
	// InitialBackoff is how long a pod waits after its first failed attempt, at least; it doubles with each one, up to MaxBackoff. Default 1s and 10s.
	InitialBackoff, MaxBackoff time.Duration
	// Extenders are asked about the nodes that all plugins find feasible, one after the other, those that are Ignorable last.
	Extenders []Extender
	// Seed of the choice between nodes of the same score. Default 1.
	Seed uint64
	// Recorder of events. Default: one that writes them through the client.
	Recorder record.EventRecorder
	Clock    clock.Clock
	Logger   logr.Logger
	// Metrics receives scheduler_schedule_attempts_total and its kin; nil for none.
	Metrics prometheus.Registerer
}

// Scheduler is the runner: it watches, decides and binds.
type Scheduler struct {
	client  client.Client
	cache   cache.Cache
	opts    Options
	metrics *metrics
	events  *events.Recorder // if it is ours to run

	mu     sync.Mutex
	engine *Engine
	queue  *queue
	wake   chan struct{}
	// volumesWaited is closed when volumes, claims, pods or nodes changed; nil if nobody waits for that.
	volumesWaited chan struct{}
}

// New returns a scheduler that reads from cc, which the caller starts, and binds through c.
func New(c client.Client, cc cache.Cache, opts Options) (*Scheduler, error) {
	if c == nil || cc == nil {
		return nil, errors.New("scheduler: want a client and a cache")
	}
	opts.Name = cmp.Or(opts.Name, corev1.DefaultSchedulerName)
	opts.Binders = cmp.Or(opts.Binders, 16)
	opts.BindTimeout = cmp.Or(opts.BindTimeout, 30*time.Second)
	if opts.Binders < 0 || opts.BindTimeout < 0 {
		return nil, fmt.Errorf("scheduler: Options.Binders %d, BindTimeout %v: want nothing negative", opts.Binders, opts.BindTimeout)
	}
	opts.InitialBackoff = cmp.Or(opts.InitialBackoff, defaultInitialBackoff)
	opts.MaxBackoff = cmp.Or(opts.MaxBackoff, max(defaultMaxBackoff, opts.InitialBackoff))
	if opts.InitialBackoff < 0 || opts.MaxBackoff < opts.InitialBackoff {
		return nil, fmt.Errorf("scheduler: Options.InitialBackoff %v, MaxBackoff %v: want nothing negative and the latter no less", opts.InitialBackoff, opts.MaxBackoff)
	}
	if len(opts.Extenders) > 0 {
		return nil, errors.New("scheduler: Options.Extenders: not supported yet")
	}
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	if opts.Logger.GetSink() == nil {
		opts.Logger = logr.Discard()
	}
	engine, err := NewEngine(EngineOptions{Profile: opts.Profile, Profiles: opts.Profiles, Seed: opts.Seed})
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(opts.Metrics)
	if err != nil {
		return nil, fmt.Errorf("scheduler: Options.Metrics: %w", err)
	}
	s := &Scheduler{client: c, cache: cc, opts: opts, metrics: m, engine: engine, queue: newQueue(), wake: make(chan struct{}, 1)}
	s.queue.initialBackoff, s.queue.maxBackoff = opts.InitialBackoff, opts.MaxBackoff
	if opts.Recorder == nil {
		if s.events, err = events.New(c, opts.Name, events.Options{Clock: opts.Clock, Logger: opts.Logger}); err != nil {
			return nil, err
		}
		s.opts.Recorder = s.events
	}
	return s, nil
}

// placed is a pod on its way to be bound.
type placed struct {
	w    *waiting
	pod  *Pod
	node string
}

// Run schedules until ctx ends, and returns when all it started has ended. It may be called once.
func (s *Scheduler) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.events != nil {
		wg.Go(func() { _ = s.events.Run(ctx) })
	}
	synced, stop, err := s.follow(ctx)
	defer stop()
	if err != nil {
		return err
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil
	}
	binds := make(chan placed)
	reports := make(chan report, s.opts.Binders)
	for range s.opts.Binders {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case p := <-binds:
					s.bind(ctx, p)
				}
			}
		})
	}
	// Conditions and events of pods that don't fit are written beside the loop, for they are many when a cluster is full.
	for range max(s.opts.Binders/4, 1) {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case r := <-reports:
					s.reject(ctx, r)
				}
			}
		})
	}
	s.loop(ctx, binds, reports)
	return nil
}

func (s *Scheduler) loop(ctx context.Context, binds chan<- placed, reports chan<- report) {
	stuck := s.opts.Clock.After(30 * time.Second)
	for {
		p, r, next := s.decide()
		switch {
		case p != nil:
			select {
			case <-ctx.Done():
				return
			case binds <- *p:
			}
		case r != nil:
			select {
			case <-ctx.Done():
				return
			case reports <- *r:
			}
		default:
			var timer <-chan time.Time
			if !next.IsZero() {
				timer = s.opts.Clock.After(max(next.Sub(s.opts.Clock.Now()), 0))
			}
			select {
			case <-ctx.Done():
				return
			case <-s.wake:
			case <-timer:
			case <-stuck:
				s.mu.Lock()
				s.queue.wakeOld(s.opts.Clock.Now())
				s.mu.Unlock()
				stuck = s.opts.Clock.After(30 * time.Second)
			}
		}
	}
}

// decide handles the next pod of the queue: it is placed, or rejected. With neither there is nothing to do before next.
func (s *Scheduler) decide() (*placed, *report, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.opts.Clock.Now()
	w := s.queue.pop(now)
	if w == nil {
		return nil, nil, s.queue.next()
	}
	d := s.engine.Schedule(w.pod)
	s.metrics.attempt(s.opts.Name, &d, s.opts.Clock.Since(now))
	if d.Fits() {
		return &placed{w: w, pod: w.pod, node: d.Node}, nil, time.Time{}
	}
	s.queue.fail(w, d.Plugins, now)
	return nil, &report{pod: w.pod, message: d.Message(), gated: len(w.pod.Object.Spec.SchedulingGates) > 0}, time.Time{}
}

func (s *Scheduler) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
