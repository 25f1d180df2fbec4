package compose

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/store/memstore"
)

// TestClustersComeAndGo runs two whole clusters in one process, again and again: they start, work and stop, and no goroutine is left.
func TestClustersComeAndGo(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	if n, err := strconv.Atoi(os.Getenv("KEELSON_ROUNDS")); err == nil {
		rounds = n
	}
	for i := range rounds {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if err := workAndStop(t.Context()); err != nil {
					t.Errorf("round %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		if err := goleak.Find(); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
}

func workAndStop(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not done in a minute"))
	defer cancel()
	s, err := memstore.New(memstore.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	return Demo(ctx, Options{Store: s, Nodes: 1, Runtime: "fake"}, func(ctx context.Context, c *Cluster) error {
		api := c.Server.Client(apiserver.Admin)
		labels := map[string]string{"app": "web"}
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}}
		d.Spec.Replicas, d.Spec.Selector = ptr.To[int32](2), &metav1.LabelSelector{MatchLabels: labels}
		d.Spec.Template.Labels = labels
		d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "web", Image: "web"}}
		if err := api.Create(ctx, d); err != nil {
			return err
		}
		err := Poll(ctx, func() (bool, error) {
			err := api.Get(ctx, client.ObjectKeyFromObject(d), d)
			return d.Status.AvailableReplicas == 2, err
		})
		if err != nil {
			return fmt.Errorf("the Deployment has %d of 2 replicas: %w", d.Status.AvailableReplicas, err)
		}
		return api.Delete(ctx, d)
	})
}
