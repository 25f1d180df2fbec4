package scheduler_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// external is an extender in the same process. What it isn't told to do it leaves alone.
type external struct {
	mu        sync.Mutex
	ignorable bool
	filter    func(names []string) (map[string]*scheduler.Rejection, error)
	scores    func() (map[string]int64, error)
	preempt   func(p *scheduler.Preemption) (*scheduler.Preemption, error)
	bind      func(node string) (bool, error)
	asked     [][]string
}

func (x *external) Name() string                    { return "external" }
func (x *external) Interested(pod *corev1.Pod) bool { return pod.Labels["app"] != "plain" }
func (x *external) Ignorable() bool                 { return x.ignorable }

func (x *external) Filter(_ context.Context, _ *corev1.Pod, nodes []*corev1.Node) (map[string]*scheduler.Rejection, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	x.asked = append(x.asked, names)
	if x.filter == nil {
		return nil, nil
	}
	return x.filter(names)
}

func (x *external) Prioritize(context.Context, *corev1.Pod, []*corev1.Node) (map[string]int64, error) {
	if x.scores == nil {
		return nil, nil
	}
	return x.scores()
}

func (x *external) Preempt(_ context.Context, _ *corev1.Pod, p *scheduler.Preemption) (*scheduler.Preemption, error) {
	if x.preempt == nil {
		return p, nil
	}
	return x.preempt(p)
}

func (x *external) Bind(_ context.Context, _ *corev1.Pod, node string) (bool, error) {
	if x.bind == nil {
		return false, nil
	}
	return x.bind(node)
}

func extended(t *testing.T, extenders ...scheduler.Extender) *cluster {
	k := newClusterWith(t, scheduler.Options{Profile: plugins.Default(), Extenders: extenders})
	k.addNode("a", "")
	k.addNode("b", "")
	return k
}

