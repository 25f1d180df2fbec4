package replicaset_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/replicaset"
)

var web = map[string]string{"app": "web"}

func newSet(name string, n int32) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &n, Selector: controllertest.Labels(web), Template: controllertest.Template("web:1", web),
		},
	}
}

func start(e *controllertest.Env) {
	ctl, err := replicaset.New(e.Client, e.Cache, replicaset.Options{})
	e.Check(err)
	e.Start(ctl.Run)
	e.Settle()
}

func podsOf(e *controllertest.Env, set string) (out []*corev1.Pod) {
	rs, _ := controllertest.Get[*appsv1.ReplicaSet](e.Cluster, "default", set)
	for _, p := range controllertest.All[*corev1.Pod](e.Cluster) {
		if rs != nil && metav1.IsControlledBy(p, rs) {
			out = append(out, p)
		}
	}
	return out
}

func status(e *controllertest.Env, set string) appsv1.ReplicaSetStatus {
	rs, ok := controllertest.Get[*appsv1.ReplicaSet](e.Cluster, "default", set)
	if !ok {
		e.Fatalf("no ReplicaSet %s", set)
	}
	return rs.Status
}

func scale(e *controllertest.Env, set string, n int32) {
	controllertest.Edit(e.Cluster, "default", set, func(rs *appsv1.ReplicaSet) { rs.Spec.Replicas = &n })
}

func TestScale(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Pods(controllertest.Ready)
		start(e)
		e.Create(newSet("web", 3))
		e.Settle()
		ps := podsOf(e, "web")
		if len(ps) != 3 {
			t.Fatalf("%d pods, expected 3", len(ps))
		}
		p := ps[0]
		ref := metav1.GetControllerOf(p)
		if p.GenerateName != "web-" || ref == nil || ref.BlockOwnerDeletion == nil || !*ref.BlockOwnerDeletion || ref.Kind != "ReplicaSet" || p.Labels["app"] != "web" {
			t.Errorf("unexpected pod %+v", p.ObjectMeta)
		}
		if s := status(e, "web"); s.Replicas != 3 || s.ReadyReplicas != 3 || s.AvailableReplicas != 3 || s.FullyLabeledReplicas != 3 || s.ObservedGeneration != 1 {
			t.Errorf("status %+v", s)
		}
		scale(e, "web", 1)
		e.Settle()
		if n := len(podsOf(e, "web")); n != 1 {
			t.Errorf("%d pods, expected 1", n)
		}
		ev := strings.Join(e.Events(), "\n")
		if strings.Count(ev, "SuccessfulCreate: Created pod: web-") != 3 || strings.Count(ev, "SuccessfulDelete: Deleted pod: web-") != 2 {
			t.Errorf("events:\n%s", ev)
		}
		e.Check(e.Client.Delete(e.Ctx, podsOf(e, "web")[0]))
		e.Settle()
		if n := len(podsOf(e, "web")); n != 1 {
			t.Errorf("%d pods after one was deleted, expected 1", n)
		}
		e.Cluster.Calls()
		e.Advance(time.Hour)
		if c := e.Cluster.Calls(); len(c) > 0 {
			t.Errorf("an idle controller made %d requests, such as %+v", len(c), c[0])
		}
	})
}

