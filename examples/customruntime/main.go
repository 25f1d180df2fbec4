// Customruntime gives a kubelet a runtime of its own: one that says what it is told to start, around the simulated one.
//
//	go run ./examples/customruntime
//
// A real one runs runtimetest.Run on itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/examples/internal/compose"
	"github.com/keelson/keelson/kubelet"
	"github.com/keelson/keelson/kubelet/fakeruntime"
)

// telling is the runtime.
type telling struct{ *fakeruntime.Runtime }

// CreateContainer implements kubelet.ContainerService.
func (t telling) CreateContainer(ctx context.Context, sandbox string, c *runtimeapi.ContainerConfig, s *runtimeapi.PodSandboxConfig) (string, error) {
	fmt.Printf("told to create container %s of pod %s from image %s\n", c.Metadata.Name, s.Metadata.Name, c.Image.Image)
	return t.Runtime.CreateContainer(ctx, sandbox, c, s)
}

func main() {
	compose.Main("customruntime", run)
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "keelson-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	return compose.Demo(ctx, compose.Options{}, func(ctx context.Context, c *compose.Cluster) error {
		fake, err := fakeruntime.New(fakeruntime.Options{})
		if err != nil {
			return err
		}
		api, cache := c.Server.Client(apiserver.Admin), c.Server.Cache(apiserver.Admin)
		k, err := kubelet.New(api, cache, telling{fake}, fake, kubelet.Options{NodeName: "mine", RootDir: filepath.Join(dir, "kubelet"), Simulated: true})
		if err != nil {
			return err
		}
		ctx, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer stop()
		wg.Go(func() { _ = cache.Start(ctx) })
		failed := make(chan error, 1)
		wg.Go(func() { failed <- k.Run(ctx) })
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "hello", Namespace: "default"}}
		pod.Spec.Containers = []corev1.Container{{Name: "app", Image: "registry.example/app:v1"}}
		if err := api.Create(ctx, pod); err != nil {
			return err
		}
		return compose.Poll(ctx, func() (bool, error) {
			select {
			case err := <-failed:
				return false, errors.Join(errors.New("the kubelet ended"), err)
			default:
			}
			err := api.Get(ctx, client.ObjectKeyFromObject(pod), pod)
			if pod.Status.Phase == corev1.PodRunning {
				fmt.Printf("pod %s is %s on node %s\n", pod.Name, pod.Status.Phase, pod.Spec.NodeName)
				return true, nil
			}
			return false, err
		})
	})
}
