package controller_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/leader"
)

func configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: data}
}

// seen counts reconciliations by name.
type seen struct {
	mu sync.Mutex
	n  map[string]int
}

func (s *seen) add(req controller.Request) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == nil {
		s.n = map[string]int{}
	}
	s.n[req.Name]++
	return s.n[req.Name]
}

func (s *seen) of(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n[name]
}

func TestRunnerDeliversSources(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		var got seen
		reg := prometheus.NewRegistry()
		r, err := controller.New("maps", e.Client, e.Cache, controller.Func(func(_ context.Context, req controller.Request) (controller.Result, error) {
			got.add(req)
			return controller.Result{}, nil
		}), controller.Options{
			Common: controller.Common{Metrics: reg},
			Sources: []controller.Source{
				controller.For(&corev1.ConfigMap{}, predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetName() != "ignored" })),
				controller.Owned(&corev1.Secret{}, corev1.SchemeGroupVersion.WithKind("ConfigMap")),
			},
		})
		e.Check(err)
		e.Create(configMap("before", nil), configMap("ignored", nil))
		e.Start(r.Run)
		e.Settle()
		if !r.Synced() {
			t.Fatal("not synced")
		}
		yes := true
		e.Create(configMap("after", nil), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "owned",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: "1", Controller: &yes}},
		}})
		e.Settle()
		controllertest.Edit(e.Cluster, "default", "after", func(c *corev1.ConfigMap) { c.Data = map[string]string{"a": "b"} })
		e.Settle()
		for name, n := range map[string]int{"before": 1, "after": 2, "owner": 1, "ignored": 0} {
			if got.of(name) != n {
				t.Errorf("%s reconciled %d times, expected %d", name, got.of(name), n)
			}
		}
		if n, err := testutil.GatherAndCount(reg, "workqueue_adds_total", "workqueue_depth", "workqueue_work_duration_seconds"); err != nil || n != 3 {
			t.Errorf("got %d metrics, %v", n, err)
		}
		if _, err := controller.New("other", e.Client, e.Cache, controller.Func(nil), controller.Options{Common: controller.Common{Metrics: reg}}); err != nil {
			t.Errorf("sharing a registry: %v", err)
		}
	})
}

func TestRunnerRetries(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		var got seen
		start := time.Now()
		var times []time.Duration
		r, err := controller.New("maps", e.Client, e.Cache, controller.Func(func(_ context.Context, req controller.Request) (controller.Result, error) {
			n := got.add(req)
			switch req.Name {
			case "failing":
				got.mu.Lock()
				times = append(times, time.Since(start))
				got.mu.Unlock()
				return controller.Result{}, errors.New("not now")
			case "terminal":
				return controller.Result{}, reconcile.TerminalError(errors.New("never"))
			case "later":
				if n == 1 {
					return controller.Result{RequeueAfter: time.Hour}, nil
				}
			case "panicking":
				if n == 1 {
					panic("boom")
				}
			}
			return controller.Result{}, nil
		}), controller.Options{Sources: []controller.Source{controller.For(&corev1.ConfigMap{})}})
		e.Check(err)
		e.Start(r.Run)
		e.Settle()
		got.mu.Lock()
		start = time.Now()
		got.mu.Unlock()
		for _, n := range []string{"failing", "terminal", "later", "panicking"} {
			e.Create(configMap(n, nil))
		}
		e.Advance(100 * time.Millisecond)
		got.mu.Lock()
		delays := fmt.Sprint(times)
		got.mu.Unlock()
		if delays != "[0s 5ms 15ms 35ms 75ms]" {
			t.Errorf("delays of a failing request: %v", delays)
		}
		e.Advance(59 * time.Minute)
		if got.of("later") != 1 {
			t.Error("came back too early")
		}
		e.Advance(time.Minute)
		for n, want := range map[string]int{"terminal": 1, "later": 2, "panicking": 2} {
			if got.of(n) != want {
				t.Errorf("%s reconciled %d times, expected %d", n, got.of(n), want)
			}
		}
	})
}

