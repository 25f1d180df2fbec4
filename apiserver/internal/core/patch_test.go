package core_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/warning"

	"github.com/keelson/keelson/apiserver/internal/core"
)

type recorder struct{ texts []string }

func (r *recorder) AddWarning(_, text string) { r.texts = append(r.texts, text) }

func TestPatch(t *testing.T) {
	const strict, warn, ignore = metav1.FieldValidationStrict, metav1.FieldValidationWarn, metav1.FieldValidationIgnore
	for _, tt := range []struct {
		name       string
		typ        types.PatchType
		data       string
		validation string
		want       string // image of container c, labels
		reason     metav1.StatusReason
		msg        string
		warning    string
	}{
		{name: "json", typ: types.JSONPatchType, data: `[{"op":"replace","path":"/spec/containers/0/image","value":"j"}]`, want: "j map[app:web]"},
		{name: "json test fails", typ: types.JSONPatchType, data: `[{"op":"test","path":"/spec/containers/0/image","value":"x"}]`, reason: metav1.StatusReasonInvalid},
		{name: "json not a patch", typ: types.JSONPatchType, data: `{}`, reason: metav1.StatusReasonBadRequest},
		{name: "json too long", typ: types.JSONPatchType, data: "[" + strings.Repeat(`{"op":"test","path":"/kind","value":"Pod"},`, 10000) + `{"op":"test","path":"/kind","value":"Pod"}]`, reason: metav1.StatusReasonRequestEntityTooLarge, msg: "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"},
		{name: "json many copies", typ: types.JSONPatchType, data: `[{"op":"replace","path":"/spec/containers/0/image","value":"j"}` +
			strings.Repeat(`,{"op":"copy","from":"/kind","path":"/metadata/labels/app"}`, 100) + `]`, want: "j map[app:Pod]"},
		{name: "merge", typ: types.MergePatchType, data: `{"metadata":{"labels":{"app":null,"x":"y"}}}`, want: "i map[x:y]"},
		{name: "merge not JSON", typ: types.MergePatchType, data: `{`, reason: metav1.StatusReasonBadRequest, msg: "invalid JSON patch"},
		{name: "merge wrong type", typ: types.MergePatchType, data: `{"spec":{"nodeName":1}}`, reason: metav1.StatusReasonInvalid},
		{name: "strategic", typ: types.StrategicMergePatchType, data: `{"spec":{"containers":[{"name":"c","image":"s"},{"name":"d","image":"x"}]}}`, want: "s map[app:web]"},
		{name: "strategic bad", typ: types.StrategicMergePatchType, data: `{"spec":{"containers":[{"image":"s"}]}}`, msg: "map: map[image:s] does not contain declared merge key: name"},
		{name: "strategic of wrong form", typ: types.StrategicMergePatchType, data: `{"spec":{"containers":[{"name":{}}]}}`, reason: metav1.StatusReasonBadRequest},
		{name: "unknown warned", typ: types.MergePatchType, data: `{"spec":{"foo":1},"metadata":{"labels":{"x":"y"}}}`, want: "i map[app:web x:y]", warning: `unknown field "spec.foo"`},
		{name: "unknown strict", typ: types.MergePatchType, validation: strict, data: `{"spec":{"foo":1}}`, reason: metav1.StatusReasonInvalid},
		{name: "unknown ignored", typ: types.MergePatchType, validation: ignore, data: `{"spec":{"foo":1},"metadata":{"labels":{"x":"y"}}}`, want: "i map[app:web x:y]"},
		{name: "duplicate strict", typ: types.MergePatchType, validation: strict, data: `{"metadata":{"labels":{"x":"y","x":"z"}}}`, reason: metav1.StatusReasonInvalid},
		{name: "unknown strategic", typ: types.StrategicMergePatchType, validation: warn, data: `{"spec":{"foo":1}}`, want: "i map[app:web]", warning: `unknown field "spec.foo"`},
		{name: "name", typ: types.MergePatchType, data: `{"metadata":{"name":"other"}}`, reason: metav1.StatusReasonBadRequest, msg: "the name of the object (other) does not match the name on the URL (a)"},
		{name: "uid", typ: types.MergePatchType, data: `{"metadata":{"uid":"other"}}`, reason: metav1.StatusReasonInvalid},
		{name: "resourceVersion", typ: types.MergePatchType, data: `{"metadata":{"resourceVersion":"1"}}`, reason: metav1.StatusReasonConflict},
		{name: "kind", typ: types.MergePatchType, data: `{"kind":"Service"}`, reason: metav1.StatusReasonInvalid},
		{name: "type", typ: "text/plain", data: `{}`, reason: metav1.StatusReasonUnsupportedMediaType},
		{name: "apply without manager", typ: types.ApplyYAMLPatchType, data: `{}`, reason: metav1.StatusReasonInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := start(t, core.Options{})
			rec := &recorder{}
			ctx := warning.WithWarningRecorder(context.Background(), rec)
			tg := target(t, c, "pods", "ns", "a")
			mustCreate(t, c, tg, pod("ns", "a", ""))
			o, _, err := c.Patch(ctx, tg, tt.typ, []byte(tt.data), metav1.PatchOptions{FieldValidation: tt.validation})
			if tt.reason != "" || tt.msg != "" {
				wantReason(t, err, tt.reason, tt.msg)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			p := o.Object().(*corev1.Pod)
			if got := fmt.Sprint(p.Spec.Containers[0].Image, " ", p.Labels); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if got := strings.Join(rec.texts, "\n"); got != tt.warning {
				t.Errorf("warnings %q, want %q", got, tt.warning)
			}
		})
	}
}

