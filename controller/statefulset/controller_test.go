package statefulset_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/statefulset"
)

var db = map[string]string{"app": "db"}

func newSet(n int32, edit func(*appsv1.StatefulSetSpec)) *appsv1.StatefulSet {
	s := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &n, ServiceName: "db", Selector: controllertest.Labels(db), Template: controllertest.Template("db:1", db),
			UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType},
		},
	}
	if edit != nil {
		edit(&s.Spec)
	}
	return s
}

func start(e *controllertest.Env) {
	ctl, err := statefulset.New(e.Client, e.Cache, statefulset.Options{})
	e.Check(err)
	e.Start(ctl.Run)
	e.Settle()
}

func get(e *controllertest.Env) *appsv1.StatefulSet {
	s, ok := controllertest.Get[*appsv1.StatefulSet](e.Cluster, "default", "db")
	if !ok {
		e.Fatal("no set")
	}
	return s
}

func edit(e *controllertest.Env, f func(*appsv1.StatefulSetSpec)) {
	controllertest.Edit(e.Cluster, "default", "db", func(s *appsv1.StatefulSet) { f(&s.Spec) })
}

func podsNow(e *controllertest.Env) string {
	var out []string
	for _, p := range controllertest.All[*corev1.Pod](e.Cluster) {
		out = append(out, p.Name+"="+p.Spec.Containers[0].Image)
	}
	return strings.Join(out, " ")
}

// slowly makes pods ready a second after they were made.
func slowly(p *corev1.Pod) *corev1.PodStatus {
	if p.Status.Phase != corev1.PodPending {
		return nil
	}
	time.Sleep(time.Second)
	return controllertest.ReadyStatus("10.0.0.1")
}

func TestOrderAndIdentity(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Pods(slowly)
		start(e)
		e.Create(newSet(3, func(s *appsv1.StatefulSetSpec) {
			s.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}
		}))
		e.Advance(500 * time.Millisecond)
		if got := podsNow(e); got != "db-0=db:1" {
			t.Errorf("at first %s", got)
		}
		e.Advance(time.Second)
		if got := podsNow(e); got != "db-0=db:1 db-1=db:1" {
			t.Errorf("then %s", got)
		}
		e.Advance(5 * time.Second)
		s := get(e).Status
		if s.Replicas != 3 || s.ReadyReplicas != 3 || s.AvailableReplicas != 3 || s.CurrentReplicas != 3 || s.UpdatedReplicas != 3 || s.CurrentRevision != s.UpdateRevision || !strings.HasPrefix(s.CurrentRevision, "db-") {
			t.Errorf("status %+v", s)
		}
		p, _ := controllertest.Get[*corev1.Pod](e.Cluster, "default", "db-1")
		if p.Spec.Hostname != "db-1" || p.Spec.Subdomain != "db" || p.Labels["statefulset.kubernetes.io/pod-name"] != "db-1" || p.Labels["apps.kubernetes.io/pod-index"] != "1" ||
			p.Labels["controller-revision-hash"] != s.CurrentRevision || p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != "data-db-1" {
			t.Errorf("pod %+v %+v", p.ObjectMeta, p.Spec)
		}
		if pvc, ok := controllertest.Get[*corev1.PersistentVolumeClaim](e.Cluster, "default", "data-db-2"); !ok || pvc.Labels["app"] != "db" || len(pvc.OwnerReferences) != 0 {
			t.Errorf("claim %+v", pvc)
		}
		ev := strings.Join(e.Events(), "\n")
		for _, want := range []string{"SuccessfulCreate: create Pod db-0 in StatefulSet db successful", "SuccessfulCreate: create Claim data-db-0 Pod db-0 in StatefulSet db success"} {
			if !strings.Contains(ev, want) {
				t.Errorf("no event %q:\n%s", want, ev)
			}
		}
		one := int32(1)
		edit(e, func(s *appsv1.StatefulSetSpec) { s.Replicas = &one })
		e.Settle()
		if got := podsNow(e); got != "db-0=db:1" {
			t.Errorf("scaled down to %s", got)
		}
		if n := len(controllertest.All[*corev1.PersistentVolumeClaim](e.Cluster)); n != 3 {
			t.Errorf("%d claims, expected all kept", n)
		}
		e.Cluster.Calls()
		e.Advance(time.Hour)
		if c := e.Cluster.Calls(); len(c) > 0 {
			t.Errorf("an idle controller made %d requests, such as %+v", len(c), c[0])
		}
	})
}

