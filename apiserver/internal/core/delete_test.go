package core_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/internal/core"
)

func ptr[T any](v T) *T { return &v }

// orphanDependents is what clients sent before there was a propagation policy.
func orphanDependents(b bool) metav1.DeleteOptions {
	//nolint:staticcheck // that is what is tested
	return metav1.DeleteOptions{OrphanDependents: &b}
}

func mustDelete(t testing.TB, c *core.Core, tg core.Target, o metav1.DeleteOptions) (*core.Object, bool) {
	t.Helper()
	res, gone, err := c.Delete(context.Background(), tg, o)
	if err != nil {
		t.Fatal(err)
	}
	return res, gone
}

func TestDelete(t *testing.T) {
	c := start(t, core.Options{})
	ctx := context.Background()
	tg := target(t, c, "configmaps", "ns", "a")
	o := mustCreate(t, c, tg, configMap("ns", "a"))
	_, _, err := c.Delete(ctx, tg, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr(types.UID("x"))}})
	wantReason(t, err, metav1.StatusReasonConflict, "")
	_, _, err = c.Delete(ctx, tg, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: ptr("1")}})
	wantReason(t, err, metav1.StatusReasonConflict, "")
	res, gone := mustDelete(t, c, tg, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr(o.Object().GetUID())}})
	st, ok := res.Runtime().(*metav1.Status)
	if !gone || !ok || st.Status != metav1.StatusSuccess || st.Details.Name != "a" || st.Details.Kind != "configmaps" || st.Details.UID != o.Object().GetUID() {
		t.Errorf("%v %+v", gone, res.Runtime())
	}
	_, _, err = c.Delete(ctx, tg, metav1.DeleteOptions{})
	wantReason(t, err, metav1.StatusReasonNotFound, `configmaps "a" not found`)
}

func TestGracefulDelete(t *testing.T) {
	clock := testclock.NewFakeClock(time.Unix(1_700_000_000, 0))
	c := start(t, core.Options{Clock: clock})
	ctx := context.Background()
	tg := target(t, c, "pods", "ns", "a")
	mustCreate(t, c, tg, pod("ns", "a", "n1"))
	res, gone := mustDelete(t, c, tg, metav1.DeleteOptions{})
	p := res.Object()
	if gone || *p.GetDeletionGracePeriodSeconds() != 30 || !p.GetDeletionTimestamp().Time.Equal(clock.Now().Add(30*time.Second)) || p.GetGeneration() != 2 {
		t.Fatalf("%v %+v", gone, p)
	}
	// Neither longer, nor again.
	if again, gone := mustDelete(t, c, tg, metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(60))}); gone || again != res {
		t.Errorf("%v %+v", gone, again.Object())
	}
	if again, gone := mustDelete(t, c, tg, metav1.DeleteOptions{}); gone || again != res {
		t.Errorf("%v %+v", gone, again.Object())
	}
	shorter, gone := mustDelete(t, c, tg, metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(5))})
	if gone || *shorter.Object().GetDeletionGracePeriodSeconds() != 5 || !shorter.Object().GetDeletionTimestamp().Time.Equal(clock.Now().Add(5*time.Second)) {
		t.Errorf("%v %+v", gone, shorter.Object())
	}
	// An update can't revive it, and a finalizer can't be added any more.
	up := shorter.Object().DeepCopyObject().(*corev1.Pod)
	up.DeletionTimestamp, up.DeletionGracePeriodSeconds = nil, nil
	up.Labels["x"] = "y"
	o, _, err := c.Update(ctx, tg, up.DeepCopy(), metav1.UpdateOptions{})
	if err != nil || o.Object().GetDeletionTimestamp() == nil {
		t.Fatalf("%v %v", o, err)
	}
	up.ResourceVersion = ""
	up.Finalizers = []string{"a/b"}
	_, _, err = c.Update(ctx, tg, up.DeepCopy(), metav1.UpdateOptions{})
	wantReason(t, err, metav1.StatusReasonInvalid, "")
	if _, gone := mustDelete(t, c, tg, metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(0))}); !gone {
		t.Error("not gone")
	}
}

