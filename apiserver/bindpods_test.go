package apiserver_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/authentication/user"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/store/memstore"
)

// bindable is a server on a store of its own, with pods in every state that matters to a binding.
type bindable struct {
	*apiserver.Server
	store *memstore.Store
	pods  []corev1.Pod
}

var binders = []*user.DefaultInfo{
	{Name: "system:kube-scheduler", Groups: []string{user.AllAuthenticated}},
	{Name: "few", Groups: []string{user.AllAuthenticated}}, // may bind only some, by name
}

func newBindable(t *testing.T, n int) *bindable {
	t.Helper()
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := apiserver.New(st, apiserver.Options{DisableAdmission: []string{"ServiceAccount"}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, func() { st.Close() })
	c, ctx := s.Client(apiserver.Admin), t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelTopologyZone: "z"}}}))
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "few"}}
	role.Rules = []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods/binding"}, Verbs: []string{"create"}}}
	b := &bindable{Server: s, store: st}
	for i := range n {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("p%03d", i)}}
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
		kind := i % 7
		if kind == 0 {
			p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "wait"}}
		}
		if kind == 1 {
			p.Finalizers = []string{"example.com/stay"}
		}
		must(c.Create(ctx, p))
		switch kind {
		case 1:
			must(c.Delete(ctx, p, client.GracePeriodSeconds(0)))
		case 2:
			must(c.SubResource("binding").Create(ctx, p, &corev1.Binding{Target: corev1.ObjectReference{Name: "before"}}))
		case 3:
			must(c.Delete(ctx, p, client.GracePeriodSeconds(0)))
		}
		if i%2 == 0 {
			role.Rules[0].ResourceNames = append(role.Rules[0].ResourceNames, p.Name)
		}
		b.pods = append(b.pods, *p)
	}
	must(c.Create(ctx, role))
	must(c.Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "few"}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "few"},
		Subjects: []rbacv1.Subject{{Kind: "User", Name: "few"}},
	}))
	return b
}

// fork is another server on a copy of the store.
func (b *bindable) fork(t *testing.T) *apiserver.Server {
	t.Helper()
	st := b.store.Fork()
	s, err := apiserver.New(st, apiserver.Options{DisableAdmission: []string{"ServiceAccount"}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, func() { st.Close() })
	return s
}

func (b *bindable) randomBinding(r *rand.Rand) corev1.Binding {
	p := &b.pods[r.IntN(len(b.pods))]
	out := corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: []string{"n", "unknown"}[r.IntN(2)]},
	}
	switch r.IntN(16) {
	case 0:
		out.UID = "another"
	case 1:
		out.UID = ""
	case 2:
		out.Target.Kind = "Pod"
	case 3:
		out.Target.Name = ""
	case 4:
		out.Name = "nobody"
	case 5:
		out.Name = ""
	case 6:
		out.Namespace = "nowhere"
	case 7:
		out.ResourceVersion = p.ResourceVersion
	case 8:
		out.ResourceVersion = "1"
	case 9:
		out.Labels, out.Annotations = map[string]string{"of": "binding"}, map[string]string{"a": "b"}
	}
	return out
}

// TestBindPodsAgrees compares batches with bindings one by one, on random bindings.
func TestBindPodsAgrees(t *testing.T) {
	b := newBindable(t, 140)
	for _, who := range binders {
		for seed := range uint64(6) {
			t.Run(fmt.Sprint(who.Name, seed), func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				batched, single := b.fork(t), b.fork(t)
				before := pods(t, batched)
				var bindings []corev1.Binding
				for range 1 + r.IntN(200) {
					bindings = append(bindings, b.randomBinding(r))
				}
				var want []string
				c := single.Client(who)
				for i := range bindings {
					body := bindings[i].DeepCopy()
					want = append(want, text(c.SubResource("binding").Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: body.Namespace, Name: body.Name}}, body)))
				}
				var got []string
				for _, err := range batched.Client(who).(scheduler.BatchBinder).BindPods(t.Context(), bindings) {
					got = append(got, text(err))
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("answers (-single +batch):\n%s", diff)
				}
				now := pods(t, batched)
				versions := map[string]bool{}
				for name, p := range now {
					if p.ResourceVersion != before[name].ResourceVersion && versions[p.ResourceVersion] {
						t.Errorf("%s shares the resource version %s with another", name, p.ResourceVersion)
					}
					versions[p.ResourceVersion] = true
				}
				if diff := cmp.Diff(timeless(pods(t, single)), timeless(now)); diff != "" {
					t.Errorf("pods (-single +batch):\n%s", diff)
				}
			})
		}
	}
}

