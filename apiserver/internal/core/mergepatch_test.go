package core

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand"
	"testing"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apiserver/pkg/warning"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/internal/objectcache"
	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/store/memstore"
)

type texts []string

func (w *texts) AddWarning(_, text string) { *w = append(*w, text) }

// patchBoth applies a patch in the direct way and by documents.
func patchBoth(t *testing.T, c *Core, r *Resource, old *corev1.Pod, pt types.PatchType, data []byte) (direct bool) {
	t.Helper()
	cur := objectcache.Transient(old)
	var warned, slowWarned texts
	p := &patch{c: c, t: Target{Resource: r, Namespace: "ns", Name: "p"}, typ: pt, data: data, strict: true, warn: true}
	before := old.DeepCopy()
	var fast client.Object
	var done bool
	_, err := guard(func() (obj client.Object, err error) {
		fast, done, err = p.direct(warning.WithWarningRecorder(context.Background(), &warned), cur)
		return fast, err
	})
	if d := cmp.Diff(before, old); d != "" {
		t.Fatalf("patch %s changed the shared object: %s", data, d)
	}
	if err != nil {
		var status apierrors.APIStatus
		if !errors.As(err, &status) {
			t.Fatalf("patch %s: %v", data, err)
		}
		return false
	}
	if !done {
		return false
	}
	ctx := warning.WithWarningRecorder(context.Background(), &slowWarned)
	out := &corev1.Pod{TypeMeta: old.TypeMeta}
	if pt == types.StrategicMergePatchType {
		err = p.strategic(ctx, old, out)
	} else {
		var doc []byte
		if doc, err = json.Marshal(old); err == nil {
			err = p.textual(ctx, doc, out)
		}
	}
	if err != nil {
		t.Fatalf("direct accepts what documents don't: %s: %v", data, err)
	}
	slow, _ := json.Marshal(out)
	quick, _ := json.Marshal(fast)
	if d := cmp.Diff(canonical(out), canonical(fast)); d != "" {
		t.Fatalf("patch %s\nof %s\n-documents +direct\n%s\n%s\n%s", data, mustJSON(old), d, slow, quick)
	}
	if d := cmp.Diff([]string(slowWarned), []string(warned)); d != "" {
		t.Fatalf("patch %s: warnings -documents +direct\n%s", data, d)
	}
	return true
}

// canonical is how an object is stored.
func canonical(obj client.Object) *corev1.Pod {
	data, _ := obj.(*corev1.Pod).Marshal()
	p := &corev1.Pod{}
	_ = p.Unmarshal(data)
	return p
}

func mustJSON(v any) string {
	data, _ := json.Marshal(v)
	return string(data)
}

func patchCore(t testing.TB) (*Core, *Resource) {
	t.Helper()
	s, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	pods := &kind.Kind{GVK: corev1.SchemeGroupVersion.WithKind("Pod"), Resource: "pods", Namespaced: true, Status: &kind.Subresource{}}
	c, err := New(Options{Store: s, Groups: []kind.Group{{Name: "", AddToScheme: corev1.AddToScheme, Kinds: []*kind.Kind{pods}}}})
	if err != nil {
		t.Fatal(err)
	}
	return c, c.resources[0]
}

// TestDirectPatch compares the two ways on patches between random pods.
func TestDirectPatch(t *testing.T) {
	c, r := patchCore(t)
	done := map[types.PatchType]int{}
	for seed := range int64(400) {
		rnd := rand.New(rand.NewSource(seed))
		a, b := canonical(randomPod(rnd)), canonical(randomPod(rnd))
		for _, p := range []*corev1.Pod{a, b} {
			p.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
		}
		a.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "m", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:x":{}}`)}}
		b.ManagedFields = a.ManagedFields
		from, to := []byte(mustJSON(a)), []byte(mustJSON(b))
		merge, err := jsonpatch.CreateMergePatch(from, to)
		if err != nil {
			t.Fatal(err)
		}
		strategic, err := strategicpatch.CreateTwoWayMergePatch(from, to, corev1.Pod{})
		if err != nil {
			t.Fatal(err)
		}
		for pt, data := range map[types.PatchType][]byte{types.MergePatchType: merge, types.StrategicMergePatchType: strategic} {
			if patchBoth(t, c, r, a, pt, data) {
				done[pt]++
			}
		}
	}
	for pt, n := range done {
		if n < 300 {
			t.Errorf("only %d of 400 of %s were direct", n, pt)
		}
	}
}

// FuzzDirectPatch does the same with patches of any form.
func FuzzDirectPatch(f *testing.F) {
	for i, p := range []string{
		`{}`, `null`, `[]`, `{"spec":null}`, `{"metadata":{"labels":null}}`, `{"metadata":{"labels":{"a":null,"b":"c"}}}`, `{"metadata":{"labels":{"a":{"x":1}}}}`,
		`{"spec":{"containers":[{"name":"x","image":null}]}}`, `{"spec":{"containers":null}}`, `{"spec":{"terminationGracePeriodSeconds":3.0}}`,
		`{"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":null}}}}`, `{"spec":{"securityContext":{"runAsUser":1,"foo":2}}}`,
		`{"metadata":{"creationTimestamp":"2020-01-01T00:00:00Z"}}`, `{"metadata":{"creationTimestamp":{}}}`, `{"spec":{"overhead":{"cpu":"1","memory":null}}}`,
		`{"spec":{"containers":[{"name":"x","livenessProbe":{"httpGet":{"port":"a"}}}]}}`, `{"kind":"Pod"}`, `{"kind":"Other"}`, `{"unknown":{"a":1}}`, `{"metadata":{"labels":{"a":"1","a":"2"}}}`,
		`{"spec":{"hostNetwork":"yes"}}`, `{"spec":{"nodeName":5}}`, `{"status":{"conditions":[{"type":"Ready","status":"True"}]}}`, `{"status":{"$patch":"replace","phase":"x"}}`,
		`{"spec":{"$setElementOrder/containers":[{"name":"b"},{"name":"a"}],"containers":[{"name":"a","$patch":"delete"}]}}`, `{"metadata":{"$deleteFromPrimitiveList/finalizers":["a"]}}`,
		`{"spec":{"containers":[{"name":"x","resources":{"limits":{"cpu":1}}}]}}`, `{"metadata":{"managedFields":[]}}`, `{"spec":{"volumes":[{"name":"a","emptyDir":{}}]}}`,
	} {
		f.Add(int64(i), p)
	}
	c, r := patchCore(f)
	f.Fuzz(func(t *testing.T, seed int64, data string) {
		if !json.Valid([]byte(data)) {
			return
		}
		p := canonical(randomPod(rand.New(rand.NewSource(seed))))
		p.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
		for _, pt := range []types.PatchType{types.MergePatchType, types.StrategicMergePatchType} {
			patchBoth(t, c, r, p, pt, []byte(data))
		}
	})
}
