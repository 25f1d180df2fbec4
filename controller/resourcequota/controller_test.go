package resourcequota_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/resourcequota"
)

func quota(name string, scopes []corev1.ResourceQuotaScope, names ...corev1.ResourceName) *corev1.ResourceQuota {
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{}, Scopes: scopes}}
	for _, n := range names {
		q.Spec.Hard[n] = resource.MustParse("100")
	}
	return q
}

func pod(name, cpu string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	if cpu != "" {
		q := resource.MustParse(cpu)
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: q}, Limits: corev1.ResourceList{corev1.ResourceCPU: q}}
	}
	return p
}

func used(e *controllertest.Env, name string) string {
	q, _ := controllertest.Get[*corev1.ResourceQuota](e.Cluster, "ns", name)
	var out []string
	for _, k := range slices.Sorted(maps.Keys(q.Status.Used)) {
		n := q.Status.Used[k]
		out = append(out, string(k)+"="+n.String())
	}
	return strings.Join(out, " ")
}

func TestUsage(t *testing.T) {
	class := "fast"
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Create(
			pod("a", "1500m"), pod("b", "500m"), pod("c", ""),
			&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: make([]corev1.ServicePort, 2)}},
			&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: corev1.PersistentVolumeClaimSpec{
				StorageClassName: &class, Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("5Gi")}},
			}},
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "m"}}, pod2("elsewhere"),
			quota("all", nil, "pods", "cpu", "requests.cpu", "limits.cpu", "services", "services.nodeports", "persistentvolumeclaims", "requests.storage",
				"fast.storageclass.storage.k8s.io/requests.storage", "configmaps", "count/secrets", "count/deployments.apps"),
			quota("effort", []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeBestEffort}, "pods"),
		)
		ctl, err := resourcequota.New(e.Client, e.Cache, resourcequota.Options{})
		e.Check(err)
		e.Start(ctl.Run)
		e.Settle()
		const want = "configmaps=1 count/deployments.apps=0 count/secrets=0 cpu=2 fast.storageclass.storage.k8s.io/requests.storage=5Gi limits.cpu=2 persistentvolumeclaims=1 pods=3 requests.cpu=2 requests.storage=5Gi services=1 services.nodeports=2"
		if got := used(e, "all"); got != want {
			t.Errorf("used\n%s, expected\n%s", got, want)
		}
		if got := used(e, "effort"); got != "pods=1" {
			t.Errorf("used by scope %s", got)
		}
		controllertest.Edit(e.Cluster, "ns", "b", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
		e.Check(e.Client.Delete(e.Ctx, pod("c", "")))
		e.Check(e.Client.Delete(e.Ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "m"}}))
		e.Advance(15 * time.Second)
		if got := used(e, "all"); !strings.Contains(got, "configmaps=0") || !strings.Contains(got, "cpu=1500m") || !strings.Contains(got, " pods=1 ") {
			t.Errorf("used %s", got)
		}
		if got := used(e, "effort"); got != "pods=0" {
			t.Errorf("used by scope %s", got)
		}
	})
}

func pod2(ns string) *corev1.Pod {
	p := pod("x", "1")
	p.Namespace = ns
	return p
}

// What can't be counted keeps the number it had; the rest goes on.
func TestPartialUsage(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Create(pod("a", "1"), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "m"}}, quota("q", nil, "pods", "configmaps"))
		ctl, err := resourcequota.New(e.Client, e.Cache, resourcequota.Options{})
		e.Check(err)
		e.Start(ctl.Run)
		e.Settle()
		e.Cluster.React(func(c controllertest.Call) error {
			if c.Verb == "list" && strings.HasPrefix(c.Kind.Kind, "ConfigMap") {
				return errors.New("not now")
			}
			return nil
		})
		e.Check(e.Client.Delete(e.Ctx, pod("a", "")))
		e.Check(e.Client.Delete(e.Ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "m"}}))
		e.Advance(15 * time.Second)
		if got := used(e, "q"); got != "configmaps=1 pods=0" {
			t.Errorf("used %s while ConfigMaps can't be listed", got)
		}
		e.Cluster.React(nil)
		e.Advance(5 * time.Minute)
		if got := used(e, "q"); got != "configmaps=0 pods=0" {
			t.Errorf("used %s", got)
		}
	})
}