func text(err error) string {
	if err == nil {
		return "bound"
	}
	// Between commits of one batch and another's the order may differ, and with it the pods' versions.
	return versionInMeta.ReplaceAllString(err.Error(), "ResourceVersion in object meta")
}

var versionInMeta = regexp.MustCompile(`ResourceVersion in object meta: \d+`)

func pods(t *testing.T, s *apiserver.Server) map[string]*corev1.Pod {
	t.Helper()
	list := &corev1.PodList{}
	if err := s.Client(apiserver.Admin).List(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	out := map[string]*corev1.Pod{}
	for i := range list.Items {
		out[list.Items[i].Name] = &list.Items[i]
	}
	return out
}

func timeless(pods map[string]*corev1.Pod) map[string]*corev1.Pod {
	for _, p := range pods {
		p.ResourceVersion = ""
		for i := range p.Status.Conditions {
			p.Status.Conditions[i].LastTransitionTime = metav1.Time{}
		}
	}
	return pods
}

// free are bindings of the pods that can be bound.
func (b *bindable) free(node string) (out []corev1.Binding) {
	for i, p := range b.pods {
		if i%7 > 3 {
			out = append(out, corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID}, Target: corev1.ObjectReference{Name: node}})
		}
	}
	return out
}

func TestBindPodsCancelled(t *testing.T) {
	b := newBindable(t, 21)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := pods(t, b.Server)
	for i, err := range b.Client(binders[0]).(scheduler.BatchBinder).BindPods(ctx, b.free("n")) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("binding %d: %v", i, err)
		}
	}
	if diff := cmp.Diff(before, pods(t, b.Server)); diff != "" {
		t.Errorf("changed:\n%s", diff)
	}
}

// TestBindPodsRace has several schedulers bind the same pods while somebody else changes them, and a watcher that resumes in the midst of it.
func TestBindPodsRace(t *testing.T) {
	b := newBindable(t, 210)
	list := &corev1.PodList{}
	admin := b.Client(apiserver.Admin)
	if err := admin.List(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	n := len(b.free(""))
	wins := make([]atomic.Int32, n)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for k, err := range b.Client(binders[0]).(scheduler.BatchBinder).BindPods(t.Context(), b.free(fmt.Sprint("n", i))) {
				if err == nil {
					wins[k].Add(1)
				}
			}
		})
	}
	wg.Go(func() {
		for _, x := range b.free("") {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: x.Namespace, Name: x.Name}}
			if err := admin.Patch(t.Context(), p, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"x":"y"}}}`))); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	for i := range wins {
		if got := wins[i].Load(); got != 1 {
			t.Errorf("pod %d was bound %d times", i, got)
		}
	}
	// Every binding has an event of its own, after whichever version a watcher resumes.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seen, from := map[string]bool{}, list.ResourceVersion
	for len(seen) < n {
		w, err := admin.Watch(ctx, &corev1.PodList{}, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: from}})
		if err != nil {
			t.Fatal(err)
		}
		for k := 0; k < 7 && len(seen) < n; k++ {
			ev, open := <-w.ResultChan()
			if !open || ev.Type != watch.Modified {
				t.Fatalf("%d of %d seen, then %+v", len(seen), n, ev)
			}
			p := ev.Object.(*corev1.Pod)
			from = p.ResourceVersion
			if p.Spec.NodeName != "" {
				seen[p.Name] = true
			}
		}
		w.Stop()
	}
}

// A dry run of the binding of a pod changes nothing, and neither does a batch that is refused as a whole.
func TestBindDryRun(t *testing.T) {
	b := newBindable(t, 14)
	before := pods(t, b.Server)
	c := b.Client(binders[0])
	for _, x := range b.free("n") {
		if err := c.SubResource("binding").Create(t.Context(), &corev1.Pod{ObjectMeta: x.ObjectMeta}, x.DeepCopy(), client.DryRunAll); err != nil {
			t.Error(err)
		}
	}
	nobody := b.Client(&user.DefaultInfo{Name: "nobody"}).(scheduler.BatchBinder)
	for i, err := range nobody.BindPods(t.Context(), b.free("n")) {
		if err == nil {
			t.Errorf("binding %d was allowed", i)
		}
	}
	if diff := cmp.Diff(before, pods(t, b.Server)); diff != "" {
		t.Errorf("changed:\n%s", diff)
	}
	if got := nobody.BindPods(t.Context(), nil); len(got) != 0 {
		t.Errorf("nothing to bind: %v", got)
	}
}