func TestFinalizersAndPropagation(t *testing.T) {
	c := start(t, core.Options{})
	ctx := context.Background()
	for _, tt := range []struct {
		name string
		have []string
		opts metav1.DeleteOptions
		want []string // nil: gone
	}{
		{"background", nil, metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationBackground)}, nil},
		{"foreground", nil, metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationForeground)}, []string{"foregroundDeletion"}},
		{"orphan", nil, metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationOrphan)}, []string{"orphan"}},
		{"orphanDependents", nil, orphanDependents(true), []string{"orphan"}},
		{"not orphanDependents", nil, orphanDependents(false), nil},
		{"kept", []string{"a/b"}, metav1.DeleteOptions{}, []string{"a/b"}},
		{"kept and foreground", []string{"a/b"}, metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationForeground)}, []string{"a/b", "foregroundDeletion"}},
		{"overruled", []string{"orphan"}, metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationBackground)}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tg := target(t, c, "configmaps", "ns", "a")
			cm := configMap("ns", "a")
			cm.Finalizers = tt.have
			mustCreate(t, c, tg, cm)
			res, gone := mustDelete(t, c, tg, tt.opts)
			if tt.want == nil {
				if !gone {
					t.Fatalf("still there: %+v", res.Object())
				}
				return
			}
			o := res.Object()
			if gone || !slices.Equal(o.GetFinalizers(), tt.want) || o.GetDeletionTimestamp() == nil || *o.GetDeletionGracePeriodSeconds() != 0 {
				t.Fatalf("%v %+v", gone, o)
			}
			// The last finalizer's removal removes the object.
			cm = o.DeepCopyObject().(*corev1.ConfigMap)
			cm.Finalizers = nil
			if _, _, err := c.Update(ctx, tg, cm, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Get(ctx, tg, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("still there: %v", err)
			}
		})
	}
	both := orphanDependents(true)
	both.PropagationPolicy = ptr(metav1.DeletePropagationOrphan)
	_, _, err := c.Delete(ctx, target(t, c, "configmaps", "ns", "a"), both)
	wantReason(t, err, metav1.StatusReasonInvalid, "")
}

