package limitranger

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"

	"github.com/keelson/keelson/apiserver/admission/internal/admissiontest"
)

func list(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func pod(requests, limits corev1.ResourceList) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p"}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}},
	}}
}

func limits(items ...corev1.LimitRangeItem) *corev1.LimitRange {
	return &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "l"}, Spec: corev1.LimitRangeSpec{Limits: items}}
}

func TestDefaults(t *testing.T) {
	p, err := New(admissiontest.Client(t, limits(corev1.LimitRangeItem{
		Type: corev1.LimitTypeContainer, Default: list("cpu", "1", "memory", "1Gi"), DefaultRequest: list("cpu", "500m"),
	})), Options{})
	if err != nil {
		t.Fatal(err)
	}
	x := pod(nil, list("memory", "2Gi"))
	x.Spec.InitContainers = []corev1.Container{{Name: "i", Resources: corev1.ResourceRequirements{Requests: list("cpu", "1")}}}
	if _, err := admissiontest.Run(t, p, admissiontest.Request{Object: x}); err != nil {
		t.Fatal(err)
	}
	want := corev1.ResourceRequirements{Requests: list("cpu", "500m"), Limits: list("cpu", "1", "memory", "2Gi")}
	if diff := cmp.Diff(want, x.Spec.Containers[0].Resources); diff != "" {
		t.Error(diff)
	}
	if got, want := x.Annotations[Annotation], "LimitRanger plugin set: cpu request for container c; cpu limit for container c; cpu, memory limit for init container i"; got != want {
		t.Errorf("annotation: got %q, want %q", got, want)
	}
}

func TestBounds(t *testing.T) {
	container := func(f func(*corev1.LimitRangeItem)) *corev1.LimitRange {
		item := corev1.LimitRangeItem{Type: corev1.LimitTypeContainer}
		f(&item)
		return limits(item)
	}
	tests := []struct {
		name   string
		limits *corev1.LimitRange
		req    admissiontest.Request
		want   string
	}{
		{
			"within", container(func(i *corev1.LimitRangeItem) { i.Min, i.Max = list("cpu", "100m"), list("cpu", "2") }),
			admissiontest.Request{Object: pod(list("cpu", "1"), list("cpu", "2"))},
			"",
		},
		{
			"no request", container(func(i *corev1.LimitRangeItem) { i.Min = list("cpu", "100m") }),
			admissiontest.Request{Object: pod(nil, nil)},
			`pods "p" is forbidden: minimum cpu usage per Container is 100m.  No request is specified`,
		},
		{
			"small request", container(func(i *corev1.LimitRangeItem) { i.Min = list("cpu", "100m") }),
			admissiontest.Request{Object: pod(list("cpu", "50m"), nil)},
			`pods "p" is forbidden: minimum cpu usage per Container is 100m, but request is 50m`,
		},
		{
			"no limit", container(func(i *corev1.LimitRangeItem) { i.Max = list("memory", "1Gi") }),
			admissiontest.Request{Object: pod(nil, nil)},
			`pods "p" is forbidden: maximum memory usage per Container is 1Gi.  No limit is specified`,
		},
		{
			"great limit, two errors", container(func(i *corev1.LimitRangeItem) { i.Max = list("memory", "1Gi", "cpu", "1") }),
			admissiontest.Request{Object: pod(nil, list("memory", "2Gi", "cpu", "3"))},
			`pods "p" is forbidden: [maximum cpu usage per Container is 1, but limit is 3, maximum memory usage per Container is 1Gi, but limit is 2Gi]`,
		},
		{
			"ratio", container(func(i *corev1.LimitRangeItem) { i.MaxLimitRequestRatio = list("cpu", "2") }),
			admissiontest.Request{Object: pod(list("cpu", "1"), list("cpu", "3"))},
			`pods "p" is forbidden: cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000`,
		},
		{
			"pod", limits(corev1.LimitRangeItem{Type: corev1.LimitTypePod, Max: list("cpu", "1")}),
			admissiontest.Request{Object: pod(list("cpu", "1"), list("cpu", "1500m"))},
			`pods "p" is forbidden: maximum cpu usage per Pod is 1, but limit is 1500m`,
		},
		{
			"claim", limits(corev1.LimitRangeItem{Type: corev1.LimitTypePersistentVolumeClaim, Max: list("storage", "1Gi")}),
			admissiontest.Request{Object: &corev1.PersistentVolumeClaim{
				ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "c"},
				Spec:       corev1.PersistentVolumeClaimSpec{Resources: corev1.VolumeResourceRequirements{Requests: list("storage", "2Gi")}},
			}},
			`persistentvolumeclaims "c" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi`,
		},
		{
			"updates of pods pass", container(func(i *corev1.LimitRangeItem) { i.Min = list("cpu", "100m") }),
			admissiontest.Request{Object: pod(nil, nil), Old: pod(nil, nil), Operation: admission.Update},
			"",
		},
		{
			"resizes do not", container(func(i *corev1.LimitRangeItem) { i.Min = list("cpu", "100m") }),
			admissiontest.Request{Object: pod(list("cpu", "1m"), nil), Old: pod(nil, nil), Operation: admission.Update, Subresource: "resize"},
			`pods "p" is forbidden: minimum cpu usage per Container is 100m, but request is 1m`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := New(admissiontest.Client(t, tt.limits), Options{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = admissiontest.Run(t, p, tt.req)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
