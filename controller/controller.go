package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/keelson/keelson/controller/leader"
)

type (
	// Reconciler brings the world to what one object asks for. It is called
	// with a name only, never twice at a time with the same one, and must read
	// the object itself. An error makes the request come back with exponential
	// delay, unless it is a reconcile.TerminalError.
	Reconciler = reconcile.Reconciler
	// Request names the object to reconcile.
	Request = reconcile.Request
	// Result says when to reconcile again.
	Result = reconcile.Result
	// Func makes a function a Reconciler.
	Func = reconcile.Func
	// Queue is where event handlers put requests.
	Queue = workqueue.TypedRateLimitingInterface[Request]
	// Clock is the time a controller lives by.
	Clock = clock.WithTickerAndDelayedExecution
)

// Common holds the settings that every controller takes. The zero value is
// usable.
type Common struct {
	// Logger receives logs; the zero value discards them.
	Logger logr.Logger
	// Metrics registers the work queue's metrics under Kubernetes' names
	// (workqueue_depth, …, with label "name"). Nil keeps none. Many controllers
	// may share one.
	Metrics prometheus.Registerer
	// Clock defaults to the real one.
	Clock Clock
	// Recorder receives events. By default they are written through the client,
	// aggregated and rate-limited as Kubernetes' components do.
	Recorder record.EventRecorder
	// Concurrency is the number of workers; 0 means the controller's default.
	Concurrency int
	// RateLimiter makes the limiter of failed requests; the default delays the
	// nth failure of a request by 5ms*2^n, up to 1000s. It is called once a Run.
	RateLimiter func() workqueue.TypedRateLimiter[Request]
	// LeaderElection, when set, makes Run wait to be elected before it works.
	// When the lease is lost the workers are stopped, and Run stands for
	// election again.
	LeaderElection *leader.Options
}

// WithDefaults returns c with every unset field but LeaderElection, Metrics
// and Recorder set. Controllers built on Runner need not call it.
func (c Common) WithDefaults(concurrency int) Common {
	if c.Logger.GetSink() == nil {
		c.Logger = logr.Discard()
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Concurrency == 0 {
		c.Concurrency = concurrency
	}
	if c.RateLimiter == nil {
		c.RateLimiter = func() workqueue.TypedRateLimiter[Request] {
			return workqueue.NewTypedItemExponentialFailureRateLimiter[Request](5*time.Millisecond, 1000*time.Second)
		}
	}
	return c
}

func (c Common) validate() error {
	if c.Concurrency < 0 {
		return fmt.Errorf("controller: Options.Concurrency is %d, expected at least 1, or 0 for the default", c.Concurrency)
	}
	return nil
}

// RunAll runs functions side by side until ctx ends or one of them fails, then
// cancels the others, waits for all, and returns the first failure. A function
// that returns nil before ctx ends does not stop the others.
func RunAll(ctx context.Context, run ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var once sync.Once
	var first error
	for _, f := range run {
		wg.Go(func() {
			if err := f(ctx); err != nil && !(ctx.Err() != nil && errors.Is(err, ctx.Err())) {
				once.Do(func() { first = err })
				cancel(err)
			}
		})
	}
	wg.Wait()
	return first
}
