package inproc_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/internal/core"
	"github.com/keelson/keelson/apiserver/internal/core/coretest"
	"github.com/keelson/keelson/apiserver/internal/inproc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var admin = &user.DefaultInfo{Name: "admin"}

func newClient(t testing.TB, c *core.Core) *inproc.Client {
	t.Helper()
	return inproc.NewClient(c, admin, inproc.ClientOptions{UserAgent: "test/1"})
}

// startCache runs a cache until the test ends.
func startCache(t testing.TB, c *core.Core, o inproc.CacheOptions) *inproc.Cache {
	t.Helper()
	ca := inproc.NewCache(c, admin, o)
	runCache(t, ca)
	return ca
}

func runCache(t testing.TB, ca *inproc.Cache) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ca.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Start: %v", err)
		}
	})
	if !ca.WaitForCacheSync(ctx) {
		t.Fatal("not synced")
	}
}

func pod(ns, name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestClient(t *testing.T) {
	c := newClient(t, coretest.Start(t, core.Options{}))
	ctx := context.Background()
	p := pod("ns", "a", "")
	must(t, c.Create(ctx, p))
	if p.UID == "" || p.ResourceVersion == "" || p.Spec.RestartPolicy != corev1.RestartPolicyAlways || p.ManagedFields[0].Manager != "test" {
		t.Errorf("created: %+v", p)
	}
	key := client.ObjectKeyFromObject(p)
	var got corev1.Pod
	must(t, c.Get(ctx, key, &got))
	got.Labels["mine"] = "yes" // the caller's own
	var again corev1.Pod
	must(t, c.Get(ctx, key, &again))
	if again.Labels["mine"] != "" {
		t.Fatal("a caller's object is shared")
	}
	must(t, c.Update(ctx, &got))
	if got.ResourceVersion == p.ResourceVersion || got.Labels["mine"] != "yes" {
		t.Errorf("updated: %+v", got.ObjectMeta)
	}
	if err := c.Update(ctx, p); !apierrors.IsConflict(err) {
		t.Errorf("stale update: %v", err)
	}
	got.Status.Phase = corev1.PodRunning
	got.Labels["not"] = "this"
	must(t, c.Status().Update(ctx, &got))
	if got.Status.Phase != corev1.PodRunning || got.Labels["not"] != "" {
		t.Errorf("status: %+v", got)
	}
	base := got.DeepCopy()
	got.Labels["patched"] = "yes"
	must(t, c.Patch(ctx, &got, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{})))
	base = got.DeepCopy()
	got.Spec.Containers[0].Image = "j"
	must(t, c.Patch(ctx, &got, client.StrategicMergeFrom(base)))
	if got.Labels["patched"] != "yes" || got.Spec.Containers[0].Image != "j" {
		t.Errorf("patched: %+v", got)
	}
	must(t, c.SubResource("binding").Create(ctx, &got, &corev1.Binding{Target: corev1.ObjectReference{Name: "n1"}}))
	var list corev1.PodList
	must(t, c.List(ctx, &list, client.MatchingFields{"spec.nodeName": "n1"}, client.InNamespace("ns")))
	if len(list.Items) != 1 || list.ResourceVersion == "" || list.Items[0].Name != "a" {
		t.Errorf("list: %+v", list)
	}
	must(t, c.SubResource("eviction").Create(ctx, &got, &policyv1.Eviction{}))
	must(t, c.Delete(ctx, &got, client.GracePeriodSeconds(0)))
	if err := c.Get(ctx, key, &got); !apierrors.IsNotFound(err) {
		t.Errorf("deleted: %v", err)
	}
	for i := range 3 {
		must(t, c.Create(ctx, pod("ns", fmt.Sprint("p", i), "")))
	}
	must(t, c.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace("ns"), client.MatchingLabels{"app": "web"}))
	must(t, c.List(ctx, &list))
	if len(list.Items) != 0 {
		t.Errorf("left: %+v", list.Items)
	}
}