func TestPatchesAreNotLost(t *testing.T) {
	c := start(t, core.Options{})
	ctx := context.Background()
	tg := target(t, c, "configmaps", "ns", "a")
	mustCreate(t, c, tg, configMap("ns", "a"))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range 20 {
				if _, _, err := c.Patch(ctx, tg, types.MergePatchType, []byte(fmt.Sprintf(`{"data":{"k%d-%d":"v"}}`, i, j)), metav1.PatchOptions{}); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	if n := len(mustGet(t, c, tg).Object().(*corev1.ConfigMap).Data); n != 160 {
		t.Errorf("%d keys of 160", n)
	}
}

func TestApply(t *testing.T) {
	c := start(t, core.Options{})
	ctx := context.Background()
	tg := target(t, c, "configmaps", "ns", "a")
	apply := func(manager, data string, force bool) (*corev1.ConfigMap, bool, error) {
		o, created, err := c.Patch(ctx, tg, types.ApplyYAMLPatchType, []byte(data), metav1.PatchOptions{FieldManager: manager, Force: &force})
		if err != nil {
			return nil, false, err
		}
		return o.Object().(*corev1.ConfigMap), created, nil
	}
	cm, created, err := apply("one", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  a: '1'\n  b: '1'\n", false)
	if err != nil || !created || cm.Data["a"] != "1" || cm.Namespace != "ns" || cm.UID == "" {
		t.Fatalf("%+v %v %v", cm, created, err)
	}
	if mf := cm.ManagedFields; len(mf) != 1 || mf[0].Operation != metav1.ManagedFieldsOperationApply || mf[0].Manager != "one" {
		t.Errorf("managed fields: %+v", mf)
	}
	rv := cm.ResourceVersion
	// Applying the same again commits nothing.
	cm, created, err = apply("one", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  a: '1'\n  b: '1'\n", false)
	if err != nil || created || cm.ResourceVersion != rv {
		t.Fatalf("again: %+v %v %v", cm, created, err)
	}
	two := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"a":"2"}}`
	_, _, err = apply("two", two, false)
	wantReason(t, err, metav1.StatusReasonConflict, `Apply failed with 1 conflict: conflict with "one": .data.a`)
	if cm, _, err = apply("two", two, true); err != nil || cm.Data["a"] != "2" || cm.Data["b"] != "1" {
		t.Fatalf("force: %+v %v", cm, err)
	}
	// What its only owner leaves out goes.
	if cm, _, err = apply("one", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`, false); err != nil || len(cm.Data) != 1 || cm.Data["a"] != "2" {
		t.Fatalf("left out: %+v %v", cm, err)
	}
	_, _, err = apply("one", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"dat":{}}`, false)
	if err == nil || !strings.Contains(err.Error(), `.dat: field not declared in schema`) {
		t.Errorf("unknown field: %v", err)
	}
	_, _, err = apply("one", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}}`, false)
	wantReason(t, err, metav1.StatusReasonBadRequest, "")
	_, _, err = apply("one", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"}}`, false)
	wantReason(t, err, metav1.StatusReasonBadRequest, "the name of the object (b) does not match the name on the URL (a)")
	_, _, err = apply("one", "{", false)
	wantReason(t, err, metav1.StatusReasonBadRequest, "")
}