func TestHoldsRemoval(t *testing.T) {
	c := start(t, core.Options{})
	ctx := context.Background()
	tg := target(t, c, "namespaces", "", "n")
	mustCreate(t, c, tg, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	res, gone := mustDelete(t, c, tg, metav1.DeleteOptions{})
	ns := res.Object().(*corev1.Namespace)
	if gone || ns.DeletionTimestamp == nil || ns.Status.Phase != corev1.NamespaceTerminating || ns.DeletionGracePeriodSeconds != nil {
		t.Fatalf("%v %+v", gone, ns)
	}
	if again, gone := mustDelete(t, c, tg, metav1.DeleteOptions{}); gone || again != res {
		t.Fatalf("%v %+v", gone, again.Object())
	}
	ns = ns.DeepCopy()
	ns.Spec.Finalizers = nil
	if _, _, err := c.Update(ctx, sub(tg, "finalize"), ns, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Get(ctx, tg, metav1.GetOptions{})
	wantReason(t, err, metav1.StatusReasonNotFound, "")
}

func TestDeleteCollection(t *testing.T) {
	c := start(t, core.Options{})
	ctx := context.Background()
	const n = 1500
	for i := range n {
		p := pod("ns", fmt.Sprintf("p%04d", i), "")
		if i%100 == 0 {
			p.Spec.NodeName = "n1"
		}
		mustCreate(t, c, target(t, c, "pods", "ns", ""), p)
	}
	keep := mustCreate(t, c, target(t, c, "pods", "other", ""), pod("other", "keep", ""))
	w := mustWatch(t, c, target(t, c, "pods", "ns", ""), core.ListOptions{ResourceVersion: keep.ResourceVersion()})
	l, err := c.DeleteCollection(ctx, target(t, c, "pods", "ns", ""), metav1.DeleteOptions{}, core.ListOptions{})
	if err != nil || len(l.Items) != n {
		t.Fatalf("%d %v", len(l.Items), err)
	}
	l, err = c.List(ctx, target(t, c, "pods", "", ""), core.ListOptions{})
	if err != nil || len(l.Items) != n/100+1 {
		t.Fatalf("%d left, %v", len(l.Items), err)
	}
	// A client that lost its connection behind any event, and resumes there, misses nothing.
	var last int64
	seen := map[string]bool{}
	for range n {
		ev := next(t, w)
		seen[ev.Object.Object().GetName()] = true
		last = ev.Revision
		if len(seen) == 100 && ev.Type == watch.Deleted {
			break
		}
	}
	w = mustWatch(t, c, target(t, c, "pods", "ns", ""), core.ListOptions{ResourceVersion: fmt.Sprint(last)})
	for len(seen) < n {
		seen[next(t, w).Object.Object().GetName()] = true
	}
}

func TestVirtual(t *testing.T) {
	c := start(t, core.Options{})
	ctx := context.Background()
	tg := target(t, c, "pods", "ns", "a")
	mustCreate(t, c, tg, pod("ns", "a", ""))
	o, err := c.Create(ctx, sub(tg, "binding"), &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Target: corev1.ObjectReference{Name: "n1"}}, metav1.CreateOptions{})
	if err != nil || o.Runtime().(*metav1.Status).Status != metav1.StatusSuccess {
		t.Fatalf("%v %v", o, err)
	}
	if p := mustGet(t, c, tg).Object().(*corev1.Pod); p.Spec.NodeName != "n1" {
		t.Errorf("not bound: %+v", p.Spec)
	}
	if _, err = c.Create(ctx, sub(tg, "eviction"), &policyv1.Eviction{}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if p := mustGet(t, c, tg).Object(); p.GetDeletionTimestamp() == nil {
		t.Errorf("not evicted")
	}
	tg.Name = "none"
	_, err = c.Create(ctx, sub(tg, "eviction"), &policyv1.Eviction{}, metav1.CreateOptions{})
	wantReason(t, err, metav1.StatusReasonNotFound, `pods "none" not found`)
}

func TestTTL(t *testing.T) {
	clock := testclock.NewFakeClock(time.Now())
	s := newStore(t)
	c := start(t, core.Options{Clock: clock, Store: s})
	tg := target(t, c, "events", "ns", "")
	w := mustWatch(t, c, tg, core.ListOptions{})
	mustCreate(t, c, tg, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
	next(t, w)
	clock.Step(40 * time.Minute)
	mustCreate(t, c, tg, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "b"}})
	next(t, w)
	if ev := stepTo(t, clock, w); ev.Type != watch.Deleted || ev.Object.Object().GetName() != "a" {
		t.Errorf("%+v", ev)
	}
	// What another server finds in the store expires as well.
	other := start(t, core.Options{Clock: clock, Store: s})
	ow := mustWatch(t, other, target(t, other, "events", "ns", ""), core.ListOptions{})
	if ev := next(t, ow); ev.Type != watch.Added || ev.Object.Object().GetName() != "b" {
		t.Fatalf("%+v", ev)
	}
	if ev := stepTo(t, clock, ow); ev.Type != watch.Deleted || clock.Since(ev.Object.Object().GetCreationTimestamp().Time) < time.Hour {
		t.Errorf("%+v", ev)
	}
}

// stepTo moves the clock until there is an event.
func stepTo(t testing.TB, clock *testclock.FakeClock, w *core.Watch) core.Event {
	t.Helper()
	for range 1000 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
		evs, err := w.Next(ctx, nil)
		cancel()
		if err == nil {
			return evs[0]
		}
		clock.Step(time.Minute)
	}
	t.Fatal("no event")
	return core.Event{}
}

