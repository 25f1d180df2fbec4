package core_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/keelson/keelson/apiserver/internal/core"
	"github.com/keelson/keelson/apiserver/internal/core/coretest"
	"github.com/keelson/keelson/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newStore(t testing.TB) store.Store { return coretest.Store(t) }

func start(t testing.TB, o core.Options) *core.Core { return coretest.Start(t, o) }

func target(t testing.TB, c *core.Core, resource, ns, name string) core.Target {
	t.Helper()
	gv := schema.GroupVersion{Version: "v1"}
	if resource == "deployments" {
		gv.Group = "apps"
	}
	r, ok := c.Lookup(gv.WithResource(resource))
	if !ok {
		t.Fatalf("no resource %s", resource)
	}
	return core.Target{Resource: r, Namespace: ns, Name: name}
}

func sub(t core.Target, s string) core.Target { t.Subresource = s; return t }

func configMap(ns, name string, kv ...string) *corev1.ConfigMap {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	for i := 0; i+1 < len(kv); i += 2 {
		if cm.Data == nil {
			cm.Data = map[string]string{}
		}
		cm.Data[kv[i]] = kv[i+1]
	}
	return cm
}

func pod(ns, name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
}

func mustCreate(t testing.TB, c *core.Core, tg core.Target, obj runtime.Object) *core.Object {
	t.Helper()
	tg.Name = ""
	o, err := c.Create(context.Background(), tg, obj, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func mustGet(t testing.TB, c *core.Core, tg core.Target) *core.Object {
	t.Helper()
	o, err := c.Get(context.Background(), tg, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func wantReason(t testing.TB, err error, reason metav1.StatusReason, msg string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", reason)
	}
	if got := apierrors.ReasonForError(err); got != reason {
		t.Errorf("reason %q, want %q: %v", got, reason, err)
	}
	if msg != "" && err.Error() != msg {
		t.Errorf("message\n%s\nwant\n%s", err, msg)
	}
}

// next returns the next event of a watch.
func next(t testing.TB, w *core.Watch) core.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ev, err := w.Next(ctx, make([]core.Event, 0, 1))
	if err != nil {
		t.Fatalf("watch: %v", err)
	}
	return ev[0]
}

func mustWatch(t testing.TB, c *core.Core, tg core.Target, o core.ListOptions) *core.Watch {
	t.Helper()
	w, err := c.Watch(context.Background(), tg, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func TestCreateGet(t *testing.T) {
	c := start(t, core.Options{})
	tg := target(t, c, "configmaps", "ns", "a")
	in := configMap("", "a", "k", "v")
	in.UID = "mine"
	in.SetSelfLink("x")
	o := mustCreate(t, c, tg, in)
	got := mustGet(t, c, tg)
	if got != o {
		t.Errorf("Get returned another object than Create")
	}
	cm := got.Object().(*corev1.ConfigMap)
	if cm.Namespace != "ns" || cm.UID == "" || cm.UID == "mine" || cm.CreationTimestamp.IsZero() || cm.ResourceVersion != got.ResourceVersion() || cm.GetSelfLink() != "" {
		t.Errorf("metadata: %+v", cm.ObjectMeta)
	}
	if len(cm.ManagedFields) != 1 || cm.ManagedFields[0].Manager != "unknown" || cm.ManagedFields[0].Operation != metav1.ManagedFieldsOperationUpdate {
		t.Errorf("managed fields: %+v", cm.ManagedFields)
	}
	if cm.Kind != "ConfigMap" || cm.APIVersion != "v1" {
		t.Errorf("type: %+v", cm.TypeMeta)
	}
}

func TestCreateErrors(t *testing.T) {
	c := start(t, core.Options{})
	ctx := context.Background()
	tg := target(t, c, "configmaps", "ns", "")
	mustCreate(t, c, tg, configMap("ns", "a"))
	for _, tt := range []struct {
		name   string
		obj    *corev1.ConfigMap
		ns     string
		reason metav1.StatusReason
		msg    string
	}{
		{"exists", configMap("", "a"), "ns", metav1.StatusReasonAlreadyExists, `configmaps "a" already exists`},
		{"no name", configMap("", ""), "ns", metav1.StatusReasonInvalid, `ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required`},
		{"bad name", configMap("", "A/b"), "ns", metav1.StatusReasonInvalid, ""},
		{"other namespace", configMap("other", "b"), "ns", metav1.StatusReasonBadRequest, "the namespace of the provided object does not match the namespace sent on the request"},
		{"no namespace", configMap("", "b"), "", metav1.StatusReasonBadRequest, "an empty namespace may not be set during creation"},
		{"kind's validation", configMap("", "b", "bad key", ""), "ns", metav1.StatusReasonInvalid, `ConfigMap "b" is invalid: data[bad key]: Invalid value: "bad key": no spaces`},
		{"resourceVersion", &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "b", ResourceVersion: "7"}}, "ns", metav1.StatusReasonUnknown, "resourceVersion should not be set on objects to be created"},
		{"owner", &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "b", OwnerReferences: []metav1.OwnerReference{{Kind: "x"}}}}, "ns", metav1.StatusReasonInvalid, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tg := tg
			tg.Namespace = tt.ns
			_, err := c.Create(ctx, tg, tt.obj, metav1.CreateOptions{})
			wantReason(t, err, tt.reason, tt.msg)
		})
	}
	if _, err := c.Get(ctx, target(t, c, "configmaps", "ns", "zz"), metav1.GetOptions{}); true {
		wantReason(t, err, metav1.StatusReasonNotFound, `configmaps "zz" not found`)
	}
	_, err := c.Get(ctx, target(t, c, "configmaps", "ns", "../ns/a"), metav1.GetOptions{})
	wantReason(t, err, metav1.StatusReasonBadRequest, "")
}

