package scheduler_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/scheduler"
)

func member(group string) podMod {
	return func(p *corev1.Pod) { p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: &group} }
}

func cpu(request string) podMod {
	return func(p *corev1.Pod) {
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: "web", Resources: corev1.ResourceRequirements{Requests: quantities(request, "")}}}
	}
}

func ranked(n int32) podMod { return func(p *corev1.Pod) { p.Spec.Priority = &n } }

func gangOf(namespace, name string, min int32) *schedulingv1beta1.PodGroup {
	g := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	g.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: min}
	return g
}

func pods(mods ...podMod) (out []*scheduler.Pod) {
	for i := range 4 {
		out = append(out, scheduler.NewPod(testPod(fmt.Sprint("m", i), "web", append([]podMod{member("g"), cpu("3")}, mods...)...)))
	}
	return out
}

// TestScheduleGroup places four pods of three cpus on nodes of four.
func TestScheduleGroup(t *testing.T) {
	for _, c := range []struct {
		nodes, min int
		fit        int
		message    string
	}{
		{nodes: 4, min: 4, fit: 4},
		{nodes: 3, min: 3, fit: 3},
		{nodes: 3, min: 4, message: "pod group is unschedulable, minCount (4) cannot be satisfied: 3 scheduled, 0 remaining"},
		{nodes: 1, min: 4, message: "minCount (4) cannot be satisfied: 1 scheduled, 2 remaining"},
		{nodes: 4, min: 5, message: "pod group is unschedulable, minCount (5) cannot be satisfied: 0 scheduled, 4 remaining"},
	} {
		e := groupEngine(t, c.nodes)
		e.SetPodGroup(gangOf("d", "g", int32(c.min)))
		ds, ok := e.ScheduleGroup(pods(), c.min)
		fit, messages := 0, map[string]int{}
		for i := range ds {
			if ds[i].Fits() {
				fit++
			} else if ds[i].Group != "" {
				messages[ds[i].Message()]++
			}
		}
		if ok != (c.message == "") || fit != c.fit || c.message != "" && messages[c.message] == 0 {
			t.Errorf("%+v: %v, %d fit, %v", c, ok, fit, messages)
		}
		for _, p := range pods() {
			if on := e.Assigned(p.Object.UID); !ok && on != "" {
				t.Errorf("%+v: %s is left on %s", c, p.Object.Name, on)
			}
		}
	}
}

func groupEngine(t *testing.T, nodes int) *scheduler.Engine {
	t.Helper()
	e := rulesEngine(t)
	for _, name := range []string{"a1", "a2", "b1", "x"} {
		e.DeleteNode(name)
	}
	for i := range nodes {
		e.SetNode(testNode(fmt.Sprint("n", i), "a"))
	}
	return e
}

// TestPreemptGroup spares whom it can.
func TestPreemptGroup(t *testing.T) {
	e := groupEngine(t, 5)
	e.SetPodGroup(gangOf("d", "g", 4))
	whole := gangOf("d", "whole", 1)
	whole.Spec.DisruptionMode = &schedulingv1beta1.DisruptionMode{All: &schedulingv1beta1.AllDisruptionMode{}}
	e.SetPodGroup(whole)
	for i, c := range []struct {
		node string
		mods []podMod
	}{
		{"n0", []podMod{cpu("1")}},
		{"n1", []podMod{cpu("2")}},
		{"n2", []podMod{cpu("2"), member("whole")}},
		{"n2", []podMod{cpu("100m"), member("whole")}},
		{"n3", []podMod{cpu("2"), ranked(20)}},
		{"n4", []podMod{cpu("2"), ranked(5)}},
		{"n0", []podMod{cpu("100m"), member("whole")}},
	} {
		e.Assign(scheduler.NewPod(testPod(fmt.Sprint("p", i), "other", c.mods...)), c.node)
	}
	group := pods(ranked(10))
	if _, ok := e.ScheduleGroup(group, 4); ok {
		t.Fatal("fits without preemption")
	}
	found, message := e.PreemptGroup(group, 4)
	if found == nil {
		t.Fatal(message)
	}
	var victims []string
	for _, v := range found.Victims {
		victims = append(victims, v.Object.Name)
	}
	// The one of higher priority stays, and with it its node; of the whole group all go, though one is not in the way.
	if got := strings.Join(victims, " "); got != "p5 p2 p3 p6 p1" || len(found.Nodes) != 4 || message != "pod group preemption: found a placement for podgroup, preempting 5 victims" {
		t.Errorf("victims %s, nodes %v: %s", got, found.Nodes, message)
	}
	for i, node := range []string{"n0", "n1", "n2", "n2", "n3", "n4", "n0"} {
		if p := testPod(fmt.Sprint("p", i), ""); e.Assigned(p.UID) != node {
			t.Errorf("%s is on %q", p.Name, e.Assigned(p.UID))
		}
	}
	never := corev1.PreemptNever
	if found, message := e.PreemptGroup(pods(ranked(10), func(p *corev1.Pod) { p.Spec.PreemptionPolicy = &never }), 4); found != nil || message != "pod group preemption: not eligible due to preemptionPolicy=Never." {
		t.Errorf("%+v: %s", found, message)
	}
}

