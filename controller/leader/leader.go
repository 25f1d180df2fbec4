package leader

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Options configures an Elector.
type Options struct {
	// Name of the Lease; required.
	Name string
	// Namespace of the Lease; "kube-system" by default.
	Namespace string
	// Identity tells this replica from the others; required.
	Identity string
	// LeaseDuration is how long others wait after the last renewal they saw
	// before they take over; 15s by default.
	LeaseDuration time.Duration
	// RenewDeadline is how long the leader tries to renew before it stops
	// working; 10s by default. It must be shorter than LeaseDuration.
	RenewDeadline time.Duration
	// RetryPeriod is the time between tries; 2s by default.
	RetryPeriod time.Duration
	// Clock defaults to the real one.
	Clock clock.Clock
	// Logger receives logs; the zero value discards them.
	Logger logr.Logger
}

func (o Options) withDefaults() Options {
	if o.Namespace == "" {
		o.Namespace = metav1.NamespaceSystem
	}
	if o.LeaseDuration == 0 {
		o.LeaseDuration = 15 * time.Second
	}
	if o.RenewDeadline == 0 {
		o.RenewDeadline = 10 * time.Second
	}
	if o.RetryPeriod == 0 {
		o.RetryPeriod = 2 * time.Second
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	return o
}

func (o Options) validate() error {
	switch {
	case o.Name == "":
		return errors.New("leader: Options.Name is empty, expected the Lease's name")
	case o.Identity == "":
		return errors.New("leader: Options.Identity is empty, expected a name unique to this replica")
	case o.LeaseDuration < time.Second:
		return fmt.Errorf("leader: Options.LeaseDuration is %v, expected at least 1s", o.LeaseDuration)
	case o.RenewDeadline <= 0 || o.RenewDeadline >= o.LeaseDuration:
		return fmt.Errorf("leader: Options.RenewDeadline is %v, expected less than LeaseDuration (%v)", o.RenewDeadline, o.LeaseDuration)
	case o.RetryPeriod <= 0 || o.RetryPeriod >= o.RenewDeadline:
		return fmt.Errorf("leader: Options.RetryPeriod is %v, expected less than RenewDeadline (%v)", o.RetryPeriod, o.RenewDeadline)
	}
	return nil
}

// Elector stands for election and runs a function while elected.
type Elector struct {
	client client.Client
	opts   Options
}

// New makes an Elector. The client must read live, not from a cache.
func New(c client.Client, o Options) (*Elector, error) {
	if c == nil {
		return nil, errors.New("leader: client is nil")
	}
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	return &Elector{client: c, opts: o}, nil
}

// observed is what was last seen of the Lease and when, by the local clock:
// other replicas' clocks are never trusted.
type observed struct {
	lease *coordinationv1.Lease
	at    time.Time
}

// Run stands for election until ctx ends, and calls f each time it is elected.
// f's context ends when the lease is lost or ctx ends; f must return then. If f
// returns before that, Run gives the lease up and returns f's error.
func (e *Elector) Run(ctx context.Context, f func(context.Context) error) error {
	var seen observed
	for {
		if !e.acquire(ctx, &seen) {
			return nil
		}
		e.opts.Logger.Info("elected", "lease", e.opts.Name, "identity", e.opts.Identity)
		done, err := e.lead(ctx, &seen, f)
		if done || ctx.Err() != nil {
			return err
		}
		e.opts.Logger.Info("lost the election, standing again", "lease", e.opts.Name, "identity", e.opts.Identity)
	}
}

func (e *Elector) acquire(ctx context.Context, seen *observed) bool {
	for {
		ok, err := e.try(ctx, seen)
		if ctx.Err() != nil {
			if ok {
				e.release(seen)
			}
			return false
		}
		if ok {
			return true
		}
		if err != nil {
			e.opts.Logger.V(1).Info("acquiring the lease failed", "lease", e.opts.Name, "error", err.Error())
		}
		// Jitter keeps the replicas from asking in step.
		if !e.sleep(ctx, e.opts.RetryPeriod+time.Duration(rand.Int64N(int64(e.opts.RetryPeriod)))) {
			return false
		}
	}
}

// lead runs f and renews; done says that f ended on its own.
func (e *Elector) lead(ctx context.Context, seen *observed, f func(context.Context) error) (done bool, err error) {
	leading, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- f(leading) }()

	renewed := e.opts.Clock.Now()
	for {
		select {
		case err := <-ended:
			e.release(seen)
			return true, err
		case <-ctx.Done():
			err := <-ended
			e.release(seen)
			return true, err
		case <-e.opts.Clock.After(e.opts.RetryPeriod):
		}
		attempt, stop := context.WithTimeout(ctx, e.opts.RenewDeadline)
		ok, err := e.try(attempt, seen)
		stop()
		now := e.opts.Clock.Now()
		switch {
		case ok:
			renewed = now
			continue
		case err != nil && now.Sub(renewed) < e.opts.RenewDeadline:
			e.opts.Logger.V(1).Info("renewing the lease failed", "lease", e.opts.Name, "error", err.Error())
			continue
		case ctx.Err() != nil:
			continue
		}
		cancel()
		err = <-ended
		if err != nil && !errors.Is(err, context.Canceled) {
			return true, err
		}
		return false, nil
	}
}