func TestMinReadySeconds(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Pods(controllertest.Ready)
		start(e)
		rs := newSet("web", 2)
		rs.Spec.MinReadySeconds = 60
		e.Create(rs)
		e.Advance(55 * time.Second)
		if s := status(e, "web"); s.ReadyReplicas != 2 || s.AvailableReplicas != 0 {
			t.Errorf("status too early %+v", s)
		}
		e.Advance(10 * time.Second)
		if s := status(e, "web"); s.AvailableReplicas != 2 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestAdoptAndRelease(t *testing.T) {
	orphan := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "orphan", Labels: web}}
	other := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "other", Labels: map[string]string{"app": "db"}}}
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e)
		e.Create(newSet("web", 2))
		e.Settle()
		var names []string
		for _, p := range podsOf(e, "web") {
			names = append(names, p.Name)
		}
		if len(names) != 2 || !slices.Contains(names, "orphan") {
			t.Fatalf("pods %v, expected the orphan and another", names)
		}
		// Out of the selector: released and replaced.
		controllertest.Edit(e.Cluster, "default", "orphan", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "debug"} })
		e.Settle()
		p, _ := controllertest.Get[*corev1.Pod](e.Cluster, "default", "orphan")
		if len(p.OwnerReferences) != 0 || len(podsOf(e, "web")) != 2 {
			t.Errorf("owners %v and %d pods, expected none and 2", p.OwnerReferences, len(podsOf(e, "web")))
		}
		// Into it again: adopted, and one is too many.
		controllertest.Edit(e.Cluster, "default", "orphan", func(p *corev1.Pod) { p.Labels = web })
		e.Settle()
		if n := len(podsOf(e, "web")); n != 2 {
			t.Errorf("%d pods, expected 2", n)
		}
	}, orphan, other)
}

// TestNoAdoptionByAGhost: the cache still has a set that is gone or replaced.
func TestNoAdoptionByAGhost(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e)
		e.Create(newSet("web", 1))
		e.Settle()
		e.Cluster.React(func(c controllertest.Call) error {
			if c.Verb == "get" && c.Kind.Kind == "ReplicaSet" {
				return apierrors.NewNotFound(schema.GroupResource{Group: "apps", Resource: "replicasets"}, c.Name)
			}
			return nil
		})
		e.Create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "orphan", Labels: web}})
		e.Settle()
		if p, _ := controllertest.Get[*corev1.Pod](e.Cluster, "default", "orphan"); len(p.OwnerReferences) != 0 {
			t.Error("adopted by a set that is gone")
		}
	})
}

func TestFailedCreate(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		var tried atomic.Int32
		e.Cluster.React(func(c controllertest.Call) error {
			if c.Verb == "create" && c.Kind.Kind == "Pod" {
				tried.Add(1)
				return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("exceeded quota: q"))
			}
			return nil
		})
		start(e)
		e.Create(newSet("web", 100))
		e.Advance(4 * time.Millisecond)
		if n := tried.Load(); n > 2 {
			t.Errorf("%d pods tried at first, expected slow start with 1 a reconciliation", n)
		}
		e.Settle()
		s := status(e, "web")
		if len(s.Conditions) != 1 || s.Conditions[0].Type != appsv1.ReplicaSetReplicaFailure || s.Conditions[0].Reason != "FailedCreate" || !strings.Contains(s.Conditions[0].Message, "exceeded quota") {
			t.Errorf("conditions %+v", s.Conditions)
		}
		if ev := strings.Join(e.Events(), "\n"); !strings.Contains(ev, "FailedCreate: Error creating: pods is forbidden: exceeded quota: q") &&
			!strings.Contains(ev, "FailedCreate: Error creating: pods \"\" is forbidden: exceeded quota: q") {
			t.Errorf("events:\n%s", ev)
		}
		e.Cluster.React(nil)
		e.Advance(20 * time.Minute)
		if s := status(e, "web"); s.Replicas != 100 || len(s.Conditions) != 0 {
			t.Errorf("status after recovery: %+v", s)
		}
	})
}

func TestDeletionOrder(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e)
		e.Create(newSet("web", 5))
		e.Settle()
		keep := podsOf(e, "web")
		for i, p := range keep {
			controllertest.Edit(e.Cluster, "default", p.Name, func(p *corev1.Pod) {
				p.Spec.NodeName = fmt.Sprint("node-", i%3) // two on node-0, two on node-1
				p.Status = *controllertest.ReadyStatus("10.0.0.1")
				switch i {
				case 1:
					p.Annotations = map[string]string{corev1.PodDeletionCost: "10"}
				case 2:
					p.Status.Conditions[3].Status = corev1.ConditionFalse
				case 4:
					p.Spec.NodeName = ""
				}
			})
		}
		e.Settle()
		var gone []int
		for n := int32(4); n >= 1; n-- {
			scale(e, "web", n)
			e.Settle()
			for i, p := range keep {
				if _, ok := controllertest.Get[*corev1.Pod](e.Cluster, "default", p.Name); !ok && !slices.Contains(gone, i) {
					gone = append(gone, i)
				}
			}
		}
		// Unassigned, not ready, then one of those sharing node-0, then the rest but the costly.
		if len(gone) != 4 || gone[0] != 4 || gone[1] != 2 || slices.Contains(gone, 1) {
			t.Errorf("deleted in order %v", gone)
		}
	})
}