func (k *cluster) until(what string, ok func() bool) {
	k.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	k.Fatalf("never %s", what)
}

// noVictims is what is said where nobody is of lower priority.
const noVictims = "pod group preemption: No preemption victims found for incoming preemptor"

func (k *cluster) group(name, status, message string) {
	k.Helper()
	var g schedulingv1beta1.PodGroup
	k.until("group "+name+" "+status+" "+message, func() bool {
		k.must(k.client.Get(k.Context(), client.ObjectKey{Namespace: "default", Name: name}, &g))
		c := meta.FindStatusCondition(g.Status.Conditions, schedulingv1beta1.PodGroupInitiallyScheduled)
		return c != nil && c.Reason == status && c.Message == message
	})
}

func TestGroups(t *testing.T) {
	inDefault := func(p *corev1.Pod) { p.Namespace = "default" }
	add := func(k *cluster, name string, mods ...podMod) *corev1.Pod {
		p := testPod(name, "web", append([]podMod{inDefault, member("g"), cpu("3")}, mods...)...)
		p.UID = ""
		k.must(k.client.Create(k.Context(), p))
		return p
	}
	t.Run("all or nothing", func(t *testing.T) {
		k := newCluster(t)
		k.addNode("a", "")
		k.addNode("b", "")
		one, two := add(k, "one"), add(k, "two")
		k.must(k.client.Create(k.Context(), gangOf("default", "g", 3)))
		three := add(k, "three")
		k.group("g", "Unschedulable", "minCount (3) cannot be satisfied: 2 scheduled, 0 remaining, "+noVictims)
		k.waiting(one, "pod group is unschedulable, minCount (3) cannot be satisfied: 2 scheduled, 0 remaining, "+noVictims)
		for _, p := range []*corev1.Pod{one, two, three} {
			k.must(k.client.Get(k.Context(), client.ObjectKeyFromObject(p), p))
			if p.Spec.NodeName != "" {
				t.Errorf("%s is bound to %s alone", p.Name, p.Spec.NodeName)
			}
		}
		k.addNode("c", "")
		for _, p := range []*corev1.Pod{one, two, three} {
			k.bound(p)
		}
		k.group("g", "Scheduled", "")
		// One more than the least is placed on its own.
		k.addNode("d", "")
		k.bound(add(k, "four"))
	})
	t.Run("fewer are wanted", func(t *testing.T) {
		k := newCluster(t)
		k.addNode("a", "")
		g := gangOf("default", "g", 2)
		k.must(k.client.Create(k.Context(), g))
		one, two := add(k, "one"), add(k, "two")
		k.waiting(one, "pod group is unschedulable, minCount (2) cannot be satisfied: 1 scheduled, 0 remaining, "+noVictims)
		k.must(k.client.Get(k.Context(), client.ObjectKeyFromObject(g), g))
		g.Spec.SchedulingPolicy.Gang.MinCount = 1
		k.must(k.client.Update(k.Context(), g))
		k.until("one of them bound", func() bool {
			k.must(k.client.Get(k.Context(), client.ObjectKeyFromObject(one), one))
			k.must(k.client.Get(k.Context(), client.ObjectKeyFromObject(two), two))
			return (one.Spec.NodeName == "") != (two.Spec.NodeName == "")
		})
	})
	t.Run("others make room", func(t *testing.T) {
		k := newCluster(t)
		k.addNode("a", "")
		k.addNode("b", "")
		k.must(k.client.Create(k.Context(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 100}))
		for i, request := range []string{"2", "2", "100m"} {
			p := testPod(fmt.Sprint("s", i), "web", inDefault, cpu(request))
			p.Spec.TerminationGracePeriodSeconds = new(int64) // there is no kubelet
			p.UID = ""
			k.must(k.client.Create(k.Context(), p))
			k.bound(p)
		}
		g := gangOf("default", "g", 2)
		g.Spec.PriorityClassName = "high"
		k.must(k.client.Create(k.Context(), g))
		high := func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" }
		one, two := add(k, "one", high), add(k, "two", high)
		k.bound(one)
		k.bound(two)
		k.group("g", "Scheduled", "")
	})
}