func TestAuthorization(t *testing.T) {
	var asked []string
	a := authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		asked = append(asked, fmt.Sprintf("%s %s %s/%s %s/%s", a.GetUser().GetName(), a.GetVerb(), a.GetResource(), a.GetSubresource(), a.GetNamespace(), a.GetName()))
		switch a.GetUser().GetName() {
		case "admin":
			return authorizer.DecisionAllow, "", nil
		case "broken":
			return authorizer.DecisionNoOpinion, "", errors.New("down")
		}
		if a.GetVerb() == "update" || a.GetVerb() == "patch" {
			return authorizer.DecisionAllow, "", nil
		}
		return authorizer.DecisionNoOpinion, "", nil
	})
	c := start(t, core.Options{Authorizer: a})
	as := func(name string) context.Context {
		return request.WithUser(context.Background(), &user.DefaultInfo{Name: name})
	}
	tg := target(t, c, "configmaps", "ns", "a")
	if _, err := c.Create(as("admin"), tg, configMap("ns", "a"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Get(as("bob"), tg, metav1.GetOptions{})
	wantReason(t, err, metav1.StatusReasonForbidden, `configmaps "a" is forbidden: User "bob" cannot get resource "configmaps" in API group "" in the namespace "ns"`)
	_, err = c.List(as("bob"), target(t, c, "nodes", "", ""), core.ListOptions{})
	wantReason(t, err, metav1.StatusReasonForbidden, `nodes is forbidden: User "bob" cannot list resource "nodes" in API group "" at the cluster scope`)
	_, err = c.Get(as("bob"), sub(target(t, c, "pods", "ns", "p"), "status"), metav1.GetOptions{})
	wantReason(t, err, metav1.StatusReasonForbidden, `pods "p" is forbidden: User "bob" cannot get resource "pods/status" in API group "" in the namespace "ns"`)
	_, err = c.Get(as("broken"), tg, metav1.GetOptions{})
	wantReason(t, err, metav1.StatusReasonInternalError, "")
	// An update that would create needs create as well.
	_, _, err = c.Update(as("bob"), target(t, c, "configmaps", "ns", "b"), configMap("ns", "b"), metav1.UpdateOptions{})
	wantReason(t, err, metav1.StatusReasonForbidden, `configmaps "b" is forbidden: User "bob" cannot create resource "configmaps" in API group "" in the namespace "ns"`)
	asked = nil
	_, err = c.List(as("admin"), tg, core.ListOptions{})
	if want := []string{"admin list configmaps/ ns/a"}; err != nil || !slices.Equal(asked, want) {
		t.Errorf("%v %v", asked, err)
	}
}

// plugin records what it is asked, sets a label, and rejects objects with the label bad.
type plugin struct{ calls []string }

func (p *plugin) Handles(admission.Operation) bool { return true }

func (p *plugin) note(what string, a admission.Attributes) {
	s := fmt.Sprintf("%s %s %s/%s %s", what, a.GetOperation(), a.GetResource().Resource, a.GetSubresource(), a.GetName())
	if a.GetOldObject() != nil {
		s += " old"
	}
	if a.GetObject() != nil {
		s += " new"
	}
	p.calls = append(p.calls, s)
}

func (p *plugin) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	p.note("admit", a)
	if o, ok := a.GetObject().(client.Object); ok && a.GetSubresource() == "" {
		o.SetLabels(map[string]string{"admitted": "yes", "bad": o.GetLabels()["bad"]})
	}
	return nil
}

func (p *plugin) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	p.note("validate", a)
	if o, ok := a.GetObject().(client.Object); ok && o.GetLabels()["bad"] != "" {
		return admission.NewForbidden(a, errors.New("bad"))
	}
	return nil
}

func TestAdmission(t *testing.T) {
	p := &plugin{}
	c := start(t, core.Options{Admission: p})
	ctx := context.Background()
	tg := target(t, c, "configmaps", "ns", "a")
	o := mustCreate(t, c, tg, configMap("ns", "a"))
	if o.Object().GetLabels()["admitted"] != "yes" {
		t.Error("not mutated")
	}
	bad := configMap("ns", "b")
	bad.Labels = map[string]string{"bad": "1"}
	_, err := c.Create(ctx, tg, bad, metav1.CreateOptions{})
	wantReason(t, err, metav1.StatusReasonForbidden, "")
	var _ runtime.Object = bad
	if _, _, err := c.Patch(ctx, tg, types.MergePatchType, []byte(`{"data":{"a":"b"}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	mustDelete(t, c, tg, metav1.DeleteOptions{})
	want := []string{
		"admit CREATE configmaps/ a new", "validate CREATE configmaps/ a new",
		"admit CREATE configmaps/ b new", "validate CREATE configmaps/ b new",
		"admit UPDATE configmaps/ a old new", "validate UPDATE configmaps/ a old new",
		"admit DELETE configmaps/ a old", "validate DELETE configmaps/ a old",
	}
	if !slices.Equal(p.calls, want) {
		t.Errorf("calls:\n%q\nwant\n%q", p.calls, want)
	}
}
