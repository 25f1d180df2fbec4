package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// attempts are those of scheduler_schedule_attempts_total with a result.
func attempts(t *testing.T, reg *prometheus.Registry, result string) (n int) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "scheduler_schedule_attempts_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "result" && l.GetValue() == result {
					n += int(m.GetCounter().GetValue())
				}
			}
		}
	}
	return n
}

// hook is a plugin that binds, or is told.
type hook struct {
	bind  func(node string) (bool, error)
	after atomic.Int32
}

func (*hook) Name() string { return "hook" }

type binds struct{ *hook }

func (b binds) Bind(_ context.Context, _ *scheduler.Pod, node string) (bool, error) {
	return b.bind(node)
}

type postBinds struct{ *hook }

func (b postBinds) PostBind(context.Context, *scheduler.Pod, string) { b.after.Add(1) }

func (k *cluster) some(n int) (out []*corev1.Pod) {
	k.Helper()
	for i := range n {
		out = append(out, k.addPod(fmt.Sprint("p", i)))
	}
	return out
}

func (k *cluster) batches() []int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.sizes)
}

func TestBatches(t *testing.T) {
	for _, single := range []bool{false, true} {
		t.Run(fmt.Sprintf("failures concern their own pods, single %v", single), func(t *testing.T) {
			reg := prometheus.NewRegistry()
			k := &cluster{T: t, single: single}
			k.refuse.Store(3)
			k.start(scheduler.Options{Profile: plugins.Default(), Metrics: reg, InitialBackoff: 10 * time.Millisecond})
			pods := k.some(12)
			k.addNode("n", "")
			for _, p := range pods {
				k.bound(p)
			}
			for _, p := range pods {
				k.event(p, "Scheduled", "Successfully assigned default/"+p.Name+" to n")
			}
			if ok, failed := attempts(t, reg, "scheduled"), attempts(t, reg, "error"); ok != 12 || failed != 3 {
				t.Errorf("%d scheduled and %d errors, want 12 and 3", ok, failed)
			}
			var list corev1.EventList
			k.must(k.client.List(t.Context(), &list))
			told := 0
			for _, e := range list.Items {
				if e.Reason == "FailedScheduling" && strings.HasPrefix(e.Message, "binding rejected: refused by the test") {
					told++
				}
			}
			if told != 3 {
				t.Errorf("%d events of refused bindings, want 3", told)
			}
		})
	}
	t.Run("what comes meanwhile is the next batch", func(t *testing.T) {
		k := &cluster{T: t}
		begun, goOn := make(chan bool, 100), make(chan bool)
		k.answer = func(ctx context.Context, bindings []corev1.Binding) []error {
			begun <- true
			select {
			case <-goOn:
			case <-ctx.Done():
			}
			out := make([]error, len(bindings))
			for i := range bindings {
				b := bindings[i]
				pod := &corev1.Pod{ObjectMeta: b.ObjectMeta}
				out[i] = k.client.SubResource("binding").Create(ctx, pod, &b)
			}
			return out
		}
		reg := prometheus.NewRegistry()
		k.start(scheduler.Options{Profile: plugins.Default(), Binders: 5, Metrics: reg})
		k.addNode("n", "")
		first := k.addPod("first")
		<-begun
		pods := k.some(9)
		for end := time.Now().Add(20 * time.Second); !bindingWaits(t, reg, 5); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the others are not decided")
			}
		}
		close(goOn)
		k.bound(first)
		for _, p := range pods {
			k.bound(p)
		}
		sizes := k.batches()
		if len(sizes) < 3 || sizes[0] != 1 || sizes[1] < 4 || slices.Max(sizes) > 5 {
			t.Errorf("batches of %v, want 1, then 4 or 5, none over 5", sizes)
		}
	})
	t.Run("a binder that answers too little", func(t *testing.T) {
		k := &cluster{T: t}
		var calls atomic.Int32
		k.answer = func(ctx context.Context, bindings []corev1.Binding) []error {
			if calls.Add(1) == 1 {
				return nil
			}
			out := make([]error, len(bindings))
			for i := range bindings {
				out[i] = k.client.SubResource("binding").Create(ctx, &corev1.Pod{ObjectMeta: bindings[i].ObjectMeta}, &bindings[i])
			}
			return out
		}
		k.start(scheduler.Options{Profile: plugins.Default(), InitialBackoff: 10 * time.Millisecond})
		p := k.addPod("p")
		k.addNode("n", "")
		k.bound(p)
		k.event(p, "FailedScheduling", "binding rejected: BindPods answered 0 of 1 bindings")
	})
	t.Run("a plugin that binds goes before", func(t *testing.T) {
		k := &cluster{T: t}
		h := &hook{bind: func(string) (bool, error) { return false, nil }}
		failures := int32(1)
		h.bind = func(string) (bool, error) {
			if atomic.AddInt32(&failures, -1) >= 0 {
				return false, errors.New("not now")
			}
			return false, nil
		}
		k.start(scheduler.Options{
			Profile: append(plugins.Default(), scheduler.Weighted{Plugin: binds{h}}), InitialBackoff: 10 * time.Millisecond,
		})
		k.addNode("n", "")
		p := k.addPod("p")
		k.bound(p)
		k.event(p, "FailedScheduling", `binding rejected: running Bind plugin "hook": not now`)
		if sizes := k.batches(); len(sizes) != 1 || sizes[0] != 1 {
			t.Errorf("bindings: %v", sizes)
		}
	})
	t.Run("plugins are told of each", func(t *testing.T) {
		k := &cluster{T: t}
		h := &hook{}
		k.start(scheduler.Options{Profile: append(plugins.Default(), scheduler.Weighted{Plugin: postBinds{h}})})
		pods := k.some(8)
		k.addNode("n", "")
		for _, p := range pods {
			k.bound(p)
		}
		for end := time.Now().Add(20 * time.Second); h.after.Load() != 8; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d of 8", h.after.Load())
			}
		}
	})
}

// bindingWaits reports whether so many attempts have a decision, beside the first.
func bindingWaits(t *testing.T, reg *prometheus.Registry, n uint64) bool {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "scheduler_scheduling_algorithm_duration_seconds" {
			return f.GetMetric()[0].GetHistogram().GetSampleCount() > n
		}
	}
	return false
}
