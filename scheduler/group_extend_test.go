package scheduler_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/scheduler"
)

// without is an extender's filter that rejects the nodes named.
func without(nodes ...string) func([]string) (map[string]*scheduler.Rejection, error) {
	return func([]string) (map[string]*scheduler.Rejection, error) {
		out := map[string]*scheduler.Rejection{}
		for _, n := range nodes {
			out[n] = scheduler.Reject("no gpu left")
		}
		return out, nil
	}
}

// once does something when it is first called.
func once(f func()) func() {
	var o sync.Once
	return func() { o.Do(f) }
}

// TestGroupsAndExtenders places groups of pods of three cpus each on nodes of four, a and b.
func TestGroupsAndExtenders(t *testing.T) {
	add := func(k *cluster, name, request string, mods ...podMod) *corev1.Pod {
		p := testPod(name, "web", append(mods, cpu(request))...)
		p.Namespace, p.UID = metav1.NamespaceDefault, ""
		k.must(k.client.Create(k.Context(), p))
		return p
	}
	gang := func(k *cluster, min int32) (out []*corev1.Pod) {
		k.must(k.client.Create(k.Context(), gangOf("default", "g", min)))
		for _, name := range []string{"one", "two"} {
			out = append(out, add(k, name, "3", member("g")))
		}
		return out
	}
	nobody := func(k *cluster, pods []*corev1.Pod) {
		for _, p := range pods {
			k.must(k.client.Get(k.Context(), client.ObjectKeyFromObject(p), p))
			if p.Spec.NodeName != "" {
				k.Errorf("%s is bound to %s alone", p.Name, p.Spec.NodeName)
			}
		}
	}
	t.Run("filter", func(t *testing.T) {
		k := extended(t, &external{filter: without("a")})
		pods := gang(k, 2)
		const message = "minCount (2) cannot be satisfied: 1 scheduled, 0 remaining, " + noVictims
		k.group("g", "Unschedulable", message)
		k.waiting(pods[0], "pod group is unschedulable, "+message)
		k.waiting(pods[1], "0/2 nodes are available: 1 Insufficient cpu, 1 no gpu left.")
		nobody(k, pods)
		k.addNode("c", "")
		k.bound(pods[0])
		k.bound(pods[1])
		k.group("g", "Scheduled", "")
	})
	t.Run("scores", func(t *testing.T) {
		x := &external{scores: func() (map[string]int64, error) { return map[string]int64{"c": 5000, "d": 4000}, nil }}
		k := extended(t, x)
		k.addNode("c", "")
		k.addNode("d", "")
		pods := gang(k, 2)
		k.bound(pods[0])
		k.bound(pods[1])
		if pods[0].Spec.NodeName != "c" || pods[1].Spec.NodeName != "d" {
			t.Errorf("on %s and %s", pods[0].Spec.NodeName, pods[1].Spec.NodeName)
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		if len(x.asked) != 2 || len(x.asked[0]) != 4 || len(x.asked[1]) != 3 {
			t.Errorf("asked about %v: want all nodes, and those that the first pod left", x.asked)
		}
	})
	t.Run("failures", func(t *testing.T) {
		fails := 1
		k := extended(t, &external{filter: func([]string) (map[string]*scheduler.Rejection, error) {
			if fails--; fails >= 0 {
				return nil, errors.New("out of order")
			}
			return nil, nil
		}})
		pods := gang(k, 2)
		k.event(pods[0], "FailedScheduling", "out of order")
		k.event(pods[1], "FailedScheduling", "failed to schedule other pod from a pod group: out of order")
		k.bound(pods[0]) // when they were tried again
		k.bound(pods[1])
	})
	t.Run("failures that are ignored", func(t *testing.T) {
		k := extended(t, &external{ignorable: true, filter: func([]string) (map[string]*scheduler.Rejection, error) { return nil, errors.New("out of order") }})
		for _, p := range gang(k, 2) {
			k.bound(p)
		}
	})
	t.Run("bind", func(t *testing.T) {
		var k *cluster
		names := make(chan string, 2)
		x := &external{bind: func(node string) (bool, error) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: <-names}}
			return true, k.client.SubResource("binding").Create(context.Background(), pod, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: node}})
		}}
		k = extended(t, x)
		k.refuse.Store(1000) // the scheduler can't bind itself
		names <- "one"
		names <- "two"
		for _, p := range gang(k, 2) {
			k.bound(p)
		}
	})
	t.Run("others go on while they think", func(t *testing.T) {
		thinking, think := make(chan struct{}), make(chan struct{})
		wait := once(func() { close(thinking); <-think })
		k := extended(t, &external{filter: func([]string) (map[string]*scheduler.Rejection, error) {
			wait()
			return nil, nil
		}})
		pods := gang(k, 3)
		pods = append(pods, add(k, "three", "3", member("g")))
		k.addNode("c", "")
		<-thinking
		nobody(k, pods)
		// One that is none of the extender's business takes a node that the group could have had, before it is held.
		plain := add(k, "plain", "3", func(p *corev1.Pod) { p.Labels["app"] = "plain" })
		k.bound(plain)
		late := add(k, "late", "3", member("g"))
		close(think)
		k.group("g", "Unschedulable", "minCount (3) cannot be satisfied: 2 scheduled, 0 remaining, "+noVictims)
		nobody(k, append(pods, late))
		k.addNode("d", "")
		k.addNode("e", "")
		for _, p := range append(pods, late) {
			k.bound(p)
		}
	})
	t.Run("a member goes while they think", func(t *testing.T) {
		thinking, think := make(chan struct{}), make(chan struct{})
		wait := once(func() { close(thinking); <-think })
		k := extended(t, &external{filter: func([]string) (map[string]*scheduler.Rejection, error) {
			wait()
			return nil, nil
		}})
		pods := gang(k, 2)
		<-thinking
		k.must(k.client.Delete(k.Context(), pods[0], client.GracePeriodSeconds(0)))
		close(think)
		again := add(k, "again", "3", member("g"))
		k.bound(again)
		k.bound(pods[1])
	})
	t.Run("others make room where they agree", func(t *testing.T) {
		k := extended(t, &external{filter: without("a")})
		k.addNode("c", "")
		k.must(k.client.Create(k.Context(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 100}))
		quick := func(p *corev1.Pod) {
			p.Labels["app"] = "plain"
			p.Spec.TerminationGracePeriodSeconds = new(int64) // there is no kubelet
		}
		for _, name := range []string{"1", "2", "3"} {
			k.bound(add(k, name, "2", quick))
		}
		g := gangOf("default", "g", 2)
		g.Spec.PriorityClassName = "high"
		k.must(k.client.Create(k.Context(), g))
		high := func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" }
		pods := []*corev1.Pod{add(k, "one", "3", member("g"), high), add(k, "two", "3", member("g"), high)}
		for _, p := range pods {
			if k.bound(p); p.Spec.NodeName == "a" {
				t.Errorf("%s is on %s", p.Name, p.Spec.NodeName)
			}
		}
	})
}
