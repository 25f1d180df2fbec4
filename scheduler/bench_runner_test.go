//go:build unix

package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
	"github.com/keelson/keelson/store/boltstore"
)

// BenchmarkRunner is 3,000 pods on 5,000 nodes, from the first one's creation until all are bound, durably. Creating them is in it.
// The lanes differ in how scheduler and creator come to the API server: in-process, the same but binding one pod by one, or over TLS. cpu-ms/pod is of all there is: server, store, scheduler
// and creator.
func BenchmarkRunner(b *testing.B) {
	const nodes, pods = 5000, 3000
	for _, lane := range []string{"inproc", "inproc-single", "https"} {
		for _, c := range workloads[:3] {
			b.Run(lane+"/"+c.name, func(b *testing.B) {
				var took, used time.Duration
				for b.Loop() {
					t, u := benchmarkRunner(b, lane, nodes, pods, c.mod)
					took, used = took+t, used+u
				}
				b.ReportMetric(float64(pods*b.N)/took.Seconds(), "pods/s")
				b.ReportMetric(used.Seconds()*1000/float64(pods*b.N), "cpu-ms/pod")
			})
		}
	}
}

func benchmarkRunner(b *testing.B, lane string, nodes, pods int, mod podMod) (took, used time.Duration) {
	crlog.SetLogger(logr.Discard())
	st, err := boltstore.Open(b.TempDir()+"/db", boltstore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	srv, err := apiserver.New(st, apiserver.Options{Listen: []string{"127.0.0.1:0"}, DisableAdmission: []string{"ServiceAccount"}})
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	run := func(ctx context.Context, what string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
				b.Errorf("%s: %v", what, err)
			}
		})
	}
	srvCtx, stopServer := context.WithCancel(context.Background())
	ctx, cancel := context.WithCancel(context.Background())
	defer func() {
		cancel()
		stopServer()
		wg.Wait()
		if err := st.Close(); err != nil {
			b.Error(err)
		}
	}()
	run(srvCtx, "api server", srv.Run)
	if err := srv.WaitReady(ctx); err != nil {
		b.Fatal(err)
	}
	me := &user.DefaultInfo{Name: "system:kube-scheduler", Groups: []string{user.AllAuthenticated}}
	var own, creator client.Client = srv.Client(me), srv.Client(apiserver.Admin)
	var informers cache.Cache = srv.Cache(me)
	switch lane {
	case "inproc-single":
		own = struct{ client.Client }{own}
	case "https":
		own, informers = remote(b, srv, me)
		creator, _ = remote(b, srv, apiserver.Admin)
	}
	admin := srv.Client(apiserver.Admin)
	each(b, nodes, 16, func(i int) error {
		n := testNode(fmt.Sprint("n", i), fmt.Sprint("z", i%3))
		status := quantities("4", "32Gi", "pods", "110")
		if err := admin.Create(ctx, n); err != nil {
			return err
		}
		n.Status.Allocatable = status
		if err := admin.Status().Update(ctx, n); err != nil {
			return err
		}
		n.Spec.Taints = nil
		return admin.Update(ctx, n)
	})
	s, err := scheduler.New(own, informers, scheduler.Options{Profile: plugins.Default()})
	if err != nil {
		b.Fatal(err)
	}
	var bound atomic.Int64
	all := make(chan struct{})
	watch := srv.Cache(apiserver.Admin)
	inf, err := watch.GetInformer(ctx, &corev1.Pod{})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := inf.AddEventHandler(toolscache.ResourceEventHandlerFuncs{UpdateFunc: func(old, now any) {
		if old.(*corev1.Pod).Spec.NodeName == "" && now.(*corev1.Pod).Spec.NodeName != "" && bound.Add(1) == int64(pods) {
			close(all)
		}
	}}); err != nil {
		b.Fatal(err)
	}
	run(ctx, "cache", watch.Start)
	run(ctx, "scheduler's cache", informers.Start)
	run(ctx, "scheduler", s.Run)
	if !informers.WaitForCacheSync(ctx) || !watch.WaitForCacheSync(ctx) {
		b.Fatal("no sync")
	}
	start, before := time.Now(), cpuTime(b)
	each(b, pods, 50, func(i int) error {
		p := benchPod(i, mod)
		p.Namespace, p.UID = "default", ""
		p.Spec.Containers[0].Name, p.Spec.Containers[0].Image = "c", "c"
		return creator.Create(ctx, p)
	})
	select {
	case <-all:
	case <-time.After(2 * time.Minute):
		b.Fatalf("%d bound", bound.Load())
	}
	return time.Since(start), cpuTime(b) - before
}

// cpuTime is what the process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// remote is a client and a cache over TLS, with protobuf.
func remote(b *testing.B, srv *apiserver.Server, who user.Info) (client.Client, cache.Cache) {
	b.Helper()
	text, err := srv.Kubeconfig(who)
	if err != nil {
		b.Fatal(err)
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig(text)
	if err != nil {
		b.Fatal(err)
	}
	cfg = rest.CopyConfig(cfg)
	cfg.QPS, cfg.ContentType = -1, "application/vnd.kubernetes.protobuf"
	c, err := client.New(cfg, client.Options{Scheme: scheme.Scheme})
	if err != nil {
		b.Fatal(err)
	}
	informers, err := cache.New(cfg, cache.Options{Scheme: scheme.Scheme})
	if err != nil {
		b.Fatal(err)
	}
	return c, informers
}

// each calls f for 0 to n-1, some at once.
func each(b *testing.B, n, atOnce int, f func(int) error) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
