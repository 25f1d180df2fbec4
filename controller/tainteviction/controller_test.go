package tainteviction_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/tainteviction"
)

func tolerating(name string, seconds ...int64) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{NodeName: "n"}}
	for _, s := range seconds {
		t := corev1.Toleration{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}
		if s >= 0 {
			t.TolerationSeconds = &s
		}
		p.Spec.Tolerations = append(p.Spec.Tolerations, t)
	}
	return p
}

func left(e *controllertest.Env) string {
	var out []string
	for _, p := range controllertest.All[*corev1.Pod](e.Cluster) {
		out = append(out, p.Name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func taint(e *controllertest.Env, taints ...corev1.Taint) {
	controllertest.Edit(e.Cluster, "", "n", func(n *corev1.Node) { n.Spec.Taints = taints })
	e.Settle()
}

var unreachable = corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute}

func TestEviction(t *testing.T) {
	var reasons []string
	controllertest.Run(t, func(e *controllertest.Env) {
		ctl, err := tainteviction.New(e.Client, e.Cache, tainteviction.Options{})
		e.Check(err)
		e.Start(ctl.Run)
		e.Settle()
		taint(e, corev1.Taint{Key: "soft", Effect: corev1.TaintEffectNoSchedule})
		if got := left(e); got != "forever never now short" {
			t.Fatal(got)
		}
		controllertest.Edit(e.Cluster, "default", "now", func(p *corev1.Pod) { p.Finalizers = []string{"test/hold"} })
		taint(e, unreachable)
		if got := left(e); got != "forever now short" {
			t.Error(got)
		}
		now, _ := controllertest.Get[*corev1.Pod](e.Cluster, "default", "now")
		for _, c := range now.Status.Conditions {
			reasons = append(reasons, string(c.Type)+" "+c.Reason+" "+c.Message)
		}
		if now.DeletionTimestamp == nil || len(reasons) != 1 || reasons[0] != "DisruptionTarget DeletionByTaintManager Taint manager: deleting due to NoExecute taint" {
			t.Errorf("evicted pod: %v", reasons)
		}
		e.Advance(4 * time.Minute)
		// The node comes back in time; the toleration starts anew the next time.
		taint(e)
		taint(e, unreachable)
		e.Advance(4 * time.Minute)
		if got := left(e); got != "forever now short" {
			t.Errorf("after the taint was lifted: %s", got)
		}
		e.Advance(time.Minute)
		if got := left(e); got != "forever now" {
			t.Errorf("after 5 minutes: %s", got)
		}
		ev := strings.Join(e.Events(), "\n")
		for _, want := range []string{"TaintManagerEviction: Marking for deletion Pod default/short", "TaintManagerEviction: Cancelling deletion of Pod default/short"} {
			if !strings.Contains(ev, want) {
				t.Errorf("no event %q:\n%s", want, ev)
			}
		}
	}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, tolerating("never"), tolerating("now", 0), tolerating("short", 300), tolerating("forever", -1))
}

func TestPodBoundToATaintedNode(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		ctl, err := tainteviction.New(e.Client, e.Cache, tainteviction.Options{})
		e.Check(err)
		e.Start(ctl.Run)
		e.Settle()
		e.Create(tolerating("late"))
		e.Settle()
		if got := left(e); got != "" {
			t.Error(got)
		}
	}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{unreachable}}})
}
