package builtin_test

import (
	"context"
	"errors"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/builtin"
	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/store/memstore"
)

// BenchmarkDeployment measures a Deployment of 5,000 pods from its creation
// until all are ready and behind a Service, and from its deletion until none is
// left, with all controllers and the API server in one process.
func BenchmarkDeployment(b *testing.B) {
	const replicas = 5000
	ctx, cancel := context.WithCancel(b.Context())
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	server, err := apiserver.New(st, apiserver.Options{})
	if err != nil {
		b.Fatal(err)
	}
	c, cc := server.Client(apiserver.Admin), server.Cache(apiserver.Admin)
	set, err := builtin.New(c, cc, builtin.Options{Controllers: []string{"*", "-node-lifecycle-controller"}})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- controller.RunAll(ctx, server.Run, cc.Start, set.Run, func(ctx context.Context) error { return hollow(ctx, c) })
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}()
	if err := server.WaitReady(ctx); err != nil {
		b.Fatal(err)
	}
	web := map[string]string{"app": "web"}
	n := int32(replicas)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: web, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(80)}}},
	}
	for _, o := range []client.Object{node, svc} {
		if err := c.Create(ctx, o); err != nil {
			b.Fatal(err)
		}
	}
	wait := func(f func() error) {
		for f() != nil {
			time.Sleep(20 * time.Millisecond)
		}
	}
	var up, down time.Duration
	for b.Loop() {
		d := &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec:       appsv1.DeploymentSpec{Replicas: &n, Selector: controllertest.Labels(web), Template: controllertest.Template("web:1", web)},
		}
		begin := time.Now()
		if err := c.Create(ctx, d); err != nil {
			b.Fatal(err)
		}
		wait(func() error {
			if err := c.Get(ctx, client.ObjectKeyFromObject(d), d); err != nil {
				return err
			}
			if d.Status.AvailableReplicas != n {
				return errors.New("not yet")
			}
			return nil
		})
		up += time.Since(begin)
		begin = time.Now()
		if err := c.Delete(ctx, d, client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
			b.Fatal(err)
		}
		wait(func() error {
			l := &corev1.PodList{}
			if err := c.List(ctx, l, client.InNamespace("default"), client.Limit(1)); err != nil {
				return err
			}
			if len(l.Items) > 0 {
				return errors.New("not yet")
			}
			return nil
		})
		down += time.Since(begin)
	}
	b.ReportMetric(replicas*float64(b.N)/up.Seconds(), "pods-ready/s")
	b.ReportMetric(replicas*float64(b.N)/down.Seconds(), "pods-deleted/s")
}
