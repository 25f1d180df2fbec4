package controller

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	crcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/keelson/keelson/controller/events"
	"github.com/keelson/keelson/controller/leader"
)

// Options configures a Runner.
type Options struct {
	Common
	// Sources say what to watch. At least one is required.
	Sources []Source
	// Component is the source named in events; it defaults to the runner's name
	// with "-controller" appended.
	Component string
	// Setup, when set, is called at each start (again after a lost election),
	// before any event is delivered and any worker started.
	Setup func(context.Context) error
	// Background functions run beside the workers once the sources have synced,
	// and end with ctx. An error of one ends the run.
	Background []func(context.Context) error
	// ReconcileTimeout bounds the context of one reconciliation; 0 is no bound.
	ReconcileTimeout time.Duration
}

// Runner runs one Reconciler. Its methods may be called from any goroutine.
type Runner struct {
	name       string
	client     client.WithWatch
	cache      crcache.Cache
	reconciler Reconciler
	opts       Options
	recorder   record.EventRecorder
	ownEvents  *events.Recorder
	metrics    *queueMetrics
	elector    *leader.Elector
	running    atomic.Bool
	queue      atomic.Pointer[queueRef]
	synced     atomic.Bool
}

type queueRef struct{ q Queue }

// New makes a Runner. The name is that of the work queue in metrics and of the
// logger. It starts nothing.
func New(name string, c client.WithWatch, cc crcache.Cache, r Reconciler, o Options) (*Runner, error) {
	switch {
	case name == "":
		return nil, errors.New("controller: name is empty, expected the controller's name")
	case c == nil:
		return nil, fmt.Errorf("controller: %s: client is nil, expected a client.WithWatch", name)
	case cc == nil:
		return nil, fmt.Errorf("controller: %s: cache is nil, expected a cache.Cache", name)
	case r == nil:
		return nil, fmt.Errorf("controller: %s: reconciler is nil", name)
	}
	for i, s := range o.Sources {
		if s.Object == nil {
			return nil, fmt.Errorf("controller: %s: Options.Sources[%d].Object is nil, expected an object of the kind to watch", name, i)
		}
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	o.Common = o.Common.WithDefaults(1)
	o.Logger = o.Logger.WithName(name)
	if o.Component == "" {
		o.Component = name + "-controller"
	}
	run := &Runner{name: name, client: c, cache: cc, reconciler: r, opts: o, recorder: o.Recorder}
	if run.recorder == nil {
		rec, err := events.New(c, o.Component, events.Options{Clock: o.Clock, Logger: o.Logger})
		if err != nil {
			return nil, err
		}
		run.recorder, run.ownEvents = rec, rec
	}
	if o.Metrics != nil {
		m, err := newQueueMetrics(o.Metrics)
		if err != nil {
			return nil, err
		}
		run.metrics = m
	}
	if o.LeaderElection != nil {
		lo := *o.LeaderElection
		if lo.Name == "" {
			lo.Name = o.Component
		}
		if lo.Clock == nil {
			lo.Clock = o.Clock
		}
		if lo.Logger.GetSink() == nil {
			lo.Logger = o.Logger
		}
		e, err := leader.New(c, lo)
		if err != nil {
			return nil, err
		}
		run.elector = e
	}
	return run, nil
}

// Name returns the name given to New.
func (r *Runner) Name() string { return r.name }

// Recorder returns the recorder of events for the reconciler. Events recorded
// while Run is not running are kept until it is, up to a bound.
func (r *Runner) Recorder() record.EventRecorder { return r.recorder }

// Clock returns the runner's clock.
func (r *Runner) Clock() Clock { return r.opts.Clock }

// Logger returns the runner's logger.
func (r *Runner) Logger() logr.Logger { return r.opts.Logger }

// Synced says whether the sources have delivered their initial state and the
// workers are running.
func (r *Runner) Synced() bool { return r.synced.Load() }

// Enqueue asks for a reconciliation. It does nothing unless Run is running.
func (r *Runner) Enqueue(req Request) {
	if q := r.queue.Load(); q != nil {
		q.q.Add(req)
	}
}

// EnqueueAfter asks for a reconciliation after a delay. A shorter delay asked
// for meanwhile wins. It does nothing unless Run is running.
func (r *Runner) EnqueueAfter(req Request, d time.Duration) {
	if q := r.queue.Load(); q != nil {
		q.q.AddAfter(req, d)
	}
}

// Run works until ctx ends, which is no error, or the sources can't be watched.
// It returns after every worker has ended. A Runner runs once at a time.
func (r *Runner) Run(ctx context.Context) error {
	if !r.running.CompareAndSwap(false, true) {
		return fmt.Errorf("controller: %s: Run called while running", r.name)
	}
	defer r.running.Store(false)

	work := r.run
	if r.elector != nil {
		work = func(ctx context.Context) error { return r.elector.Run(ctx, r.run) }
	}
	if r.ownEvents != nil {
		return RunAll(ctx, r.ownEvents.Run, work)
	}
	return RunAll(ctx, work)
}

func (r *Runner) run(ctx context.Context) (failed error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q := newQueue(r.name, r.opts.RateLimiter(), r.metrics, r.opts.Clock)
	defer q.ShutDown()
	r.queue.Store(&queueRef{q})
	defer r.queue.Store(nil)
	defer r.synced.Store(false)

	if r.opts.Setup != nil {
		if err := r.opts.Setup(ctx); err != nil {
			return ignoreEnd(ctx, fmt.Errorf("controller: %s: setup: %w", r.name, err))
		}
	}
	var synced []cache.InformerSynced
	for _, s := range r.opts.Sources {
		inf, err := r.cache.GetInformer(ctx, s.Object, crcache.BlockUntilSynced(false))
		if err != nil {
			return ignoreEnd(ctx, fmt.Errorf("controller: %s: watching %T: %w", r.name, s.Object, err))
		}
		reg, err := inf.AddEventHandler(newListener(ctx, s, q))
		if err != nil {
			return ignoreEnd(ctx, fmt.Errorf("controller: %s: watching %T: %w", r.name, s.Object, err))
		}
		defer func() { failed = errors.Join(failed, removeHandler(inf, reg)) }()
		synced = append(synced, reg.HasSynced)
	}
	if !r.waitSynced(ctx, synced) {
		return nil
	}

	var wg sync.WaitGroup
	defer wg.Wait()
	// Deferred calls run in reverse: the queue must be shut before waiting.
	defer q.ShutDown()
	defer cancel()
	for range r.opts.Concurrency {
		wg.Go(func() {
			for r.next(ctx, q) {
			}
		})
	}
	r.synced.Store(true)
	r.opts.Logger.V(1).Info("started", "workers", r.opts.Concurrency)
	if len(r.opts.Background) > 0 {
		if err := RunAll(ctx, r.opts.Background...); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// removeHandler detaches a handler; that the informer has been stopped before
// is not an error.
func removeHandler(inf crcache.Informer, reg cache.ResourceEventHandlerRegistration) error {
	if inf.IsStopped() {
		return nil
	}
	return inf.RemoveEventHandler(reg)
}

func (r *Runner) waitSynced(ctx context.Context, synced []cache.InformerSynced) bool {
	for delay := time.Millisecond; ; delay = min(delay*2, 100*time.Millisecond) {
		all := true
		for _, s := range synced {
			all = all && s()
		}
		if all {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-r.opts.Clock.After(delay):
		}
	}
}

func (r *Runner) next(ctx context.Context, q Queue) bool {
	req, shutdown := q.Get()
	if shutdown {
		return false
	}
	defer q.Done(req)
	if ctx.Err() != nil {
		return true
	}
	res, err := r.reconcile(ctx, req)
	switch {
	case err != nil && ctx.Err() != nil:
		return true
	case errors.Is(err, reconcile.TerminalError(nil)):
		r.opts.Logger.Error(err, "reconcile failed, not retried", "request", req)
		q.Forget(req)
	case err != nil:
		r.opts.Logger.V(1).Info("reconcile failed, retrying", "request", req, "error", err.Error(), "retries", q.NumRequeues(req))
		q.AddRateLimited(req)
	case res.RequeueAfter > 0:
		q.Forget(req)
		q.AddAfter(req, res.RequeueAfter)
	case res.Requeue: //nolint:staticcheck // part of controller-runtime's contract still
		q.AddRateLimited(req)
	default:
		q.Forget(req)
	}
	return true
}

func (r *Runner) reconcile(ctx context.Context, req Request) (_ Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("controller: %s: panic: %v", r.name, p)
			r.opts.Logger.Error(err, "reconciler panicked", "request", req, "stack", string(debug.Stack()))
		}
	}()
	if r.opts.ReconcileTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.opts.ReconcileTimeout)
		defer cancel()
	}
	return r.reconciler.Reconcile(crlog.IntoContext(ctx, r.opts.Logger), req)
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func tombstone(obj any) (any, bool) {
	if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		return t.Obj, true
	}
	return nil, false
}

var _ workqueue.TypedRateLimitingInterface[Request] = (*delayQueue)(nil)
