package builtin_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/builtin"
	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/resources"
	"github.com/keelson/keelson/store/memstore"
)

// eventually polls until f returns nil.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// TestOnTheAPIServer runs all controllers against the real API server in
// process: what it defaults, validates and refuses, they have to live with.
func TestOnTheAPIServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	server, err := apiserver.New(st, apiserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, cc := server.Client(apiserver.Admin), server.Cache(apiserver.Admin)
	d, err := discovery.NewDiscoveryClientForConfig(server.RESTConfig(apiserver.Admin))
	if err != nil {
		t.Fatal(err)
	}
	set, err := builtin.New(c, cc, builtin.Options{
		RootCA: []byte(ca), ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, Resources: resources.FromDiscovery(d),
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- controller.RunAll(ctx, server.Run, cc.Start, set.Run, func(ctx context.Context) error { return hollow(ctx, c) })
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	if err := server.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	create := func(objs ...client.Object) {
		t.Helper()
		for _, o := range objs {
			if err := c.Create(ctx, o); err != nil {
				t.Fatal(err)
			}
		}
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	create(node)
	before := node.DeepCopy() // a patch, for the controllers write the node too
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()}}
	if err := c.Status().Patch(ctx, node, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	eventually(t, "service account and root CA", func() error {
		return errors.Join(c.Get(ctx, client.ObjectKey{Namespace: "shop", Name: "default"}, &corev1.ServiceAccount{}),
			c.Get(ctx, client.ObjectKey{Namespace: "shop", Name: "kube-root-ca.crt"}, &corev1.ConfigMap{}))
	})

	web := map[string]string{"app": "web"}
	three := int32(3)
	dep := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec:       appsv1.DeploymentSpec{Replicas: &three, Selector: controllertest.Labels(web), Template: controllertest.Template("web:1", web)},
	}
	create(dep, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: web, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(80)}}},
	})
	available := func(image string) func() error {
		return func() error {
			if err := c.Get(ctx, client.ObjectKeyFromObject(dep), dep); err != nil {
				return err
			}
			if s := dep.Status; s.AvailableReplicas != 3 || s.UpdatedReplicas != 3 || s.Replicas != 3 || s.ObservedGeneration != dep.Generation {
				return errors.New(s.String())
			}
			ps := &corev1.PodList{}
			if err := c.List(ctx, ps, client.InNamespace("shop")); err != nil {
				return err
			}
			for _, p := range ps.Items {
				if p.Spec.Containers[0].Image != image {
					return errors.New("old pods")
				}
			}
			return nil
		}
	}
	eventually(t, "rollout", available("web:1"))
	eventually(t, "endpoints", func() error {
		l := &discoveryv1.EndpointSliceList{}
		if err := c.List(ctx, l, client.InNamespace("shop")); err != nil {
			return err
		}
		if len(l.Items) != 1 || len(l.Items[0].Endpoints) != 3 {
			return errors.New("not three endpoints")
		}
		ep := &corev1.Endpoints{} //nolint:staticcheck // its controller is under test
		if err := c.Get(ctx, client.ObjectKeyFromObject(dep), ep); err != nil {
			return err
		}
		if len(ep.Subsets) != 1 || len(ep.Subsets[0].Addresses) != 3 {
			return errors.New("not three addresses")
		}
		return nil
	})
	base := dep.DeepCopy()
	dep.Spec.Template.Spec.Containers[0].Image = "web:2"
	if err := c.Patch(ctx, dep, client.MergeFrom(base)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "second rollout", available("web:2"))
	if dep.Annotations["deployment.kubernetes.io/revision"] != "2" {
		t.Errorf("annotations %v", dep.Annotations)
	}

	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "work"}, Spec: batchv1.JobSpec{
		Completions: &three, Parallelism: &three, Template: controllertest.Template("work", nil),
	}}
	j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	create(j)
	eventually(t, "job", func() error {
		if err := c.Get(ctx, client.ObjectKeyFromObject(j), j); err != nil {
			return err
		}
		if j.Status.Succeeded != 3 || j.Status.CompletionTime == nil {
			return errors.New(j.Status.String())
		}
		return nil
	})

	if err := c.Delete(ctx, dep, client.PropagationPolicy(metav1.DeletePropagationForeground)); err != nil {
		t.Fatal(err)
	}
	gone := func(o client.Object) func() error {
		return func() error {
			err := c.Get(ctx, client.ObjectKeyFromObject(o), o)
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(errors.New("still there"), err)
		}
	}
	eventually(t, "foreground deletion", gone(dep))
	ps := &corev1.PodList{}
	if err := c.List(ctx, ps, client.InNamespace("shop"), client.MatchingLabels(web)); err != nil || len(ps.Items) > 0 {
		t.Errorf("%d pods outlived their deployment, %v", len(ps.Items), err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	if err := c.Delete(ctx, ns); err != nil {
		t.Fatal(err)
	}
	eventually(t, "namespace", gone(ns))
}

// hollow is a scheduler and a kubelet: pods of Jobs succeed, others get ready,
// and those being deleted go.
func hollow(ctx context.Context, c client.WithWatch) error {
	w, err := c.Watch(ctx, &corev1.PodList{}, &client.ListOptions{Raw: &metav1.ListOptions{}})
	if err != nil {
		return err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		p, ok := e.Object.(*corev1.Pod)
		if !ok || e.Type == "DELETED" {
			continue
		}
		p = p.DeepCopy()
		switch {
		case p.DeletionTimestamp != nil:
			_ = c.Delete(ctx, p, client.GracePeriodSeconds(0))
		case p.Spec.NodeName == "":
			_ = c.SubResource("binding").Create(ctx, p, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "n"}})
		case p.Status.Phase == corev1.PodPending:
			p.Status = *controllertest.ReadyStatus("10.244.0.2")
			if p.Spec.RestartPolicy == corev1.RestartPolicyNever {
				p.Status.Phase = corev1.PodSucceeded
			}
			_ = c.Status().Update(ctx, p)
		}
	}
	return nil
}