func TestExtenders(t *testing.T) {
	t.Run("filter", func(t *testing.T) {
		x := &external{filter: func([]string) (map[string]*scheduler.Rejection, error) {
			return map[string]*scheduler.Rejection{"a": scheduler.Reject("no gpu left")}, nil
		}}
		k := extended(t, x)
		for _, name := range []string{"1", "2", "3"} {
			p := k.addPod(name)
			if k.bound(p); p.Spec.NodeName != "b" {
				t.Error(p.Spec.NodeName)
			}
		}
	})
	t.Run("nothing left", func(t *testing.T) {
		x := &external{filter: func(names []string) (map[string]*scheduler.Rejection, error) {
			out := map[string]*scheduler.Rejection{}
			for _, n := range names {
				out[n] = scheduler.Reject("no gpu left")
			}
			return out, nil
		}}
		k := extended(t, x)
		k.waiting(k.addPod("p"), "0/2 nodes are available: 2 no gpu left.")
		plain := k.addPod("plain", func(p *corev1.Pod) { p.Labels["app"] = "plain" })
		k.bound(plain)
	})
	t.Run("those after the first are asked about what it left", func(t *testing.T) {
		first := &external{ignorable: true, filter: func([]string) (map[string]*scheduler.Rejection, error) {
			return map[string]*scheduler.Rejection{"a": scheduler.Reject("no")}, nil
		}}
		last := &external{}
		k := extended(t, first, last)
		k.bound(k.addPod("p"))
		if len(first.asked[0]) != 2 || len(last.asked[0]) != 2 {
			t.Errorf("asked %v and %v: those that are ignorable come last", first.asked, last.asked)
		}
	})
	t.Run("scores", func(t *testing.T) {
		x := &external{scores: func() (map[string]int64, error) { return map[string]int64{"a": 5000}, nil }}
		failing := &external{scores: func() (map[string]int64, error) { return nil, errors.New("no scores today") }}
		k := extended(t, x, failing)
		for _, name := range []string{"1", "2", "3"} {
			p := k.addPod(name)
			if k.bound(p); p.Spec.NodeName != "a" {
				t.Error(p.Spec.NodeName)
			}
		}
	})
	t.Run("failures", func(t *testing.T) {
		fails := 1
		x := &external{filter: func([]string) (map[string]*scheduler.Rejection, error) {
			if fails--; fails >= 0 {
				return nil, errors.New("out of order")
			}
			return nil, nil
		}}
		k := extended(t, x)
		p := k.addPod("p")
		k.event(p, "FailedScheduling", "out of order")
		k.bound(p) // when it was tried again
	})
	t.Run("failures that are ignored", func(t *testing.T) {
		k := extended(t, &external{ignorable: true, filter: func([]string) (map[string]*scheduler.Rejection, error) { return nil, errors.New("out of order") }})
		k.bound(k.addPod("p"))
	})
	t.Run("bind", func(t *testing.T) {
		var k *cluster
		fails := 1
		x := &external{}
		x.bind = func(node string) (bool, error) {
			if fails--; fails >= 0 {
				return true, errors.New("not now")
			}
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}}
			return true, k.client.SubResource("binding").Create(context.Background(), pod, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: node}})
		}
		k = extended(t, x)
		k.refuse.Store(1000) // the scheduler can't bind itself
		p := k.addPod("p")
		k.event(p, "FailedScheduling", "binding rejected: not now")
		k.bound(p)
	})
	t.Run("a node that comes while they think", func(t *testing.T) {
		thinking, think := make(chan struct{}), make(chan struct{})
		var once sync.Once
		x := &external{filter: func([]string) (map[string]*scheduler.Rejection, error) {
			once.Do(func() { close(thinking); <-think })
			return map[string]*scheduler.Rejection{"a": scheduler.Reject("no"), "b": scheduler.Reject("no")}, nil
		}}
		k := extended(t, x)
		p := k.addPod("p")
		<-thinking
		k.addNode("c", "")
		close(think)
		if k.bound(p); p.Spec.NodeName != "c" {
			t.Error(p.Spec.NodeName)
		}
	})
	t.Run("a pod that goes while they think", func(t *testing.T) {
		thinking, think := make(chan struct{}), make(chan struct{})
		var once sync.Once
		x := &external{filter: func([]string) (map[string]*scheduler.Rejection, error) {
			once.Do(func() { close(thinking); <-think })
			return nil, nil
		}}
		k := extended(t, x)
		p := k.addPod("p")
		<-thinking
		k.must(k.client.Delete(k.Context(), p, client.GracePeriodSeconds(0)))
		close(think)
		k.bound(k.addPod("next"))
	})
	t.Run("preempt", func(t *testing.T) {
		var mu sync.Mutex
		var proposed []string
		x := &external{preempt: func(p *scheduler.Preemption) (*scheduler.Preemption, error) {
			mu.Lock()
			defer mu.Unlock()
			proposed = append(proposed, p.Node)
			if len(proposed) == 1 {
				return nil, nil // another node, please
			}
			return p, nil
		}}
		k := extended(t, x)
		low := []*corev1.Pod{k.addWhole("1"), k.addWhole("2")}
		k.bound(low[0])
		k.bound(low[1])
		p := k.addWhole("p", important)
		for victim := (*corev1.Pod)(nil); victim == nil; {
			for _, v := range low {
				k.must(k.client.Get(k.Context(), client.ObjectKeyFromObject(v), v))
				if v.DeletionTimestamp != nil {
					victim = v
				}
			}
			if victim != nil {
				k.must(k.client.Delete(k.Context(), victim, client.GracePeriodSeconds(0)))
			}
		}
		k.bound(p)
		mu.Lock()
		defer mu.Unlock()
		if len(proposed) < 2 || proposed[0] == proposed[1] || p.Spec.NodeName != proposed[1] {
			t.Errorf("on %s after %v", p.Spec.NodeName, proposed)
		}
	})
}