func TestGenerateName(t *testing.T) {
	c := start(t, core.Options{})
	cm := configMap("ns", "")
	cm.GenerateName = "web-"
	o := mustCreate(t, c, target(t, c, "configmaps", "ns", ""), cm)
	if n := o.Object().GetName(); len(n) != len("web-")+5 {
		t.Errorf("name %q", n)
	}
}

func TestDryRun(t *testing.T) {
	c := start(t, core.Options{})
	ctx := context.Background()
	tg := target(t, c, "configmaps", "ns", "a")
	dry := []string{metav1.DryRunAll}
	o, err := c.Create(ctx, tg, configMap("ns", "a"), metav1.CreateOptions{DryRun: dry})
	if err != nil || o.Object().GetUID() == "" || o.Object().GetResourceVersion() != "" {
		t.Fatalf("%v %v", o, err)
	}
	if _, err := c.Get(ctx, tg, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Fatalf("dry run created: %v", err)
	}
	was := mustCreate(t, c, tg, configMap("ns", "a", "k", "1"))
	_, err = c.Create(ctx, tg, configMap("ns", "a"), metav1.CreateOptions{DryRun: dry})
	wantReason(t, err, metav1.StatusReasonAlreadyExists, "")
	o, _, err = c.Update(ctx, tg, configMap("ns", "a", "k", "2"), metav1.UpdateOptions{DryRun: dry})
	if err != nil || o.Object().(*corev1.ConfigMap).Data["k"] != "2" {
		t.Fatalf("%v %v", o, err)
	}
	if _, _, err := c.Delete(ctx, tg, metav1.DeleteOptions{DryRun: dry}); err != nil {
		t.Fatal(err)
	}
	if now := mustGet(t, c, tg); now != was {
		t.Errorf("dry runs changed %v", now.Object())
	}
}

