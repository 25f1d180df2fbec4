package httpapi

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	appsapply "k8s.io/client-go/applyconfigurations/apps/v1"
	coreapply "k8s.io/client-go/applyconfigurations/core/v1"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

func deployment(name string, replicas int32) *appsv1.Deployment {
	l := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: l},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: l},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: l},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "img"}}},
			},
		},
	}
}

func lease(name string) *coordinationv1.Lease {
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: ptr.To("me"), LeaseDurationSeconds: ptr.To[int32](10)},
	}
}

// Every verb works for typed clients, in both encodings.
func TestTypedClient(t *testing.T) {
	f := serve(t, nil)
	for _, ct := range []string{mediaJSON, mediaProto} {
		t.Run(ct, func(t *testing.T) {
			ctx := t.Context()
			ns := "ns-" + ct[len(ct)-4:]
			api := f.client(t, ct).AppsV1().Deployments(ns)
			made, err := api.Create(ctx, deployment("a", 2), metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if made.UID == "" || made.ResourceVersion == "" || made.Generation != 1 || made.Namespace != ns || made.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
				t.Errorf("created object lacks what the server sets: %+v", made.ObjectMeta)
			}
			made.Spec.Replicas = ptr.To[int32](3)
			updated, err := api.Update(ctx, made, metav1.UpdateOptions{})
			if err != nil || updated.Generation != 2 {
				t.Fatalf("update: %v, generation %d", err, updated.Generation)
			}
			if _, err := api.Update(ctx, made, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
				t.Errorf("stale update got %v", err)
			}
			updated.Status.Replicas = 3
			if st, err := api.UpdateStatus(ctx, updated, metav1.UpdateOptions{}); err != nil || st.Status.Replicas != 3 || st.Generation != 2 {
				t.Errorf("status: %v, %+v", err, st)
			}
			scale, err := api.GetScale(ctx, "a", metav1.GetOptions{})
			if err != nil || scale.Spec.Replicas != 3 || scale.Status.Selector != "app=a" {
				t.Fatalf("scale: %v, %+v", err, scale)
			}
			scale.Spec.Replicas = 5
			if scale, err = api.UpdateScale(ctx, "a", scale, metav1.UpdateOptions{}); err != nil || scale.Spec.Replicas != 5 {
				t.Errorf("update of scale: %v, %+v", err, scale)
			}
			for pt, patch := range map[types.PatchType]string{
				types.JSONPatchType:           `[{"op":"replace","path":"/spec/replicas","value":6}]`,
				types.MergePatchType:          `{"spec":{"replicas":6}}`,
				types.StrategicMergePatchType: `{"spec":{"replicas":6,"template":{"spec":{"containers":[{"name":"c","image":"new"}]}}}}`,
			} {
				p, err := api.Patch(ctx, "a", pt, []byte(patch), metav1.PatchOptions{})
				if err != nil || *p.Spec.Replicas != 6 || len(p.Spec.Template.Spec.Containers) != 1 {
					t.Errorf("%s: %v, %v", pt, err, p)
				}
			}
			applied, err := api.Apply(ctx, appsapply.Deployment("b", ns).WithSpec(appsapply.DeploymentSpec().WithReplicas(1).
				WithSelector(metaapply.LabelSelector().WithMatchLabels(map[string]string{"x": "y"})).
				WithTemplate(coreapply.PodTemplateSpec().WithLabels(map[string]string{"x": "y"}).
					WithSpec(coreapply.PodSpec().WithContainers(coreapply.Container().WithName("c").WithImage("i"))))), metav1.ApplyOptions{FieldManager: "test"})
			if err != nil || len(applied.ManagedFields) != 1 || applied.ManagedFields[0].Manager != "test" {
				t.Fatalf("apply: %v, %+v", err, applied)
			}
			l, err := api.List(ctx, metav1.ListOptions{})
			if err != nil || len(l.Items) != 2 || l.ResourceVersion == "" || l.Items[0].Name != "a" {
				t.Fatalf("list: %v, %+v", err, l)
			}
			if l, err = api.List(ctx, metav1.ListOptions{LabelSelector: "app=a", FieldSelector: "metadata.name=a"}); err != nil || len(l.Items) != 1 {
				t.Errorf("selected list: %v, %d", err, len(l.Items))
			}
			if _, err := api.Create(ctx, deployment("dry", 1), metav1.CreateOptions{DryRun: []string{"All"}}); err != nil {
				t.Error(err)
			}
			if _, err := api.Get(ctx, "dry", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("dry run left %v", err)
			}
			policy := metav1.DeletePropagationForeground
			if err := api.Delete(ctx, "a", metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
				t.Fatal(err)
			}
			if a, err := api.Get(ctx, "a", metav1.GetOptions{}); err != nil || a.DeletionTimestamp == nil || len(a.Finalizers) != 1 {
				t.Errorf("foreground deletion: %v, %+v", err, a)
			}
			if err := api.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name=b"}); err != nil {
				t.Fatal(err)
			}
			if _, err := api.Get(ctx, "b", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("deleted collection left %v", err)
			}
		})
	}
}