// try acquires or renews the lease. (false, nil) means another one holds it.
func (e *Elector) try(ctx context.Context, seen *observed) (bool, error) {
	now := e.opts.Clock.Now()
	lease := &coordinationv1.Lease{}
	err := e.client.Get(ctx, client.ObjectKey{Namespace: e.opts.Namespace, Name: e.opts.Name}, lease)
	if apierrors.IsNotFound(err) {
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: e.opts.Namespace, Name: e.opts.Name}}
		e.claim(lease, now)
		if err := e.client.Create(ctx, lease); err != nil {
			return false, err
		}
		*seen = observed{lease, now}
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if seen.lease == nil || seen.lease.ResourceVersion != lease.ResourceVersion {
		*seen = observed{lease.DeepCopy(), now}
	}
	holder := value(lease.Spec.HolderIdentity)
	duration := time.Duration(value(lease.Spec.LeaseDurationSeconds)) * time.Second
	if holder != "" && holder != e.opts.Identity && now.Before(seen.at.Add(duration)) {
		return false, nil
	}
	e.claim(lease, now)
	if err := e.client.Update(ctx, lease); err != nil {
		return false, err
	}
	*seen = observed{lease, now}
	return true, nil
}

func (e *Elector) claim(lease *coordinationv1.Lease, now time.Time) {
	micro := metav1.NewMicroTime(now)
	if value(lease.Spec.HolderIdentity) != e.opts.Identity {
		lease.Spec.HolderIdentity = &e.opts.Identity
		lease.Spec.AcquireTime = &micro
		transitions := value(lease.Spec.LeaseTransitions)
		if lease.ResourceVersion != "" {
			transitions++
		}
		lease.Spec.LeaseTransitions = &transitions
	}
	seconds := int32(e.opts.LeaseDuration / time.Second)
	lease.Spec.LeaseDurationSeconds = &seconds
	lease.Spec.RenewTime = &micro
}

// release lets another replica take over at once. It is called only after the
// guarded function has ended, and at best: the lease runs out anyway.
func (e *Elector) release(seen *observed) {
	ctx, cancel := context.WithTimeout(context.Background(), e.opts.RetryPeriod)
	defer cancel()
	lease := seen.lease.DeepCopy()
	if value(lease.Spec.HolderIdentity) != e.opts.Identity {
		return
	}
	now := metav1.NewMicroTime(e.opts.Clock.Now())
	none, second := "", int32(1)
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds = &none, &second
	lease.Spec.RenewTime, lease.Spec.AcquireTime = &now, &now
	if err := e.client.Update(ctx, lease); err != nil {
		e.opts.Logger.V(1).Info("releasing the lease failed", "lease", e.opts.Name, "error", err.Error())
	}
}

func (e *Elector) sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-e.opts.Clock.After(d):
		return true
	}
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
