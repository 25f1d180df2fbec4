package scheduler_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
)

// TestQueue: priorities, being put aside, being woken by what helps alone, and back-off, in order.
func TestQueue(t *testing.T) {
	e := rulesEngine(t)
	q := scheduler.NewQueue(e)
	now := time.Unix(0, 0)
	pods := map[string]*scheduler.Pod{}
	for i, name := range []string{"low", "high", "b", "c"} {
		priority := int32(0)
		if i == 1 {
			priority = 9
		}
		pods[name] = scheduler.NewPod(testPod(name, "web", func(p *corev1.Pod) {
			p.Spec.Priority = &priority
			p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: quantities("5", "")}}}
		}))
		q.Add(pods[name], now)
	}
	popAll := func() (names string) {
		for {
			a, ok := q.Pop(now)
			if !ok {
				return names
			}
			names += a.Pod.Object.Name + " "
			d := e.Decide(a.Pod)
			q.Fail(a, d.Plugins, now)
		}
	}
	check := func(what, want string) {
		t.Helper()
		if got := popAll(); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	check("at first", "high low b c ")
	big := testNode("big", "a")
	q.Changed(e.SetNode(big), now)
	check("a node that is too small", "")
	big = big.DeepCopy()
	big.Status.Allocatable = quantities("4500m", "1Gi", "pods", "100")
	q.Changed(e.SetNode(big), now)
	check("still too small", "")
	big = big.DeepCopy()
	big.Status.Allocatable = quantities("5", "1Gi", "pods", "100")
	q.Changed(e.SetNode(big), now)
	check("before the back-off ends, for there is nobody else", "high low b c ")
	if at, ok := q.Ready(now); ok {
		t.Errorf("ready at %v, with all put aside", at)
	}
	big = big.DeepCopy()
	big.Status.Allocatable = quantities("6", "1Gi", "pods", "100")
	q.Changed(e.SetNode(big), now)
	a, _ := q.Pop(now)
	q.Retry(a, now)
	check("the others, while one waits after an error", "low b c ")
	if at, ok := q.Ready(now); !ok || at.Sub(now) != time.Second {
		t.Errorf("ready at %v, %v", at, ok)
	}
	now = now.Add(time.Second)
	check("after that wait", "high ")
	q.Remove("low")
	now = now.Add(6 * time.Minute)
	q.Flush(now)
	check("flushed", "high b c ")
	if q.Len() != 3 {
		t.Errorf("%d wait", q.Len())
	}
}
