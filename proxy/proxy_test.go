package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllertest"
)

type recorder struct {
	mu      sync.Mutex
	fail    int
	changes chan Change
	closed  bool
}

func (r *recorder) Apply(_ context.Context, c Change) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes <- c
	if r.fail > 0 {
		r.fail--
		return errors.New("no")
	}
	return nil
}

func (r *recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return nil
}

func TestRunner(t *testing.T) {
	infs := &informertest.FakeInformers{Scheme: fake.NewClientBuilder().Build().Scheme()}
	b := &recorder{changes: make(chan Change, 10)}
	clock := clocktesting.NewFakeClock(time.Now())
	p, err := New(infs, b, Options{NodeName: "me", MinSyncPeriod: -1, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	if c := <-b.changes; !c.Full || len(c.Set) != 0 {
		t.Errorf("first change: %+v", c)
	}
	inf := func(obj any) *controllertest.FakeInformer {
		t.Helper()
		var f any
		switch o := obj.(type) {
		case *corev1.Service:
			f, err = infs.FakeInformerFor(t.Context(), o)
		case *discoveryv1.EndpointSlice:
			f, err = infs.FakeInformerFor(t.Context(), o)
		}
		if err != nil {
			t.Fatal(err)
		}
		return f.(*controllertest.FakeInformer)
	}
	services, slices := inf(&corev1.Service{}), inf(&discoveryv1.EndpointSlice{})
	services.Add(svc("a", nil))
	if c := <-b.changes; c.Full || len(c.Set) != 1 {
		t.Errorf("a new Service: %+v", c)
	}
	b.mu.Lock()
	b.fail = 1
	b.mu.Unlock()
	slices.Add(slice("s", "a", ep{ip: "1.0.0.1"}))
	if c := <-b.changes; len(c.Set) != 1 {
		t.Errorf("a new endpoint: %+v", c)
	}
	for !clock.HasWaiters() {
		time.Sleep(time.Millisecond) // the runner is on its way to its timer
	}
	clock.Step(time.Second)
	if c := <-b.changes; !c.Full || len(c.Set) != 1 || len(c.Set[0].Internal) != 1 {
		t.Errorf("after a failure: %+v, want everything", c)
	}
	slices.Update(slice("s", "a", ep{ip: "1.0.0.1"}), slice("s", "b", ep{ip: "1.0.0.1"}))
	if c := <-b.changes; len(c.Set) != 1 || len(c.Set[0].Internal) != 0 {
		t.Errorf("the slice moved to another Service: %+v", c)
	}
	cancel()
	if err := <-done; err != nil || !b.closed {
		t.Errorf("Run: %v, closed %v", err, b.closed)
	}
}

func TestNewRefuses(t *testing.T) {
	infs := &informertest.FakeInformers{}
	if _, err := New(nil, &recorder{}, Options{NodeName: "n"}); err == nil {
		t.Error("no cache: no error")
	}
	if _, err := New(infs, nil, Options{NodeName: "n"}); err == nil {
		t.Error("no backend: no error")
	}
	if _, err := New(infs, &recorder{}, Options{}); err == nil {
		t.Error("no node name: no error")
	}
}

func TestHealthCheckNodePort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	h := newHealthServers(logr.Discard())
	defer h.close()
	sp := ServicePort{Key: Key{Namespace: "ns", Name: "lb"}, HealthCheckNodePort: port}
	get := func() int {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/healthz", port))
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, step := range []struct {
		local int
		want  int
	}{{0, 503}, {2, 200}, {0, 503}} {
		sp.LocalEndpoints = step.local
		h.apply(Change{Set: []ServicePort{sp}})
		if got := get(); got != step.want {
			t.Errorf("%d local endpoints: status %d, want %d", step.local, got, step.want)
		}
	}
	h.apply(Change{Removed: []Key{sp.Key}})
	if got := get(); got != 0 {
		t.Errorf("removed: status %d", got)
	}
}