// TestGroupExtras has more pods than their group needs.
func TestGroupExtras(t *testing.T) {
	k := newCluster(t)
	k.addNode("a", "")
	k.must(k.client.Create(k.Context(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 100}))
	add := func(name string, mods ...podMod) *corev1.Pod {
		p := testPod(name, "web", append([]podMod{func(p *corev1.Pod) { p.Namespace = "default" }, cpu("2")}, mods...)...)
		p.Spec.TerminationGracePeriodSeconds = new(int64) // there is no kubelet
		p.UID = ""
		k.must(k.client.Create(k.Context(), p))
		return p
	}
	low := add("low")
	k.bound(low)
	g := gangOf("default", "g", 1)
	g.Spec.PriorityClassName = "high"
	high := func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" }
	one, two, three := add("one", member("g"), high), add("two", member("g"), high), add("three", member("g"), high)
	k.must(k.client.Create(k.Context(), g))
	k.group("g", "Scheduled", "")
	// One had room. When the others are tried without it, room is made for one of them.
	k.until("low removed", func() bool {
		return apierrors.IsNotFound(k.client.Get(k.Context(), client.ObjectKeyFromObject(low), low))
	})
	for _, p := range []*corev1.Pod{one, two} {
		k.bound(p)
	}
	k.waiting(three, "0/1 nodes are available: 1 Insufficient cpu.")
	k.group("g", "Scheduled", "")
}

// TestGatedMember keeps a whole group from being tried.
func TestGatedMember(t *testing.T) {
	for _, how := range []string{"opened", "removed"} {
		t.Run(how, func(t *testing.T) {
			k := newCluster(t)
			k.addNode("a", "")
			add := func(name string, mods ...podMod) *corev1.Pod {
				p := testPod(name, "web", append([]podMod{func(p *corev1.Pod) { p.Namespace = "default" }, cpu("1")}, mods...)...)
				p.UID = ""
				k.must(k.client.Create(k.Context(), p))
				return p
			}
			one := add("one", member("g"))
			gated := add("gated", member("g"), func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/quota"}} })
			two := add("two", member("g"))
			k.must(k.client.Create(k.Context(), gangOf("default", "g", 2)))
			k.bound(add("later"))
			for _, p := range []*corev1.Pod{one, two} {
				k.must(k.client.Get(k.Context(), client.ObjectKeyFromObject(p), p))
				if p.Spec.NodeName != "" {
					t.Errorf("%s is bound before its group is there", p.Name)
				}
			}
			k.must(k.client.Get(k.Context(), client.ObjectKeyFromObject(gated), gated))
			if how == "removed" {
				k.must(k.client.Delete(k.Context(), gated, client.GracePeriodSeconds(0)))
			} else {
				gated.Spec.SchedulingGates = nil
				k.must(k.client.Update(k.Context(), gated))
				k.bound(gated)
			}
			k.bound(one)
			k.bound(two)
		})
	}
}