func TestWatch(t *testing.T) {
	f := serve(t, nil)
	for _, ct := range []string{mediaJSON, mediaProto} {
		t.Run(ct, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			api := f.client(t, ct).CoordinationV1().Leases("w-" + ct[len(ct)-4:])
			if _, err := api.Create(ctx, lease("before"), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			w, err := api.Watch(ctx, metav1.ListOptions{
				AllowWatchBookmarks: true, SendInitialEvents: ptr.To(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			next := func(want watch.EventType, name string) *coordinationv1.Lease {
				t.Helper()
				ev, ok := <-w.ResultChan()
				if !ok {
					t.Fatal("watch ended")
				}
				l, ok := ev.Object.(*coordinationv1.Lease)
				if !ok || ev.Type != want || l.Name != name {
					t.Fatalf("got %s %+v, want %s %q", ev.Type, ev.Object, want, name)
				}
				return l
			}
			next(watch.Added, "before")
			if b := next(watch.Bookmark, ""); b.Annotations[metav1.InitialEventsAnnotationKey] != "true" || b.ResourceVersion == "" {
				t.Errorf("bookmark is %+v", b.ObjectMeta)
			}
			made, err := api.Create(ctx, lease("a"), metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := next(watch.Added, "a"); got.ResourceVersion != made.ResourceVersion {
				t.Errorf("event has version %s, created object %s", got.ResourceVersion, made.ResourceVersion)
			}
			made.Spec.HolderIdentity = ptr.To("you")
			if _, err := api.Update(ctx, made, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			if got := next(watch.Modified, "a"); *got.Spec.HolderIdentity != "you" {
				t.Errorf("event has holder %q", *got.Spec.HolderIdentity)
			}
			if err := api.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if got := next(watch.Deleted, "a"); got.ResourceVersion <= made.ResourceVersion {
				t.Errorf("deletion has version %s", got.ResourceVersion)
			}
		})
	}
}

func TestWatchEndsAtTimeout(t *testing.T) {
	f := serve(t, nil)
	w, err := f.client(t, mediaJSON).CoordinationV1().Leases("x").Watch(t.Context(), metav1.ListOptions{TimeoutSeconds: ptr.To[int64](1)})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case ev, ok := <-w.ResultChan():
		if ok {
			t.Errorf("got %+v", ev)
		}
	case <-time.After(time.Minute):
		t.Error("watch did not end")
	}
}

// Lists longer than the parts they are written in arrive whole, in all encodings, chunked or not.
func TestLongLists(t *testing.T) {
	f := serve(t, nil)
	ctx := t.Context()
	api := f.client(t, mediaProto).CoordinationV1().Leases("many")
	const n = 700
	for i := range n {
		l := lease(fmt.Sprintf("l%04d", i))
		l.Annotations = map[string]string{"pad": fmt.Sprintf("%0300d", i)}
		if _, err := api.Create(ctx, l, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, ct := range []string{mediaJSON, mediaProto} {
		api := f.client(t, ct).CoordinationV1().Leases("")
		l, err := api.List(ctx, metav1.ListOptions{})
		if err != nil || len(l.Items) != n || l.Items[n-1].Name != "l0699" || l.Items[0].Annotations["pad"] == "" {
			t.Fatalf("%s: %v, %d items", ct, err, len(l.Items))
		}
		var names int
		opts := metav1.ListOptions{Limit: 250}
		for {
			page, err := api.List(ctx, opts)
			if err != nil {
				t.Fatal(err)
			}
			names += len(page.Items)
			if page.Continue == "" {
				break
			}
			if page.RemainingItemCount == nil || int(*page.RemainingItemCount) != n-names {
				t.Errorf("remaining is %v after %d", page.RemainingItemCount, names)
			}
			opts.Continue = page.Continue
		}
		if names != n {
			t.Errorf("pages hold %d", names)
		}
	}
}

func TestInformer(t *testing.T) {
	f := serve(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cs := f.client(t, mediaProto)
	factory := informers.NewSharedInformerFactory(cs, 0)
	inf := factory.Apps().V1().Deployments()
	inf.Informer()
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	defer cancel()
	if !cache.WaitForCacheSync(ctx.Done(), inf.Informer().HasSynced) {
		t.Fatal("not synced")
	}
	if _, err := cs.AppsV1().Deployments("i").Create(ctx, deployment("a", 1), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if l, _ := inf.Lister().List(labels.Everything()); len(l) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the informer never saw the object")
		}
	}
}
