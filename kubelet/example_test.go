package kubelet_test

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/kubelet"
	"github.com/keelson/keelson/kubelet/fakeruntime"
	"github.com/keelson/keelson/store/memstore"
)

// A simulated node on an API server in the same program runs a pod.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	store, err := memstore.New(memstore.Options{})
	if err != nil {
		panic(err)
	}
	server, err := apiserver.New(store, apiserver.Options{DisableAdmission: []string{"ServiceAccount"}})
	if err != nil {
		panic(err)
	}
	ended := make(chan error, 3)
	go func() { ended <- server.Run(ctx) }()
	if err := server.WaitReady(ctx); err != nil {
		panic(err)
	}
	client, cache := server.Client(apiserver.Admin), server.Cache(apiserver.Admin)
	go func() { ended <- cache.Start(ctx) }()

	runtime, err := fakeruntime.New(fakeruntime.Options{})
	if err != nil {
		panic(err)
	}
	node, err := kubelet.New(client, cache, runtime, runtime, kubelet.Options{NodeName: "node-1", Simulated: true, DisableServer: true})
	if err != nil {
		panic(err)
	}
	go func() { ended <- node.Run(ctx) }()

	pods, err := client.Watch(ctx, &corev1.PodList{})
	if err != nil {
		panic(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{Name: "web", Image: "nginx"}}}}
	if err := client.Create(ctx, pod); err != nil {
		panic(err)
	}
	for event := range pods.ResultChan() {
		if p, ok := event.Object.(*corev1.Pod); ok && p.Status.Phase == corev1.PodRunning {
			fmt.Println(p.Name, p.Status.Phase, p.Status.ContainerStatuses[0].Image)
			break
		}
	}
	pods.Stop()
	cancel()
	for range cap(ended) {
		<-ended
	}
	if err := store.Close(); err != nil {
		panic(err)
	}
	// Output: web Running nginx
}
