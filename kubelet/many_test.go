package kubelet_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/kubelet"
	"github.com/keelson/keelson/kubelet/fakeruntime"
	"github.com/keelson/keelson/store/memstore"
)

// TestManyKubelets runs many nodes in one process on one dispatcher, in virtual time.
func TestManyKubelets(t *testing.T) {
	const nodes, podsEach = 30, 10
	synctest.Test(t, func(t *testing.T) {
		cluster := controllertest.NewCluster()
		cluster.GracefulPods = true
		c := cluster.Client()
		ca, err := controllertest.NewCache(c)
		if err != nil {
			t.Fatal(err)
		}
		d, err := kubelet.NewDispatcher(ca)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, nodes+2)
		go func() { ended <- ca.Start(ctx) }()
		go func() { ended <- d.Run(ctx) }()
		for i := range nodes {
			rt, err := fakeruntime.New(fakeruntime.Options{PodCIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 24)})
			if err != nil {
				t.Fatal(err)
			}
			k, err := kubelet.New(c, ca, rt, rt, kubelet.Options{NodeName: fmt.Sprint("n", i), Pods: d, Simulated: true, DisableServer: true})
			if err != nil {
				t.Fatal(err)
			}
			go func() { ended <- k.Run(ctx) }()
		}
		time.Sleep(time.Second)
		ips := map[string]bool{}
		for i := range nodes * podsEach {
			p := newPod(fmt.Sprint("p", i))
			p.UID = ""
			p.Spec.NodeName = fmt.Sprint("n", i%nodes)
			if err := c.Create(ctx, p); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		var list corev1.PodList
		if err := c.List(ctx, &list); err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			p := &list.Items[i]
			if p.Status.Phase != corev1.PodRunning || ips[p.Status.PodIP] {
				t.Fatalf("%s: %+v", p.Name, p.Status)
			}
			ips[p.Status.PodIP] = true
		}
		cancel()
		for range nodes + 2 {
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
}

// BenchmarkPodStart measures a pod from its creation through the API server to its status Running, over fakeruntime: many at once on ten nodes.
func BenchmarkPodStart(b *testing.B) {
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	srv, err := apiserver.New(st, apiserver.Options{DisableAdmission: []string{"ServiceAccount"}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	const nodes = 10
	ended := make(chan error, nodes+3)
	go func() { ended <- srv.Run(ctx) }()
	if err := srv.WaitReady(ctx); err != nil {
		b.Fatal(err)
	}
	c, ca := srv.Client(apiserver.Admin), srv.Cache(apiserver.Admin)
	d, err := kubelet.NewDispatcher(ca)
	if err != nil {
		b.Fatal(err)
	}
	go func() { ended <- ca.Start(ctx) }()
	go func() { ended <- d.Run(ctx) }()
	for i := range nodes {
		rt, err := fakeruntime.New(fakeruntime.Options{PodCIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16)})
		if err != nil {
			b.Fatal(err)
		}
		k, err := kubelet.New(c, ca, rt, rt, kubelet.Options{NodeName: fmt.Sprint("n", i), Pods: d, Simulated: true, DisableServer: true, MaxPods: 1 << 20})
		if err != nil {
			b.Fatal(err)
		}
		go func() { ended <- k.Run(ctx) }()
	}
	var nodeList corev1.NodeList
	for len(nodeList.Items) < nodes {
		time.Sleep(10 * time.Millisecond)
		if err := c.List(ctx, &nodeList); err != nil {
			b.Fatal(err)
		}
	}
	w, err := c.Watch(ctx, &corev1.PodList{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for i := range b.N {
			p := newPod(fmt.Sprint("p", i))
			p.UID = ""
			p.Spec.NodeName = fmt.Sprint("n", i%nodes)
			if err := c.Create(ctx, p); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	running := map[string]bool{}
	for len(running) < b.N {
		e := <-w.ResultChan()
		if p, ok := e.Object.(*corev1.Pod); ok && p.Status.Phase == corev1.PodRunning {
			running[p.Name] = true
		}
	}
	b.StopTimer()
	w.Stop()
	cancel()
	for range nodes + 3 {
		<-ended
	}
	if err := st.Close(); err != nil {
		b.Error(err)
	}
}
