package core_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/internal/core"
	"github.com/keelson/keelson/apiserver/kind"
)

// versionedGroups has a kind in two versions, and one without a Go type.
func versionedGroups() []kind.Group {
	widget := schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Widget"}
	return []kind.Group{
		{
			Name: "autoscaling", Versions: []string{"v2", "v1"},
			AddToScheme: func(s *runtime.Scheme) error {
				if err := autoscalingv1.AddToScheme(s); err != nil {
					return err
				}
				return autoscalingv2.AddToScheme(s)
			},
			Kinds: []*kind.Kind{{
				GVK: autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"), Resource: "horizontalpodautoscalers", Namespaced: true,
				AllowUnconditionalUpdate: true, Status: &kind.Subresource{},
				Versions: []kind.Version{{
					GVK: autoscalingv1.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"),
					To: func(obj client.Object) (client.Object, error) {
						h := obj.(*autoscalingv2.HorizontalPodAutoscaler)
						return &autoscalingv1.HorizontalPodAutoscaler{
							ObjectMeta: *h.ObjectMeta.DeepCopy(),
							Spec:       autoscalingv1.HorizontalPodAutoscalerSpec{MinReplicas: h.Spec.MinReplicas, MaxReplicas: h.Spec.MaxReplicas},
						}, nil
					},
					From: func(obj client.Object) (client.Object, error) {
						h := obj.(*autoscalingv1.HorizontalPodAutoscaler)
						return &autoscalingv2.HorizontalPodAutoscaler{
							ObjectMeta: *h.ObjectMeta.DeepCopy(),
							Spec:       autoscalingv2.HorizontalPodAutoscalerSpec{MinReplicas: h.Spec.MinReplicas, MaxReplicas: h.Spec.MaxReplicas},
						}, nil
					},
				}},
			}},
		},
		{
			Name: "example.com", Versions: []string{"v1"},
			AddToScheme: func(s *runtime.Scheme) error {
				s.AddKnownTypeWithName(widget, &unstructured.Unstructured{})
				s.AddKnownTypeWithName(widget.GroupVersion().WithKind("WidgetList"), &unstructured.UnstructuredList{})
				return nil
			},
			Kinds: []*kind.Kind{{GVK: widget, Resource: "widgets", Namespaced: true, StorePrefix: "example.com/widgets", AllowUnconditionalUpdate: true, Status: &kind.Subresource{}}},
		},
	}
}

func targetOf(t testing.TB, c *core.Core, group, version, resource, name string) core.Target {
	t.Helper()
	r, ok := c.Lookup(schema.GroupVersionResource{Group: group, Version: version, Resource: resource})
	if !ok {
		t.Fatalf("no resource %s", resource)
	}
	return core.Target{Resource: r, Namespace: "ns", Name: name}
}