func TestUpdate(t *testing.T) {
	c := start(t, core.Options{})
	ctx := context.Background()
	tg := target(t, c, "configmaps", "ns", "a")
	first := mustCreate(t, c, tg, configMap("ns", "a", "k", "1"))

	// An update that changes nothing commits nothing.
	same, created, err := c.Update(ctx, tg, first.Object().DeepCopyObject(), metav1.UpdateOptions{})
	if err != nil || created || same != first {
		t.Fatalf("no-op update: %v %v %v", same, created, err)
	}
	cm := first.Object().DeepCopyObject().(*corev1.ConfigMap)
	cm.Data["k"] = "2"
	second, _, err := c.Update(ctx, tg, cm.DeepCopy(), metav1.UpdateOptions{FieldManager: "me"})
	if err != nil || second.Revision() <= first.Revision() || second.Object().GetUID() != first.Object().GetUID() {
		t.Fatalf("%v %v", second, err)
	}
	if mf := second.Object().GetManagedFields(); len(mf) != 2 {
		t.Errorf("managed fields: %+v", mf)
	}
	_, _, err = c.Update(ctx, tg, cm.DeepCopy(), metav1.UpdateOptions{})
	wantReason(t, err, metav1.StatusReasonConflict, `Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again`)

	cm.ResourceVersion = ""
	if _, _, err = c.Update(ctx, tg, cm.DeepCopy(), metav1.UpdateOptions{}); err != nil {
		t.Fatalf("unconditional: %v", err)
	}
	cm.UID = "other"
	_, _, err = c.Update(ctx, tg, cm.DeepCopy(), metav1.UpdateOptions{})
	wantReason(t, err, metav1.StatusReasonConflict, "")
	_, _, err = c.Update(ctx, tg, configMap("ns", "b"), metav1.UpdateOptions{})
	wantReason(t, err, metav1.StatusReasonBadRequest, "the name of the object (b) does not match the name on the URL (a)")

	_, created, err = c.Update(ctx, target(t, c, "configmaps", "ns", "new"), configMap("ns", "new"), metav1.UpdateOptions{})
	if err != nil || !created {
		t.Fatalf("create on update: %v %v", created, err)
	}
	_, _, err = c.Update(ctx, target(t, c, "pods", "ns", "none"), pod("ns", "none", ""), metav1.UpdateOptions{})
	wantReason(t, err, metav1.StatusReasonNotFound, `pods "none" not found`)
}

func TestStatusAndGeneration(t *testing.T) {
	c := start(t, core.Options{})
	ctx := context.Background()
	tg := target(t, c, "pods", "ns", "p")
	p := pod("ns", "p", "")
	p.Status.Phase = corev1.PodRunning
	o := mustCreate(t, c, tg, p)
	got := o.Object().(*corev1.Pod)
	if got.Status.Phase != "" || got.Generation != 1 || got.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		t.Fatalf("created: %+v", got)
	}
	p = got.DeepCopy()
	p.Status.Phase = corev1.PodRunning
	p.Spec.NodeName = "n"
	p.Labels["x"] = "y"
	o, _, err := c.Update(ctx, sub(tg, "status"), p.DeepCopy(), metav1.UpdateOptions{FieldManager: "kubelet"})
	if err != nil {
		t.Fatal(err)
	}
	got = o.Object().(*corev1.Pod)
	if got.Status.Phase != corev1.PodRunning || got.Spec.NodeName != "" || got.Labels["x"] != "" || got.Generation != 1 {
		t.Fatalf("status update: %+v", got)
	}
	if mf := got.ManagedFields; len(mf) != 2 || !slices.ContainsFunc(mf, func(e metav1.ManagedFieldsEntry) bool {
		return e.Subresource == "status" && e.Manager == "kubelet"
	}) {
		t.Errorf("managed fields: %+v", mf)
	}
	p = got.DeepCopy()
	p.Status.Phase = corev1.PodFailed
	p.Spec.NodeName = "n"
	if o, _, err = c.Update(ctx, tg, p.DeepCopy(), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	got = o.Object().(*corev1.Pod)
	if got.Status.Phase != corev1.PodRunning || got.Spec.NodeName != "n" || got.Generation != 2 {
		t.Fatalf("update: %+v", got)
	}
}