// TestLarge scales to 5,000 and back with the requests that takes and no more.
func TestLarge(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		n := int32(5000)
		if testing.Short() {
			n = 600
		}
		start(e)
		e.Create(newSet("web", n))
		e.Advance(time.Minute)
		if s := status(e, "web"); s.Replicas != n {
			t.Fatalf("%d replicas", s.Replicas)
		}
		creates := 0
		for _, c := range e.Cluster.Calls() {
			if c.Verb == "create" && c.Kind.Kind == "Pod" {
				creates++
			}
			if c.Verb == "list" && c.Namespace != "" {
				t.Errorf("listed %v", c)
			}
		}
		if creates != int(n) {
			t.Errorf("%d creations", creates)
		}
		scale(e, "web", 0)
		e.Advance(time.Minute)
		if n := len(podsOf(e, "web")); n != 0 {
			t.Errorf("%d pods left", n)
		}
	})
}

// TestConverges runs random edits and faults; once they stop, what was asked
// for must be there.
func TestConverges(t *testing.T) {
	for seed := range uint64(8) {
		controllertest.Run(t, func(e *controllertest.Env) {
			r := controllertest.NewRand(seed)
			e.Cluster.GracefulPods = true
			e.Pods(controllertest.Ready)
			start(e)
			e.Cluster.React(func(c controllertest.Call) error {
				if c.Subresource == "status" && c.Kind.Kind == "Pod" {
					return nil // the kubelet's
				}
				if c.Verb != "watch" && c.Verb != "list" && r.IntN(5) == 0 {
					return errors.New("injected")
				}
				return nil
			})
			for _, n := range []string{"a", "b"} {
				rs := newSet(n, 2)
				rs.Spec.Selector = controllertest.Labels(map[string]string{"set": n})
				rs.Spec.Template.Labels = map[string]string{"set": n}
				for e.Client.Create(e.Ctx, rs) != nil {
				}
			}
			for range 60 {
				set := []string{"a", "b"}[r.IntN(2)]
				all := controllertest.All[*corev1.Pod](e.Cluster)
				switch k := r.IntN(4); {
				case k == 0:
					scale(e, set, int32(r.IntN(12)))
				case len(all) == 0:
				case k == 1:
					_ = e.Client.Delete(e.Ctx, all[r.IntN(len(all))])
				case k == 2:
					controllertest.Edit(e.Cluster, "default", all[r.IntN(len(all))].Name, func(p *corev1.Pod) { p.Labels = map[string]string{"set": set} })
				case k == 3:
					controllertest.Edit(e.Cluster, "default", all[r.IntN(len(all))].Name, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
				}
				e.Advance(time.Duration(r.IntN(200)) * time.Millisecond)
			}
			e.Cluster.React(nil)
			e.Advance(30 * time.Minute)
			for _, n := range []string{"a", "b"} {
				rs, _ := controllertest.Get[*appsv1.ReplicaSet](e.Cluster, "default", n)
				active := 0
				for _, p := range podsOf(e, n) {
					if p.Labels["set"] != n && p.Status.Phase == corev1.PodRunning {
						t.Errorf("seed %d: %s kept %v", seed, n, p.Labels)
					}
					if p.Status.Phase == corev1.PodRunning {
						active++
					}
				}
				if int32(active) != *rs.Spec.Replicas || rs.Status.AvailableReplicas != *rs.Spec.Replicas {
					t.Errorf("seed %d: %s has %d active, status %+v, expected %d", seed, n, active, rs.Status, *rs.Spec.Replicas)
				}
			}
		})
	}
}
