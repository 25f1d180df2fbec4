package proxy

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Options of New.
type Options struct {
	// NodeName is the node this proxy serves: it decides what is local. Required.
	NodeName string
	// MinSyncPeriod is the least time between two changes of the data plane. Default 20ms; negative for none.
	MinSyncPeriod time.Duration
	Clock         clock.Clock
	Logger        logr.Logger
	// Metrics receives kubeproxy_sync_proxy_rules_duration_seconds and its kin; nil for none.
	Metrics prometheus.Registerer
}

// Proxy is the runner.
type Proxy struct {
	cache   cache.Cache
	backend Backend
	opts    Options
	metrics *metrics

	mu      sync.Mutex
	planner *Planner
	wake    chan struct{}
}

// New returns a proxy that feeds backend from c, which the caller starts. Run closes the backend.
func New(c cache.Cache, backend Backend, opts Options) (*Proxy, error) {
	switch {
	case c == nil:
		return nil, fmt.Errorf("proxy: want a cache")
	case backend == nil:
		return nil, fmt.Errorf("proxy: want a backend")
	case opts.NodeName == "":
		return nil, fmt.Errorf("proxy: Options.NodeName: want the name of the node this proxy serves")
	}
	if opts.MinSyncPeriod == 0 {
		opts.MinSyncPeriod = 20 * time.Millisecond
	}
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	if opts.Logger.GetSink() == nil {
		opts.Logger = logr.Discard()
	}
	m, err := newMetrics(opts.Metrics)
	if err != nil {
		return nil, fmt.Errorf("proxy: Options.Metrics: %w", err)
	}
	return &Proxy{cache: c, backend: backend, opts: opts, metrics: m, planner: NewPlanner(opts.NodeName), wake: make(chan struct{}, 1)}, nil
}

// Run keeps the data plane current until ctx ends, then closes the backend.
func (p *Proxy) Run(ctx context.Context) (err error) {
	defer func() {
		if cerr := p.backend.Close(); err == nil {
			err = cerr
		}
	}()
	synced, stop, err := p.follow(ctx)
	defer stop()
	if err != nil {
		return err
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil
	}
	p.kick()
	return p.loop(ctx)
}

func (p *Proxy) loop(ctx context.Context) error {
	full, delay := false, time.Duration(0)
	var last time.Time
	health := newHealthServers(p.opts.Logger)
	defer health.close()
	for {
		var retry <-chan time.Time
		if delay > 0 {
			retry = p.opts.Clock.After(delay)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-retry:
		}
		if wait := p.opts.MinSyncPeriod - p.opts.Clock.Since(last); wait > 0 && !last.IsZero() {
			select {
			case <-ctx.Done():
				return nil
			case <-p.opts.Clock.After(wait):
			}
		}
		p.mu.Lock()
		c := p.planner.Plan()
		if full && !c.Full {
			c = Change{Full: true, Set: p.planner.State()}
		}
		p.mu.Unlock()
		if c.Empty() {
			continue
		}
		health.apply(c)
		last = p.opts.Clock.Now()
		err := p.backend.Apply(ctx, c)
		p.metrics.observe(p.opts.Clock.Since(last), c, err)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			full, delay = true, min(max(2*delay, time.Second), 30*time.Second)
			p.opts.Logger.Error(err, "services are not up to date on this node", "retryAfter", delay)
			continue
		}
		full, delay = false, 0
	}
}

func (p *Proxy) kick() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// follow registers the handlers; stop removes them.
func (p *Proxy) follow(ctx context.Context) (synced []toolscache.InformerSynced, stop func(), err error) {
	var undo []func()
	stop = func() {
		for _, f := range undo {
			f()
		}
	}
	for _, w := range []struct {
		obj         client.Object
		set, remove func(obj any)
	}{
		{
			&corev1.Service{},
			func(o any) { p.planner.SetService(o.(*corev1.Service)) },
			func(o any) { s := o.(*corev1.Service); p.planner.DeleteService(s.Namespace, s.Name) },
		},
		{
			&discoveryv1.EndpointSlice{},
			func(o any) { p.planner.SetEndpointSlice(o.(*discoveryv1.EndpointSlice)) },
			func(o any) { p.planner.DeleteEndpointSlice(o.(*discoveryv1.EndpointSlice)) },
		},
		{
			&corev1.Node{},
			func(o any) {
				if n := o.(*corev1.Node); n.Name == p.opts.NodeName {
					p.planner.SetNode(n.Labels)
				}
			},
			func(any) {},
		},
	} {
		inf, err := p.cache.GetInformer(ctx, w.obj)
		if err != nil {
			return synced, stop, fmt.Errorf("proxy: informer for %T: %w", w.obj, err)
		}
		on := func(f func(any)) func(any) {
			return func(o any) {
				if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
					o = gone.Obj
				}
				p.mu.Lock()
				f(o)
				p.mu.Unlock()
				p.kick()
			}
		}
		set, remove := on(w.set), on(w.remove)
		reg, err := inf.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc: set, DeleteFunc: remove,
			UpdateFunc: func(old, now any) {
				// A slice that changed its Service leaves the old one.
				if a, ok := old.(*discoveryv1.EndpointSlice); ok && a.Labels[discoveryv1.LabelServiceName] != now.(*discoveryv1.EndpointSlice).Labels[discoveryv1.LabelServiceName] {
					remove(old)
				}
				set(now)
			},
		})
		if err != nil {
			return synced, stop, fmt.Errorf("proxy: informer for %T: %w", w.obj, err)
		}
		undo = append(undo, func() { _ = inf.RemoveEventHandler(reg) })
		synced = append(synced, reg.HasSynced)
	}
	return synced, stop, nil
}
