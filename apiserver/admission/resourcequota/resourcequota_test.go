package resourcequota

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/admission/internal/admissiontest"
	"github.com/keelson/keelson/apiserver/admission/resourcequota/usage"
)

func amounts(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func quota(name string, hard corev1.ResourceList, scopes ...corev1.ResourceQuotaScope) *corev1.ResourceQuota {
	return &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}, Spec: corev1.ResourceQuotaSpec{Hard: hard, Scopes: scopes}}
}

func pod(name string, requests, limits corev1.ResourceList) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}},
	}}
}

func service(typ corev1.ServiceType, ports int) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "s"}, Spec: corev1.ServiceSpec{Type: typ}}
	for i := range ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Port: int32(80 + i)})
	}
	return s
}

func claim(class, size string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "c"}, Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: &class, Resources: corev1.VolumeResourceRequirements{Requests: amounts("storage", size)},
	}}
}

func TestDecisions(t *testing.T) {
	deadline := int64(5)
	batch := pod("p", nil, nil)
	batch.Spec.ActiveDeadlineSeconds = &deadline
	urgent := pod("p", nil, nil)
	urgent.Spec.PriorityClassName = "high"
	byPriority := quota("q", amounts("pods", "0"))
	byPriority.Spec.ScopeSelector = &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
		{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: corev1.ScopeSelectorOpIn, Values: []string{"high"}},
	}}
	tests := []struct {
		name  string
		quota *corev1.ResourceQuota
		have  []client.Object
		req   admissiontest.Request
		want  string
		used  string // of the first resource in want, after
	}{
		{
			"fits", quota("q", amounts("pods", "2", "requests.cpu", "2")),
			[]client.Object{pod("old", amounts("cpu", "1"), nil)},
			admissiontest.Request{Object: pod("p", amounts("cpu", "1"), nil)},
			"", "pods=2,requests.cpu=2",
		},
		{
			"exceeds", quota("q", amounts("requests.cpu", "2", "memory", "1Gi")),
			[]client.Object{pod("old", amounts("cpu", "1500m", "memory", "1Mi"), nil)},
			admissiontest.Request{Object: pod("p", amounts("cpu", "1", "memory", "1Mi"), nil)},
			`pods "p" is forbidden: exceeded quota: q, requested: requests.cpu=1, used: requests.cpu=1500m, limited: requests.cpu=2`, "",
		},
		{
			"must specify", quota("q", amounts("requests.cpu", "2", "limits.memory", "1Gi")), nil,
			admissiontest.Request{Object: pod("p", nil, nil)},
			`pods "p" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c`, "",
		},
		{"finished pods are free", quota("q", amounts("pods", "1")), []client.Object{func() client.Object {
			p := pod("old", nil, nil)
			p.Status.Phase = corev1.PodSucceeded
			return p
		}()}, admissiontest.Request{Object: pod("p", nil, nil)}, "", "pods=1"},
		{"other scope", quota("q", amounts("pods", "0"), corev1.ResourceQuotaScopeTerminating), nil, admissiontest.Request{Object: pod("p", nil, nil)}, "", ""},
		{
			"scope", quota("q", amounts("pods", "0"), corev1.ResourceQuotaScopeTerminating), nil,
			admissiontest.Request{Object: batch},
			`pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0`, "",
		},
		{"best effort", quota("q", amounts("pods", "0"), corev1.ResourceQuotaScopeNotBestEffort), nil, admissiontest.Request{Object: pod("p", nil, nil)}, "", ""},
		{
			"priority class", byPriority, nil,
			admissiontest.Request{Object: urgent},
			`pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0`, "",
		},
		{
			"counted object", quota("q", amounts("count/configmaps", "0")), nil,
			admissiontest.Request{Object: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "m"}}},
			`configmaps "m" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=0, limited: count/configmaps=0`, "",
		},
		{
			"node ports of an update", quota("q", amounts("services.nodeports", "1")), nil,
			admissiontest.Request{Object: service(corev1.ServiceTypeNodePort, 2), Old: service(corev1.ServiceTypeClusterIP, 2), Operation: admission.Update},
			`services "s" is forbidden: exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=0, limited: services.nodeports=1`, "",
		},
		{
			"an update that uses less", quota("q", amounts("services.nodeports", "0")), nil,
			admissiontest.Request{Object: service(corev1.ServiceTypeClusterIP, 2), Old: service(corev1.ServiceTypeNodePort, 2), Operation: admission.Update},
			"", "",
		},
		{
			"storage of a class", quota("q", amounts("gold.storageclass.storage.k8s.io/requests.storage", "5Gi")), nil,
			admissiontest.Request{Object: claim("gold", "6Gi")},
			`persistentvolumeclaims "c" is forbidden: exceeded quota: q, requested: gold.storageclass.storage.k8s.io/requests.storage=6Gi, used: gold.storageclass.storage.k8s.io/requests.storage=0, limited: gold.storageclass.storage.k8s.io/requests.storage=5Gi`, "",
		},
		{"dry run", quota("q", amounts("pods", "1")), nil, admissiontest.Request{Object: pod("p", nil, nil), DryRun: true}, "", "pods=0"},
		{
			"status updates are free", quota("q", amounts("pods", "0")), nil,
			admissiontest.Request{Object: pod("p", nil, nil), Old: pod("p", nil, nil), Operation: admission.Update, Subresource: "status"},
			"", "",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := admissiontest.Client(t, append(tt.have, tt.quota)...)
			p, err := New(c, Options{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = admissiontest.Run(t, p, tt.req)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Fatalf("got  %s\nwant %s", got, tt.want)
			}
			var after corev1.ResourceQuota
			if err := c.Get(t.Context(), client.ObjectKey{Namespace: "n", Name: "q"}, &after); err != nil {
				t.Fatal(err)
			}
			for _, pair := range strings.Split(tt.used, ",") {
				name, want, ok := strings.Cut(pair, "=")
				if !ok {
					continue
				}
				if q := after.Status.Used[corev1.ResourceName(name)]; q.Cmp(resource.MustParse(want)) != 0 {
					t.Errorf("used %s: got %s, want %s", name, q.String(), want)
				}
			}
		})
	}
}