// TestRunnerWaitsForWorkers shows that Run outlives its workers, and never runs
// one request twice at a time.
func TestRunnerWaitsForWorkers(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		var working, most, ended atomic.Int32
		r, err := controller.New("maps", e.Client, e.Cache, controller.Func(func(ctx context.Context, req controller.Request) (controller.Result, error) {
			if n := working.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer working.Add(-1)
			<-ctx.Done()
			time.Sleep(time.Second)
			ended.Add(1)
			return controller.Result{}, ctx.Err()
		}), controller.Options{Common: controller.Common{Concurrency: 3}, Sources: []controller.Source{controller.For(&corev1.ConfigMap{})}})
		e.Check(err)
		for i := range 10 {
			e.Create(configMap(fmt.Sprint("c", i), nil))
		}
		ctx, cancel := context.WithCancel(e.Ctx)
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		e.Settle()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if most.Load() != 3 || ended.Load() != 3 || working.Load() != 0 {
			t.Errorf("at most %d worked, %d ended, %d still work; expected 3, 3, 0", most.Load(), ended.Load(), working.Load())
		}
		e.Check(func() error { // a Runner may run again
			ctx, cancel := context.WithCancel(e.Ctx)
			cancel()
			return r.Run(ctx)
		}())
	})
}

func TestLeadership(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		var active [2]atomic.Int32
		stop := make([]context.CancelFunc, 2)
		for i := range 2 {
			r, err := controller.New("maps", e.Client, e.Cache, controller.Func(func(context.Context, controller.Request) (controller.Result, error) {
				return controller.Result{}, nil
			}), controller.Options{
				Common:  controller.Common{LeaderElection: &leader.Options{Identity: fmt.Sprint("replica-", i)}},
				Sources: []controller.Source{controller.For(&corev1.ConfigMap{})},
				Background: []func(context.Context) error{func(ctx context.Context) error {
					active[i].Add(1)
					<-ctx.Done()
					active[i].Add(-1)
					return nil
				}},
			})
			e.Check(err)
			ctx, cancel := context.WithCancel(e.Ctx)
			stop[i] = cancel
			e.Start(func(context.Context) error { return r.Run(ctx) })
			e.Settle()
		}
		state := func() string { return fmt.Sprint(active[0].Load(), active[1].Load()) }
		e.Advance(time.Minute)
		if state() != "1 0" {
			t.Fatalf("active %s, expected the first alone", state())
		}
		// The leader can't renew: it must stop before the other takes over.
		e.Cluster.React(func(c controllertest.Call) error {
			if c.Verb == "update" && c.Kind.Kind == "Lease" {
				return errors.New("unreachable")
			}
			return nil
		})
		e.Advance(14 * time.Second)
		if state() != "0 0" {
			t.Fatalf("active %s after the renew deadline, expected none", state())
		}
		e.Cluster.React(nil)
		e.Advance(time.Minute)
		if s := state(); s != "1 0" && s != "0 1" {
			t.Fatalf("active %s, expected one", s)
		}
		// A leader that ends in order hands over at once.
		was := 0
		if active[1].Load() == 1 {
			was = 1
		}
		stop[was]()
		e.Advance(6 * time.Second)
		if active[was].Load() != 0 || active[1-was].Load() != 1 {
			t.Fatalf("active %s after %d stopped", state(), was)
		}
		stop[1-was]()
	})
}

func TestNewRefuses(t *testing.T) {
	c := controllertest.NewCluster().Client()
	cc, err := controllertest.NewCache(c)
	if err != nil {
		t.Fatal(err)
	}
	f := controller.Func(nil)
	for name, err := range map[string]error{
		"no name":     second(controller.New("", c, cc, f, controller.Options{})),
		"no client":   second(controller.New("x", nil, cc, f, controller.Options{})),
		"no cache":    second(controller.New("x", c, nil, f, controller.Options{})),
		"no object":   second(controller.New("x", c, cc, f, controller.Options{Sources: []controller.Source{{}}})),
		"workers":     second(controller.New("x", c, cc, f, controller.Options{Common: controller.Common{Concurrency: -1}})),
		"no identity": second(controller.New("x", c, cc, f, controller.Options{Common: controller.Common{LeaderElection: &leader.Options{}}})),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }
