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
	"k8s.io/apimachinery/pkg/types"
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
	// Binders is how many pods are bound at once. Default 64: bindings that come together are committed together.
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
	// recorders by profile; own are those that are ours to run.
	recorders map[string]record.EventRecorder
	own       []*events.Recorder

	mu          sync.Mutex
	engine      *Engine
	queue       *queue
	activations *activations
	// outside speaks for the extenders in the engine.
	outside *outside
	// consulting are the groups that extenders are being asked about; heard is what came of others, for the loop to carry out.
	consulting map[string]bool
	heard      []outcome
	// preempting are the pods whose victims are being removed; changes counts what happened in the cluster.
	preempting map[types.UID]bool
	changes    uint64
	wake       chan struct{}
	permits    *permits
	// volumesWaited is closed when volumes, claims, pods or nodes changed; nil if nobody waits for that.
	volumesWaited chan struct{}
}

// New returns a scheduler that reads from cc, which the caller starts, and binds through c, in batches if it is a BatchBinder.
func New(c client.Client, cc cache.Cache, opts Options) (*Scheduler, error) {
	if c == nil || cc == nil {
		return nil, errors.New("scheduler: want a client and a cache")
	}
	opts.Name = cmp.Or(opts.Name, corev1.DefaultSchedulerName)
	opts.Binders = cmp.Or(opts.Binders, 64)
	opts.BindTimeout = cmp.Or(opts.BindTimeout, 30*time.Second)
	if opts.Binders < 0 || opts.BindTimeout < 0 {
		return nil, fmt.Errorf("scheduler: Options.Binders %d, BindTimeout %v: want nothing negative", opts.Binders, opts.BindTimeout)
	}
	opts.InitialBackoff = cmp.Or(opts.InitialBackoff, defaultInitialBackoff)
	opts.MaxBackoff = cmp.Or(opts.MaxBackoff, max(defaultMaxBackoff, opts.InitialBackoff))
	if opts.InitialBackoff < 0 || opts.MaxBackoff < opts.InitialBackoff {
		return nil, fmt.Errorf("scheduler: Options.InitialBackoff %v, MaxBackoff %v: want nothing negative and the latter no less", opts.InitialBackoff, opts.MaxBackoff)
	}
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	if opts.Logger.GetSink() == nil {
		opts.Logger = logr.Discard()
	}
	if len(opts.Profiles) == 0 && len(opts.Profile) > 0 {
		opts.Profile, opts.Profiles = nil, []NamedProfile{{Name: opts.Name, Plugins: opts.Profile}}
	}
	outside, err := newOutside(opts.Extenders)
	if err != nil {
		return nil, err
	}
	engine, err := NewEngine(EngineOptions{Profile: opts.Profile, Profiles: outside.in(opts.Profiles), Seed: opts.Seed})
	if err != nil {
		return nil, err
	}
	s := &Scheduler{
		outside: outside,
		client:  c, cache: cc, opts: opts, engine: engine, queue: newQueue(), wake: make(chan struct{}, 1),
		consulting: map[string]bool{}, preempting: map[types.UID]bool{}, recorders: map[string]record.EventRecorder{},
	}
	s.permits = newPermits(s.kick)
	s.activations = &activations{kick: s.kick}
	if s.metrics, err = newMetrics(s, opts.Metrics); err != nil {
		return nil, fmt.Errorf("scheduler: Options.Metrics: %w", err)
	}
	s.queue.initialBackoff, s.queue.maxBackoff = opts.InitialBackoff, opts.MaxBackoff
	s.queue.gate, s.queue.group, s.queue.self = s.gate, s.engine.await, s.engine.HintSelf
	s.queue.incoming = func(queue, event string) { s.metrics.incoming.WithLabelValues(queue, event).Inc() }
	for _, p := range engine.profiles {
		if err := s.attach(p); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// attach gives a profile its recorder, and its plugins what they need.
func (s *Scheduler) attach(p *profile) error {
	rec := s.opts.Recorder
	if rec == nil {
		own, err := events.New(s.client, p.name, events.Options{Clock: s.opts.Clock, Logger: s.opts.Logger})
		if err != nil {
			return err
		}
		s.own, rec = append(s.own, own), own
	}
	s.recorders[p.name] = rec
	for _, w := range p.plugins {
		a, ok := w.plugin.(Attacher)
		if !ok {
			continue
		}
		if err := a.Attach(Handle{Client: s.client, Cache: s.cache, Recorder: rec, Clock: s.opts.Clock, Waiting: s.permits, Activate: s.activations.add}); err != nil {
			return fmt.Errorf("scheduler: plugin %s: %w", w.name, err)
		}
	}
	return nil
}

// recorder is that of the pod's profile.
func (s *Scheduler) recorder(pod *corev1.Pod) record.EventRecorder {
	return s.recorders[schedulerName(pod)]
}

// Waiting are the pods that PermitPlugins told to wait.
func (s *Scheduler) Waiting() WaitingPods { return s.permits }

// Run schedules until ctx ends, and returns when all it started has ended. It may be called once.
func (s *Scheduler) Run(ctx context.Context) error {
	defer s.outside.closeIdle()
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, r := range s.own {
		wg.Go(func() { _ = r.Run(ctx) })
	}
	synced, stop, err := s.follow(ctx)
	defer stop()
	if err != nil {
		return err
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil
	}
	reports := make(chan report, s.opts.Binders)
	// Conditions and events of pods that don't fit are written beside the loop, for they are many when a cluster is full.
	for range max(s.opts.Binders/8, 1) {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case r := <-reports:
					s.report(ctx, r)
				}
			}
		})
	}
	c := cycle{s: s, ctx: ctx, wg: &wg, reports: reports, binders: make(chan struct{}, s.opts.Binders)}
	c.batches = newBatches(&c)
	c.run()
	return nil
}

func (s *Scheduler) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