func TestUpdate(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Pods(slowly)
		start(e)
		e.Create(newSet(3, nil))
		e.Advance(10 * time.Second)
		two := int32(2)
		edit(e, func(s *appsv1.StatefulSetSpec) {
			s.Template.Spec.Containers[0].Image = "db:2"
			s.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: &two}
		})
		e.Advance(10 * time.Second)
		if got := podsNow(e); got != "db-0=db:1 db-1=db:1 db-2=db:2" {
			t.Errorf("with a partition %s", got)
		}
		if s := get(e).Status; s.CurrentReplicas != 2 || s.UpdatedReplicas != 1 || s.CurrentRevision == s.UpdateRevision {
			t.Errorf("status %+v", s)
		}
		// A pod below the partition comes back as it was.
		e.Check(e.Client.Delete(e.Ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db-1"}}))
		e.Advance(10 * time.Second)
		if got := podsNow(e); got != "db-0=db:1 db-1=db:1 db-2=db:2" {
			t.Errorf("after a deletion %s", got)
		}
		edit(e, func(s *appsv1.StatefulSetSpec) { s.UpdateStrategy.RollingUpdate = nil })
		down := 0
		for range 100 {
			e.Advance(100 * time.Millisecond)
			ready := 0
			for _, p := range controllertest.All[*corev1.Pod](e.Cluster) {
				if p.Status.Phase == corev1.PodRunning {
					ready++
				}
			}
			down = max(down, 3-ready)
		}
		if got := podsNow(e); got != "db-0=db:2 db-1=db:2 db-2=db:2" || down != 1 {
			t.Errorf("%s, with at most %d down", got, down)
		}
		if s := get(e).Status; s.CurrentReplicas != 3 || s.CurrentRevision != s.UpdateRevision {
			t.Errorf("status %+v", s)
		}
		// Undo: the first revision is raised.
		edit(e, func(s *appsv1.StatefulSetSpec) { s.Template.Spec.Containers[0].Image = "db:1" })
		e.Advance(10 * time.Second)
		revs := controllertest.All[*appsv1.ControllerRevision](e.Cluster)
		if got := podsNow(e); got != "db-0=db:1 db-1=db:1 db-2=db:1" || len(revs) != 2 || revs[0].Revision+revs[1].Revision != 5 {
			t.Errorf("%s, %d revisions", got, len(revs))
		}
	})
}

func TestParallelAndOnDelete(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e)
		e.Create(newSet(5, func(s *appsv1.StatefulSetSpec) {
			s.PodManagementPolicy = appsv1.ParallelPodManagement
			s.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType
			s.Ordinals = &appsv1.StatefulSetOrdinals{Start: 3}
		}))
		e.Settle()
		if got := podsNow(e); got != "db-3=db:1 db-4=db:1 db-5=db:1 db-6=db:1 db-7=db:1" {
			t.Fatal(got)
		}
		edit(e, func(s *appsv1.StatefulSetSpec) { s.Template.Spec.Containers[0].Image = "db:2" })
		e.Settle()
		e.Check(e.Client.Delete(e.Ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db-4"}}))
		e.Settle()
		if got := podsNow(e); got != "db-3=db:1 db-4=db:2 db-5=db:1 db-6=db:1 db-7=db:1" {
			t.Error(got)
		}
	})
}

func TestRetentionPolicy(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Pods(controllertest.Ready)
		start(e)
		e.Create(newSet(2, func(s *appsv1.StatefulSetSpec) {
			s.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}
			s.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
				WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType,
			}
		}))
		e.Settle()
		owners := func(name string) string {
			pvc, _ := controllertest.Get[*corev1.PersistentVolumeClaim](e.Cluster, "default", name)
			var out []string
			for _, r := range pvc.OwnerReferences {
				out = append(out, r.Kind+"/"+r.Name)
			}
			return strings.Join(out, ",")
		}
		if owners("data-db-1") != "StatefulSet/db" {
			t.Errorf("owners %q", owners("data-db-1"))
		}
		one := int32(1)
		edit(e, func(s *appsv1.StatefulSetSpec) { s.Replicas = &one })
		e.Settle()
		if owners("data-db-0") != "StatefulSet/db" || owners("data-db-1") != "Pod/db-1" {
			t.Errorf("owners %q, %q", owners("data-db-0"), owners("data-db-1"))
		}
	})
}

func TestConverges(t *testing.T) {
	for seed := range uint64(6) {
		controllertest.Run(t, func(e *controllertest.Env) {
			r := controllertest.NewRand(seed)
			e.Cluster.GracefulPods = true
			e.Pods(controllertest.Ready)
			start(e)
			e.Create(newSet(3, func(s *appsv1.StatefulSetSpec) {
				if seed%2 == 0 {
					s.PodManagementPolicy = appsv1.ParallelPodManagement
				}
			}))
			e.Cluster.React(func(c controllertest.Call) error {
				if c.Verb == "watch" || c.Verb == "list" || c.Kind.Kind == "Pod" && c.Subresource == "status" || r.IntN(6) > 0 {
					return nil
				}
				return errors.New("injected")
			})
			for range 60 {
				all := controllertest.All[*corev1.Pod](e.Cluster)
				switch r.IntN(4) {
				case 0:
					n := int32(r.IntN(6))
					edit(e, func(s *appsv1.StatefulSetSpec) { s.Replicas = &n })
				case 1:
					edit(e, func(s *appsv1.StatefulSetSpec) { s.Template.Spec.Containers[0].Image = fmt.Sprint("db:", r.IntN(3)) })
				case 2:
					if len(all) > 0 {
						_ = e.Client.Delete(e.Ctx, all[r.IntN(len(all))])
					}
				case 3:
					if len(all) > 0 {
						controllertest.Edit(e.Cluster, "default", all[r.IntN(len(all))].Name, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
					}
				}
				e.Advance(time.Duration(r.IntN(300)) * time.Millisecond)
			}
			e.Cluster.React(nil)
			e.Advance(time.Hour)
			s := get(e)
			var want []string
			for i := range *s.Spec.Replicas {
				want = append(want, fmt.Sprintf("db-%d=%s", i, s.Spec.Template.Spec.Containers[0].Image))
			}
			if got := podsNow(e); got != strings.Join(want, " ") || s.Status.AvailableReplicas != *s.Spec.Replicas || s.Status.CurrentRevision != s.Status.UpdateRevision {
				t.Errorf("seed %d: %s, expected %v, status %+v", seed, got, want, s.Status)
			}
		})
	}
}
