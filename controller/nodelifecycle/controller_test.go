package nodelifecycle_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/nodelifecycle"
)

type fleet struct {
	e     *controllertest.Env
	names []string
	dead  map[string]bool
}

func newFleet(e *controllertest.Env, n int) *fleet {
	f := &fleet{e: e, dead: map[string]bool{}}
	for i := range n {
		name := fmt.Sprint("n", i)
		f.names = append(f.names, name)
		e.Cluster.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()},
		}}})
		e.Cluster.Put(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: name}})
	}
	ctl, err := nodelifecycle.New(e.Client, e.Cache, nodelifecycle.Options{})
	e.Check(err)
	e.Start(ctl.Run)
	return f
}

// pass lets time pass, with the leases of living nodes renewed every 10s.
func (f *fleet) pass(d time.Duration) {
	for ; d > 0; d -= 10 * time.Second {
		for _, n := range f.names {
			if !f.dead[n] {
				controllertest.Edit(f.e.Cluster, corev1.NamespaceNodeLease, n, func(l *coordinationv1.Lease) {
					now := metav1.NowMicro()
					l.Spec.RenewTime = &now
				})
			}
		}
		f.e.Advance(min(d, 10*time.Second))
	}
}

func (f *fleet) node(name string) *corev1.Node {
	n, _ := controllertest.Get[*corev1.Node](f.e.Cluster, "", name)
	return n
}

func (f *fleet) ready(name string) string {
	for _, c := range f.node(name).Status.Conditions {
		if c.Type == corev1.NodeReady {
			return fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message)
		}
	}
	return ""
}

func (f *fleet) setReady(name string, s corev1.ConditionStatus) {
	controllertest.Edit(f.e.Cluster, "", name, func(n *corev1.Node) {
		n.Status.Conditions[0].Status, n.Status.Conditions[0].LastHeartbeatTime = s, metav1.Now()
	})
}

func (f *fleet) taints(name string) string {
	var out []string
	for _, t := range f.node(name).Spec.Taints {
		out = append(out, strings.TrimPrefix(t.Key, "node.kubernetes.io/")+":"+string(t.Effect))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestUnreachable(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		f := newFleet(e, 3)
		e.Cluster.Put(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{NodeName: "n1"}, Status: *controllertest.ReadyStatus("10.0.0.1")})
		f.pass(2 * time.Minute)
		if f.ready("n1") != "True  " || f.taints("n1") != "" {
			t.Fatalf("a living node is %q, %q", f.ready("n1"), f.taints("n1"))
		}
		f.dead["n1"] = true
		f.pass(30 * time.Second)
		if f.ready("n1") != "True  " {
			t.Fatalf("too early: %q", f.ready("n1"))
		}
		f.pass(30 * time.Second)
		if f.ready("n1") != "Unknown NodeStatusUnknown Kubelet stopped posting node status." || f.taints("n1") != "unreachable:NoExecute unreachable:NoSchedule" {
			t.Errorf("dead: %q, %q", f.ready("n1"), f.taints("n1"))
		}
		if n := f.node("n1"); len(n.Status.Conditions) != 4 || n.Status.Conditions[1].Reason != "NodeStatusNeverUpdated" {
			t.Errorf("conditions %+v", n.Status.Conditions)
		}
		p, _ := controllertest.Get[*corev1.Pod](e.Cluster, "default", "p")
		if p.Status.Conditions[3].Status != corev1.ConditionFalse {
			t.Error("the dead node's pod is still ready")
		}
		ev := strings.Join(e.Events(), "\n")
		for _, want := range []string{"RegisteredNode: Node n1 event: Registered Node n1 in Controller", "NodeNotReady: Node n1 status is now: NodeNotReady", "NodeNotReady: Node is not ready"} {
			if strings.Count(ev, want) != 1 {
				t.Errorf("events without one %q:\n%s", want, ev)
			}
		}
		f.dead["n1"] = false
		f.setReady("n1", corev1.ConditionTrue)
		f.pass(20 * time.Second)
		if f.taints("n1") != "" {
			t.Errorf("recovered, but %q", f.taints("n1"))
		}
		e.Cluster.Remove(f.node("n2"))
		f.pass(10 * time.Second)
		if ev := strings.Join(e.Events(), "\n"); !strings.Contains(ev, "RemovingNode: Node n2 event: Removing Node n2 from Controller") {
			t.Errorf("events:\n%s", ev)
		}
	})
}

func TestConditionTaints(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		f := newFleet(e, 2)
		f.pass(10 * time.Second)
		controllertest.Edit(e.Cluster, "", "n0", func(n *corev1.Node) {
			n.Spec.Unschedulable = true
			n.Spec.Taints = []corev1.Taint{{Key: "mine", Effect: corev1.TaintEffectNoSchedule}}
			n.Status.Conditions[0].Status = corev1.ConditionFalse
			n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionTrue})
		})
		f.pass(10 * time.Second)
		if got := f.taints("n0"); got != "memory-pressure:NoSchedule mine:NoSchedule not-ready:NoExecute not-ready:NoSchedule unschedulable:NoSchedule" {
			t.Error(got)
		}
		controllertest.Edit(e.Cluster, "", "n0", func(n *corev1.Node) {
			n.Spec.Unschedulable = false
			n.Status.Conditions[0].Status, n.Status.Conditions[1].Status = corev1.ConditionTrue, corev1.ConditionFalse
		})
		f.pass(10 * time.Second)
		if got := f.taints("n0"); got != "mine:NoSchedule" {
			t.Error(got)
		}
	})
}

func TestRatesAndBlackout(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		f := newFleet(e, 10)
		f.pass(10 * time.Second)
		evicting := func() (n int) {
			for _, name := range f.names {
				if strings.Contains(f.taints(name), "NoExecute") {
					n++
				}
			}
			return n
		}
		for _, n := range f.names[:3] {
			f.setReady(n, corev1.ConditionFalse)
		}
		e.Advance(time.Second)
		if n := evicting(); n != 1 {
			t.Errorf("%d nodes at once, expected one in 10s", n)
		}
		f.pass(30 * time.Second)
		if n := evicting(); n != 3 {
			t.Errorf("%d nodes after a while, expected 3", n)
		}
		// Most of a small zone: no more.
		for _, n := range f.names[3:7] {
			f.setReady(n, corev1.ConditionFalse)
		}
		f.pass(time.Minute)
		if n := evicting(); n > 4 {
			t.Errorf("%d nodes of a zone mostly down", n)
		}
		// All: none at all.
		for _, n := range f.names {
			f.setReady(n, corev1.ConditionFalse)
		}
		f.pass(time.Minute)
		if n := evicting(); n != 0 {
			t.Errorf("%d nodes in a blackout", n)
		}
	})
}