func TestClientForms(t *testing.T) {
	c := newClient(t, coretest.Start(t, core.Options{}))
	ctx := context.Background()
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"namespace": "ns", "name": "d"},
		"spec": map[string]any{"replicas": int64(3), "selector": map[string]any{"matchLabels": map[string]any{"a": "b"}}},
	}}
	must(t, c.Create(ctx, u))
	if u.GetUID() == "" {
		t.Errorf("created: %v", u)
	}
	must(t, unstructured.SetNestedField(u.Object, int64(4), "spec", "replicas"))
	must(t, c.Update(ctx, u))
	var d appsv1.Deployment
	must(t, c.Get(ctx, client.ObjectKeyFromObject(u), &d))
	if *d.Spec.Replicas != 4 {
		t.Errorf("%d replicas", *d.Spec.Replicas)
	}
	p := &metav1.PartialObjectMetadata{}
	p.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("Deployment"))
	must(t, c.Get(ctx, client.ObjectKeyFromObject(u), p))
	if p.UID != d.UID || p.Kind != "Deployment" {
		t.Errorf("%+v", p)
	}
	must(t, c.Patch(ctx, p, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"x":"y"}}}`))))
	if p.Labels["x"] != "y" {
		t.Errorf("%+v", p)
	}
	if err := c.Update(ctx, p); err == nil {
		t.Error("update of metadata only was accepted")
	}
	ul := &unstructured.UnstructuredList{}
	ul.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("DeploymentList"))
	must(t, c.List(ctx, ul))
	pl := &metav1.PartialObjectMetadataList{}
	pl.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("DeploymentList"))
	must(t, c.List(ctx, pl))
	if len(ul.Items) != 1 || len(pl.Items) != 1 || ul.Items[0].GetName() != "d" || pl.Items[0].Labels["x"] != "y" {
		t.Errorf("%v %v", ul, pl)
	}
	scale := &autoscalingv1.Scale{}
	must(t, c.SubResource("scale").Get(ctx, &d, scale))
	scale.Spec.Replicas = 7
	must(t, c.SubResource("scale").Update(ctx, &d, client.WithSubResourceBody(scale)))
	must(t, c.Get(ctx, client.ObjectKeyFromObject(u), &d))
	if *d.Spec.Replicas != 7 {
		t.Errorf("%d replicas", *d.Spec.Replicas)
	}
	cm := corev1ac.ConfigMap("m", "ns").WithData(map[string]string{"a": "b"})
	must(t, c.Apply(ctx, cm, client.FieldOwner("me")))
	if cm.UID == nil {
		t.Errorf("applied: %+v", cm)
	}
	un := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"namespace": "ns", "name": "m"}, "data": map[string]any{"a": "c"}}}
	if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(un), client.FieldOwner("you")); !apierrors.IsConflict(err) {
		t.Errorf("apply of another's field: %v", err)
	}
	must(t, c.Apply(ctx, client.ApplyConfigurationFromUnstructured(un), client.FieldOwner("you"), client.ForceOwnership))
}

func TestClientWatch(t *testing.T) {
	c := newClient(t, coretest.Start(t, core.Options{}))
	ctx := context.Background()
	w, err := c.Watch(ctx, &corev1.PodList{}, client.InNamespace("ns"))
	must(t, err)
	must(t, c.Create(ctx, pod("other", "x", "")))
	must(t, c.Create(ctx, pod("ns", "a", "")))
	must(t, c.Delete(ctx, pod("ns", "a", "")))
	for _, want := range []watch.EventType{watch.Added, watch.Deleted} {
		select {
		case ev := <-w.ResultChan():
			if ev.Type != want || ev.Object.(*corev1.Pod).Name != "a" {
				t.Errorf("got %v, want %v", ev, want)
			}
		case <-time.After(time.Minute):
			t.Fatal("no event")
		}
	}
	w.Stop()
	if _, ok := <-w.ResultChan(); ok {
		t.Error("an event after Stop")
	}
}

// log collects events as text.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, s)
}

func (l *log) handler() toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(obj any, initial bool) {
			l.add(fmt.Sprintf("add %s %v", obj.(client.Object).GetName(), initial))
		},
		UpdateFunc: func(old, obj any) {
			l.add(fmt.Sprintf("update %s %v", obj.(client.Object).GetName(), old.(client.Object).GetResourceVersion() < obj.(client.Object).GetResourceVersion()))
		},
		DeleteFunc: func(obj any) { l.add("delete " + obj.(client.Object).GetName()) },
	}
}

func (l *log) want(t testing.TB, want ...string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		got := slices.Clone(l.lines)
		l.mu.Unlock()
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(end) || len(got) > len(want) {
			t.Fatalf("events\n%q\nwant\n%q", got, want)
		}
	}
}

func TestCache(t *testing.T) {
	co := coretest.Start(t, core.Options{})
	c := newClient(t, co)
	ctx := context.Background()
	must(t, c.Create(ctx, pod("ns", "a", "n1")))

	ca := inproc.NewCache(co, admin, inproc.CacheOptions{})
	var list corev1.PodList
	var notStarted *cache.ErrCacheNotStarted
	if err := ca.List(ctx, &list); !errors.As(err, &notStarted) {
		t.Errorf("before the start: %v", err)
	}
	inf, err := ca.GetInformer(ctx, &corev1.Pod{})
	must(t, err)
	var before, after, meta log
	_, err = inf.AddEventHandler(before.handler())
	must(t, err)
	must(t, ca.IndexField(ctx, &corev1.Pod{}, "image", func(o client.Object) []string {
		return []string{o.(*corev1.Pod).Spec.Containers[0].Image}
	}))
	runCache(t, ca)
	before.want(t, "add a true")

	blocked := make(chan struct{})
	defer close(blocked)
	_, err = inf.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: func(any) {
		select {
		case <-blocked:
		case <-time.After(time.Minute):
		}
	}})
	must(t, err)
	must(t, c.Create(ctx, pod("ns", "b", "n1")))
	reg, err := inf.AddEventHandler(after.handler())
	must(t, err)
	pm := &metav1.PartialObjectMetadata{}
	pm.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	minf, err := ca.GetInformer(ctx, pm)
	must(t, err)
	_, err = minf.AddEventHandler(meta.handler())
	must(t, err)
	after.want(t, "add a true", "add b true")
	meta.want(t, "add a true", "add b true")

	// The cache has at once what the process has written.
	p := pod("other", "c", "n2")
	must(t, c.Create(ctx, p))
	var got corev1.Pod
	must(t, ca.Get(ctx, client.ObjectKeyFromObject(p), &got))
	got.Labels["x"] = "y"
	must(t, c.Update(ctx, &got))
	must(t, c.Delete(ctx, &got, client.GracePeriodSeconds(0)))
	before.want(t, "add a true", "add b false", "add c false", "update c true", "delete c")
	after.want(t, "add a true", "add b true", "add c false", "update c true", "delete c")
	meta.want(t, "add a true", "add b true", "add c false", "update c true", "delete c")
	if !reg.HasSynced() || !inf.HasSynced() {
		t.Error("not synced")
	}
	must(t, inf.RemoveEventHandler(reg))
	must(t, c.Create(ctx, pod("other", "d", "")))
	before.want(t, "add a true", "add b false", "add c false", "update c true", "delete c", "add d false")
	after.want(t, "add a true", "add b true", "add c false", "update c true", "delete c")

	names := func(opts ...client.ListOption) string {
		t.Helper()
		must(t, ca.List(ctx, &list, opts...))
		s := ""
		for _, p := range list.Items {
			s += p.Name
		}
		return s
	}
	for _, tt := range []struct {
		opts []client.ListOption
		want string
	}{
		{nil, "abd"},
		{[]client.ListOption{client.InNamespace("ns")}, "ab"},
		{[]client.ListOption{client.MatchingFields{"spec.nodeName": "n1"}}, "ab"},
		{[]client.ListOption{client.MatchingFields{"image": "i"}}, "abd"},
		{[]client.ListOption{client.MatchingFields{"image": "i", "spec.nodeName": "n1"}, client.InNamespace("ns")}, "ab"},
		{[]client.ListOption{client.MatchingFields{"image": "none"}}, ""},
		{[]client.ListOption{client.MatchingLabels{"app": "web"}, client.Limit(2)}, "ab"},
	} {
		if got := names(tt.opts...); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.opts, got, tt.want)
		}
	}
	if err := ca.List(ctx, &list, client.MatchingFields{"none": "x"}); err == nil {
		t.Error("a list by an unknown field succeeded")
	}
	var s1, s2 corev1.PodList
	must(t, ca.List(ctx, &s1, client.UnsafeDisableDeepCopy))
	must(t, ca.List(ctx, &s2, client.UnsafeDisableDeepCopy))
	if &s1.Items[0].Spec.Containers[0] != &s2.Items[0].Spec.Containers[0] {
		t.Error("lists without copies have copies")
	}
	must(t, ca.Get(ctx, client.ObjectKey{Namespace: "ns", Name: "a"}, &got))
	if &got.Spec.Containers[0] == &s1.Items[0].Spec.Containers[0] {
		t.Error("Get returned a shared object")
	}
	if err := ca.Get(ctx, client.ObjectKey{Namespace: "ns", Name: "z"}, &got); !apierrors.IsNotFound(err) {
		t.Errorf("missing: %v", err)
	}
	ix := inf.(toolscache.SharedIndexInformer).GetIndexer()
	if items, err := ix.ByIndex(toolscache.NamespaceIndex, "ns"); err != nil || len(items) != 2 {
		t.Errorf("%v %v", items, err)
	}
	if o, ok, err := ix.GetByKey("ns/a"); err != nil || !ok || o.(*corev1.Pod).Name != "a" || len(ix.List()) != 3 {
		t.Errorf("%v %v %v", o, ok, err)
	}
	must(t, ca.RemoveInformer(ctx, &corev1.Pod{}))
	if !inf.IsStopped() {
		t.Error("not stopped")
	}
}

func TestResync(t *testing.T) {
	co := coretest.Start(t, core.Options{})
	must(t, newClient(t, co).Create(context.Background(), pod("ns", "a", "")))
	ca := startCache(t, co, inproc.CacheOptions{})
	inf, err := ca.GetInformer(context.Background(), &corev1.Pod{})
	must(t, err)
	again := make(chan bool, 100)
	_, err = inf.AddEventHandlerWithResyncPeriod(toolscache.ResourceEventHandlerFuncs{UpdateFunc: func(old, obj any) { again <- old == obj }}, 10*time.Millisecond)
	must(t, err)
	select {
	case same := <-again:
		if !same {
			t.Error("a resync changed something")
		}
	case <-time.After(time.Minute):
		t.Error("no resync")
	}
}

func TestForbidden(t *testing.T) {
	a := authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		if a.GetUser().GetName() == "admin" {
			return authorizer.DecisionAllow, "", nil
		}
		return authorizer.DecisionNoOpinion, "", nil
	})
	co := coretest.Start(t, core.Options{Authorizer: a})
	bob := &user.DefaultInfo{Name: "bob"}
	ctx := context.Background()
	if err := inproc.NewClient(co, bob, inproc.ClientOptions{}).Create(ctx, pod("ns", "a", "")); !apierrors.IsForbidden(err) {
		t.Errorf("create: %v", err)
	}
	ca := inproc.NewCache(co, bob, inproc.CacheOptions{})
	runCache(t, ca)
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := ca.List(short, &corev1.PodList{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("list: %v", err)
	}
}

func TestSelection(t *testing.T) {
	co := coretest.Start(t, core.Options{})
	c := newClient(t, co)
	ctx := context.Background()
	must(t, c.Create(ctx, pod("ns", "a", "n1")))
	must(t, c.Create(ctx, pod("ns", "b", "n2")))
	o, err := inproc.FromOptions(cache.Options{ByObject: map[client.Object]cache.ByObject{&corev1.Pod{}: {Field: fields.OneTermEqualSelector("spec.nodeName", "n1")}}})
	must(t, err)
	ca := startCache(t, co, o)
	inf, err := ca.GetInformer(ctx, &corev1.Pod{})
	must(t, err)
	var l log
	_, err = inf.AddEventHandler(l.handler())
	must(t, err)
	l.want(t, "add a true")
	must(t, c.Create(ctx, pod("ns", "c", "")))
	must(t, c.Create(ctx, pod("ns", "d", "n1")))
	must(t, c.SubResource("binding").Create(ctx, pod("ns", "c", ""), &corev1.Binding{Target: corev1.ObjectReference{Name: "n1"}}))
	must(t, c.SubResource("binding").Create(ctx, pod("ns", "a", ""), &corev1.Binding{Target: corev1.ObjectReference{Name: "n2"}}))
	must(t, c.Delete(ctx, pod("ns", "d", ""), client.GracePeriodSeconds(0)))
	must(t, c.Delete(ctx, pod("ns", "b", ""), client.GracePeriodSeconds(0)))
	l.want(t, "add a true", "add d false", "add c false", "delete a", "delete d")
	var list corev1.PodList
	must(t, ca.List(ctx, &list))
	if len(list.Items) != 1 || list.Items[0].Name != "c" {
		t.Errorf("%+v", list.Items)
	}
	var p corev1.Pod
	if err := ca.Get(ctx, client.ObjectKey{Namespace: "ns", Name: "a"}, &p); !apierrors.IsNotFound(err) {
		t.Errorf("another node's pod: %v", err)
	}
	if _, err := inproc.FromOptions(cache.Options{DefaultNamespaces: map[string]cache.Config{"x": {}}}); err == nil {
		t.Error("namespaces were accepted")
	}
}

// Flush returns when handlers, slow ones too, have seen what was there.
func TestFlush(t *testing.T) {
	c := coretest.Start(t, core.Options{})
	ca := startCache(t, c, inproc.CacheOptions{})
	i, err := ca.GetInformer(t.Context(), &corev1.Pod{})
	must(t, err)
	var seen atomic.Int32
	_, err = i.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: func(any) {
		time.Sleep(50 * time.Microsecond) // behind the writer
		seen.Add(1)
	}})
	must(t, err)
	cl := newClient(t, c)
	for n := range int32(300) {
		must(t, cl.Create(t.Context(), pod("ns", fmt.Sprintf("p%d", n), "")))
		if n%7 == 0 {
			must(t, ca.Flush(t.Context()))
			if got := seen.Load(); got != n+1 {
				t.Fatalf("the handler has seen %d of %d", got, n+1)
			}
		}
	}

	blocked, unblock := make(chan struct{}), make(chan struct{})
	defer close(unblock)
	i, err = ca.GetInformer(t.Context(), &corev1.ConfigMap{})
	must(t, err)
	_, err = i.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: func(any) { close(blocked); <-unblock }})
	must(t, err)
	must(t, cl.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"}}))
	<-blocked
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := ca.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a handler that is stuck: %v", err)
	}
}