func deployment(ns, name string, replicas int32) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		},
	}
}

func TestScale(t *testing.T) {
	c := start(t, core.Options{})
	ctx := context.Background()
	tg := target(t, c, "deployments", "ns", "d")
	o := mustCreate(t, c, tg, deployment("ns", "d", 3))
	st := sub(tg, "scale")
	s := mustGet(t, c, st).Runtime().(*autoscalingv1.Scale)
	if s.Spec.Replicas != 3 || s.Status.Selector != "app=web" || s.ResourceVersion != o.ResourceVersion() || s.UID != o.Object().GetUID() {
		t.Fatalf("%+v", s)
	}
	s = s.DeepCopy()
	s.Spec.Replicas = 5
	res, _, err := c.Update(ctx, st, s.DeepCopy(), metav1.UpdateOptions{FieldManager: "hpa"})
	if err != nil || res.Runtime().(*autoscalingv1.Scale).Spec.Replicas != 5 {
		t.Fatalf("%v %v", res, err)
	}
	d := mustGet(t, c, tg).Object().(*appsv1.Deployment)
	if *d.Spec.Replicas != 5 || d.Generation != 2 {
		t.Errorf("%+v", d)
	}
	found := false
	for _, m := range d.ManagedFields {
		found = found || m.Manager == "hpa" && m.Subresource == "scale" && string(m.FieldsV1.GetRawBytes()) == `{"f:spec":{"f:replicas":{}}}`
	}
	if !found {
		t.Errorf("managed fields: %+v", d.ManagedFields)
	}
	_, _, err = c.Update(ctx, st, s.DeepCopy(), metav1.UpdateOptions{})
	wantReason(t, err, metav1.StatusReasonConflict, "")
	s.Spec.Replicas, s.ResourceVersion = -1, ""
	_, _, err = c.Update(ctx, st, s.DeepCopy(), metav1.UpdateOptions{})
	wantReason(t, err, metav1.StatusReasonInvalid, `Scale.autoscaling "d" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0`)
	for i, p := range []struct {
		typ  types.PatchType
		data string
	}{
		{types.MergePatchType, `{"spec":{"replicas":11}}`},
		{types.StrategicMergePatchType, `{"spec":{"replicas":12}}`},
		{types.JSONPatchType, `[{"op":"replace","path":"/spec/replicas","value":13}]`},
		{types.ApplyYAMLPatchType, `{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"d"},"spec":{"replicas":14}}`},
	} {
		res, _, err := c.Patch(ctx, st, p.typ, []byte(p.data), metav1.PatchOptions{FieldManager: "m", Force: forApply(p.typ)})
		if err != nil || res.Runtime().(*autoscalingv1.Scale).Spec.Replicas != int32(11+i) {
			t.Errorf("%s: %v %v", p.typ, res, err)
		}
	}
	if d := mustGet(t, c, tg).Object().(*appsv1.Deployment); *d.Spec.Replicas != 14 {
		t.Errorf("%d replicas", *d.Spec.Replicas)
	}
}

func forApply(pt types.PatchType) *bool {
	if pt != types.ApplyYAMLPatchType {
		return nil
	}
	yes := true
	return &yes
}

// What copies add is bounded before it is made.
func TestPatchBomb(t *testing.T) {
	c := start(t, core.Options{})
	tg := target(t, c, "pods", "ns", "a")
	mustCreate(t, c, tg, pod("ns", "a", ""))
	data := `[{"op":"add","path":"/metadata/labels/a","value":"` + strings.Repeat("x", 1000) + `"}` +
		strings.Repeat(`,{"op":"copy","from":"/metadata","path":"/metadata/labels/app"},{"op":"copy","from":"/metadata","path":"/metadata/labels/b"}`, 40) + `]`
	_, _, err := c.Patch(t.Context(), tg, types.JSONPatchType, []byte(data), metav1.PatchOptions{})
	// A document that was made would be refused with itself in the message.
	wantReason(t, err, metav1.StatusReasonInvalid, "the server rejected our request due to an error in our request")
}