func TestListSelectorsAndChunks(t *testing.T) {
	c := start(t, core.Options{})
	ctx := context.Background()
	for i := range 10 {
		p := pod("ns", fmt.Sprintf("p%d", i), fmt.Sprintf("n%d", i%3))
		p.Labels["i"] = fmt.Sprint(i % 2)
		mustCreate(t, c, target(t, c, "pods", "ns", ""), p)
	}
	mustCreate(t, c, target(t, c, "pods", "other", ""), pod("other", "q", "n1"))
	all := target(t, c, "pods", "", "")
	names := func(tg core.Target, o core.ListOptions) string {
		t.Helper()
		l, err := c.List(ctx, tg, o)
		if err != nil {
			t.Fatal(err)
		}
		s := ""
		for _, o := range l.Items {
			s += o.Object().GetName() + " "
		}
		return s
	}
	for _, tt := range []struct {
		ns, labels, fields, want string
	}{
		{"", "", "", "p0 p1 p2 p3 p4 p5 p6 p7 p8 p9 q "},
		{"other", "", "", "q "},
		{"ns", "i=1", "", "p1 p3 p5 p7 p9 "},
		{"", "", "spec.nodeName=n1", "p1 p4 p7 q "},
		{"ns", "i=1", "spec.nodeName=n1", "p1 p7 "},
		{"ns", "", "spec.nodeName!=n1", "p0 p2 p3 p5 p6 p8 p9 "},
		{"", "", "metadata.name=p3", "p3 "},
		{"ns", "", "metadata.name=p3", "p3 "},
		{"", "", "metadata.namespace=other", "q "},
		{"ns", "", "metadata.namespace=other", ""},
	} {
		ls, _ := labels.Parse(tt.labels)
		fs, err := fields.ParseSelector(tt.fields)
		if err != nil {
			t.Fatal(err)
		}
		if got := names(target(t, c, "pods", tt.ns, ""), core.ListOptions{LabelSelector: ls, FieldSelector: fs}); got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
	fs, _ := fields.ParseSelector("spec.foo=1")
	_, err := c.List(ctx, all, core.ListOptions{FieldSelector: fs})
	wantReason(t, err, metav1.StatusReasonBadRequest, "field label not supported: spec.foo")
	_, err = c.List(ctx, target(t, c, "configmaps", "", ""), core.ListOptions{FieldSelector: fs})
	wantReason(t, err, metav1.StatusReasonBadRequest, `"spec.foo" is not a known field selector: only "metadata.name", "metadata.namespace"`)

	// Chunks are of one revision, whatever happens between them.
	l, err := c.List(ctx, all, core.ListOptions{Limit: 4})
	if err != nil || len(l.Items) != 4 || *l.RemainingItemCount != 7 {
		t.Fatalf("%+v %v", l, err)
	}
	if _, _, err := c.Delete(ctx, target(t, c, "pods", "ns", "p7"), metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, c, target(t, c, "pods", "ns", ""), pod("ns", "p55", ""))
	rev, got := l.Revision, len(l.Items)
	for l.Continue != "" {
		if l, err = c.List(ctx, all, core.ListOptions{Limit: 4, Continue: l.Continue}); err != nil || l.Revision != rev {
			t.Fatalf("%+v %v", l, err)
		}
		got += len(l.Items)
	}
	if got != 11 {
		t.Errorf("chunks had %d objects, want 11", got)
	}
	l, err = c.List(ctx, all, core.ListOptions{ResourceVersion: fmt.Sprint(rev), ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	if err != nil || len(l.Items) != 11 || l.Items[7].Object().GetName() != "p7" {
		t.Errorf("exact: %+v %v", l, err)
	}
	_, err = c.List(ctx, all, core.ListOptions{Continue: "xxx"})
	wantReason(t, err, metav1.StatusReasonBadRequest, "")
	_, err = c.List(ctx, all, core.ListOptions{ResourceVersion: "999999"})
	if !apierrors.IsTimeout(err) {
		t.Errorf("future version: %v", err)
	}
}

func TestWatch(t *testing.T) {
	c := start(t, core.Options{})
	ctx := context.Background()
	tg := target(t, c, "pods", "ns", "")
	a := mustCreate(t, c, tg, pod("ns", "a", ""))
	fs, _ := fields.ParseSelector("spec.nodeName=n1")
	all := mustWatch(t, c, tg, core.ListOptions{})
	since := mustWatch(t, c, tg, core.ListOptions{ResourceVersion: a.ResourceVersion()})
	other := mustWatch(t, c, target(t, c, "pods", "other", ""), core.ListOptions{})
	node := mustWatch(t, c, tg, core.ListOptions{FieldSelector: fs})
	yes := true
	initial := mustWatch(t, c, tg, core.ListOptions{SendInitialEvents: &yes, AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})

	p := a.Object().DeepCopyObject().(*corev1.Pod)
	p.Spec.NodeName = "n1"
	b, _, err := c.Update(ctx, target(t, c, "pods", "ns", "a"), p, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p = b.Object().DeepCopyObject().(*corev1.Pod)
	p.Spec.NodeName = "n2"
	moved, _, err := c.Update(ctx, target(t, c, "pods", "ns", "a"), p, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err = c.Delete(ctx, target(t, c, "pods", "ns", "a"), metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, c, target(t, c, "pods", "other", ""), pod("other", "b", ""))

	check := func(w *core.Watch, want ...string) {
		t.Helper()
		for _, x := range want {
			ev := next(t, w)
			got := string(ev.Type)
			if ev.Object != nil {
				got += " " + ev.Object.Object().GetName() + " " + ev.Object.Object().(*corev1.Pod).Spec.NodeName
				if ev.Object.ResourceVersion() != ev.Object.Object().GetResourceVersion() {
					t.Errorf("%s: resourceVersion %s", x, ev.Object.Object().GetResourceVersion())
				}
			} else if ev.InitialEventsEnd {
				got += " end"
			}
			if got != x {
				t.Errorf("got %q, want %q", got, x)
			}
		}
	}
	check(all, "ADDED a ", "MODIFIED a n1", "MODIFIED a n2", "DELETED a n2")
	check(since, "MODIFIED a n1", "MODIFIED a n2", "DELETED a n2")
	check(other, "ADDED b ")
	check(initial, "ADDED a ", "BOOKMARK end", "MODIFIED a n1")
	ev := next(t, node)
	if ev.Type != watch.Added || ev.Object != b {
		t.Errorf("node: %+v", ev)
	}
	ev = next(t, node)
	if ev.Type != watch.Deleted || ev.Object.Object().(*corev1.Pod).Spec.NodeName != "n1" || ev.Revision != moved.Revision() {
		t.Errorf("node: %+v", ev)
	}
	_, err = c.Watch(ctx, tg, core.ListOptions{SendInitialEvents: &yes})
	wantReason(t, err, metav1.StatusReasonInvalid, "")
}

func TestWatchExpires(t *testing.T) {
	c := start(t, core.Options{HistoryEvents: 300})
	ctx := context.Background()
	tg := target(t, c, "configmaps", "ns", "a")
	first := mustCreate(t, c, tg, configMap("ns", "a"))
	slow := mustWatch(t, c, tg, core.ListOptions{ResourceVersion: first.ResourceVersion()})
	for i := range 2000 {
		if _, _, err := c.Update(ctx, tg, configMap("ns", "a", "k", fmt.Sprint(i)), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := slow.Next(ctx, nil); !core.IsExpired(err) {
		t.Errorf("slow watch: %v", err)
	}
	_, err := c.Watch(ctx, tg, core.ListOptions{ResourceVersion: first.ResourceVersion()})
	wantReason(t, err, metav1.StatusReasonExpired, "")
	recent := mustGet(t, c, tg).Revision() - 200
	w := mustWatch(t, c, tg, core.ListOptions{ResourceVersion: fmt.Sprint(recent)})
	for i := range 200 {
		if ev := next(t, w); ev.Revision != recent+1+int64(i) {
			t.Fatalf("event %d has revision %d", i, ev.Revision)
		}
	}
	// The store's own history answers lists older than the cache's.
	l, err := c.List(ctx, target(t, c, "configmaps", "ns", ""), core.ListOptions{ResourceVersion: first.ResourceVersion(), ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	if err != nil || len(l.Items) != 1 || l.Items[0].Revision() != first.Revision() {
		t.Errorf("%+v %v", l, err)
	}
}

// decodeProtobuf is apimachinery's decoder.
func decodeProtobuf(t testing.TB, c *core.Core, data []byte) runtime.Object {
	t.Helper()
	s := protobuf.NewSerializer(c.Scheme(), c.Scheme())
	obj, gvk, err := s.Decode(data, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	obj.GetObjectKind().SetGroupVersionKind(*gvk)
	return obj
}
