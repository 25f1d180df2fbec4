package podgc_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/podgc"
)

func pod(name, node string, phase corev1.PodPhase, age time.Duration) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, CreationTimestamp: metav1.NewTime(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(-age))},
		Spec:       corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase},
	}
}

func left(e *controllertest.Env) string {
	var out []string
	for _, p := range controllertest.All[*corev1.Pod](e.Cluster) {
		out = append(out, p.Name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func start(e *controllertest.Env, o podgc.Options) {
	ctl, err := podgc.New(e.Client, e.Cache, o)
	e.Check(err)
	e.Start(ctl.Run)
}

func TestOrphans(t *testing.T) {
	held := pod("held", "gone", corev1.PodRunning, 0)
	held.Finalizers = []string{"test/hold"}
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e, podgc.Options{})
		e.Advance(30 * time.Second)
		if got := left(e); got != "held here lost pending" {
			t.Fatalf("in quarantine: %s", got)
		}
		e.Advance(31 * time.Second)
		if got := left(e); got != "held here pending" {
			t.Errorf("left %s", got)
		}
		p, _ := controllertest.Get[*corev1.Pod](e.Cluster, "default", "held")
		if c := p.Status.Conditions; p.Status.Phase != corev1.PodFailed || len(c) != 1 || c[0].Reason != "DeletionByPodGC" || c[0].Message != "PodGC: node no longer exists" {
			t.Errorf("status %+v", p.Status)
		}
	}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, held, pod("lost", "gone", corev1.PodRunning, 0), pod("here", "n", corev1.PodRunning, 0), pod("pending", "", corev1.PodPending, 0))
}

func TestTerminating(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Cluster.GracefulPods = true
		start(e, podgc.Options{})
		e.Settle()
		for _, n := range []string{"a", "b"} {
			e.Check(e.Client.Delete(e.Ctx, pod(n, "", "", 0)))
		}
		e.Advance(time.Minute)
		if got := left(e); got != "a b" {
			t.Fatalf("left %s", got)
		}
		controllertest.Edit(e.Cluster, "", "dead", func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService}} })
		e.Advance(30 * time.Second)
		if got := left(e); got != "b" {
			t.Errorf("left %s", got)
		}
	}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "dead"}}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, pod("a", "dead", corev1.PodRunning, 0), pod("b", "n", corev1.PodRunning, 0))
}

func TestThreshold(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Cluster.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
		for i := range 5 {
			e.Cluster.Put(pod(fmt.Sprint("p", i), "n", corev1.PodSucceeded, time.Duration(i)*time.Hour))
		}
		start(e, podgc.Options{Threshold: 2})
		e.Advance(time.Minute)
		if got := left(e); got != "p0 p1" {
			t.Errorf("left %s", got)
		}
	})
}