func TestConcurrentRequestsShareTheRest(t *testing.T) {
	c := admissiontest.Client(t, quota("q", amounts("pods", "7")))
	// Two plugins stand for two servers, which share no memory.
	var plugins []*Plugin
	for range 2 {
		p, err := New(c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		plugins = append(plugins, p)
	}
	var admitted atomic.Int32
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			_, err := admissiontest.Run(t, plugins[i%2], admissiontest.Request{Object: pod(fmt.Sprintf("p%d", i), nil, nil)})
			if err == nil {
				admitted.Add(1)
			}
		})
	}
	wg.Wait()
	if got := admitted.Load(); got != 7 {
		t.Errorf("%d pods were admitted, want 7", got)
	}
	for _, p := range plugins {
		if len(p.turns) != 0 {
			t.Errorf("turns are left: %v", p.turns)
		}
	}
}

func TestCount(t *testing.T) {
	c := admissiontest.Client(t, pod("a", nil, amounts("cpu", "1")), pod("b", nil, amounts("cpu", "1")),
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "s"}}, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "s"}})
	got, err := usage.Count(t.Context(), usage.FromClient(c), quota("q", amounts("pods", "7", "secrets", "3", "limits.cpu", "4", "count/widgets.example.com", "1")), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if s := text(got, []corev1.ResourceName{"count/widgets.example.com", "limits.cpu", "pods", "secrets"}); s != "count/widgets.example.com=0,limits.cpu=2,pods=2,secrets=1" {
		t.Errorf("used: %s", s)
	}
}