func TestVersions(t *testing.T) {
	c := start(t, core.Options{Groups: versionedGroups()})
	ctx := context.Background()
	v1 := targetOf(t, c, "autoscaling", "v1", "horizontalpodautoscalers", "h")
	v2 := targetOf(t, c, "autoscaling", "v2", "horizontalpodautoscalers", "h")
	in := &autoscalingv1.HorizontalPodAutoscaler{Spec: autoscalingv1.HorizontalPodAutoscalerSpec{MaxReplicas: 3}}
	in.Name = "h"
	o, err := c.Create(ctx, v1, in, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := o.Object().(*autoscalingv2.HorizontalPodAutoscaler); !ok {
		t.Fatalf("stored as %T", o.Object())
	}
	check := func(tg core.Target, apiVersion string, replicas float64) {
		t.Helper()
		for _, mediaType := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
			data, err := mustGet(t, c, tg).Encoded(tg.Resource, mediaType)
			if err != nil {
				t.Fatal(err)
			}
			if mediaType != "application/json" {
				if data, err = json.Marshal(decodeProtobuf(t, c, data)); err != nil {
					t.Fatal(err)
				}
			}
			var m map[string]any
			if err := json.Unmarshal(data, &m); err != nil {
				t.Fatal(err)
			}
			if m["apiVersion"] != apiVersion || m["spec"].(map[string]any)["maxReplicas"] != replicas {
				t.Errorf("%s: %s", mediaType, data)
			}
		}
	}
	check(v1, "autoscaling/v1", 3)
	check(v2, "autoscaling/v2", 3)
	if _, _, err := c.Patch(ctx, v1, types.MergePatchType, []byte(`{"spec":{"maxReplicas":4}}`), metav1.PatchOptions{FieldManager: "one"}); err != nil {
		t.Fatal(err)
	}
	check(v2, "autoscaling/v2", 4)
	if _, _, err := c.Patch(ctx, v2, types.StrategicMergePatchType, []byte(`{"spec":{"maxReplicas":5}}`), metav1.PatchOptions{FieldManager: "two"}); err != nil {
		t.Fatal(err)
	}
	check(v1, "autoscaling/v1", 5)
	apply := `{"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler","metadata":{"name":"h"},"spec":{"maxReplicas":6,"scaleTargetRef":{"kind":"D","name":"d"}}}`
	_, _, err = c.Patch(ctx, v1, types.ApplyYAMLPatchType, []byte(apply), metav1.PatchOptions{FieldManager: "three"})
	wantReason(t, err, metav1.StatusReasonConflict, "")
	if !strings.Contains(err.Error(), `conflict with "two" using autoscaling/v2: .spec.maxReplicas`) {
		t.Errorf("%v", err)
	}
	if _, _, err = c.Patch(ctx, v1, types.ApplyYAMLPatchType, []byte(apply), metav1.PatchOptions{FieldManager: "three", Force: ptr(true)}); err != nil {
		t.Fatal(err)
	}
	check(v2, "autoscaling/v2", 6)
}

func TestUnstructured(t *testing.T) {
	s := newStore(t)
	c := start(t, core.Options{Groups: versionedGroups(), Store: s})
	ctx := context.Background()
	tg := targetOf(t, c, "example.com", "v1", "widgets", "w")
	o := mustCreate(t, c, tg, &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"name": "w"}, "spec": map[string]any{"size": int64(1)}, "status": map[string]any{"ready": true},
	}})
	u := o.Object().(*unstructured.Unstructured)
	if _, has := u.Object["status"]; has || u.GetGeneration() != 1 || u.GetAPIVersion() != "example.com/v1" || u.GetResourceVersion() != o.ResourceVersion() {
		t.Fatalf("%v", u)
	}
	size := func(o *core.Object) int64 {
		n, _, _ := unstructured.NestedInt64(o.Object().(*unstructured.Unstructured).Object, "spec", "size")
		return n
	}
	o, _, err := c.Patch(ctx, tg, types.MergePatchType, []byte(`{"spec":{"size":2}}`), metav1.PatchOptions{})
	if err != nil || size(o) != 2 || o.Object().GetGeneration() != 2 {
		t.Fatalf("%v %v", o, err)
	}
	o, _, err = c.Patch(ctx, sub(tg, "status"), types.MergePatchType, []byte(`{"spec":{"size":9},"status":{"ready":true}}`), metav1.PatchOptions{})
	if err != nil || size(o) != 2 || o.Object().GetGeneration() != 2 || o.Object().(*unstructured.Unstructured).Object["status"] == nil {
		t.Fatalf("%v %v", o, err)
	}
	_, _, err = c.Patch(ctx, tg, types.StrategicMergePatchType, []byte(`{}`), metav1.PatchOptions{})
	wantReason(t, err, metav1.StatusReasonUnsupportedMediaType, "")
	o, _, err = c.Patch(ctx, tg, types.ApplyYAMLPatchType, []byte("apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 3}\n"), metav1.PatchOptions{FieldManager: "m", Force: ptr(true)})
	if err != nil || size(o) != 3 {
		t.Fatalf("%v %v", o, err)
	}
	other := start(t, core.Options{Groups: versionedGroups(), Store: s})
	if got := mustGet(t, other, targetOf(t, other, "example.com", "v1", "widgets", "w")); size(got) != 3 || got.Object().GetResourceVersion() != o.ResourceVersion() {
		t.Errorf("%v", got.Object())
	}
	if res, gone := mustDelete(t, c, tg, metav1.DeleteOptions{}); !gone {
		t.Errorf("%v", res.Runtime())
	}
}
