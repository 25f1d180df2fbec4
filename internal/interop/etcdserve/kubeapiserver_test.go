package etcdserve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"

	"github.com/keelson/keelson/apiserver/auth/ca"
	"github.com/keelson/keelson/internal/interop/stock"
	"github.com/keelson/keelson/store/etcdserve"
	"github.com/keelson/keelson/store/etcdserve/etcdservetest"
)

// quick makes what usually takes minutes happen during a test.
func quick() []string {
	return []string{"--event-ttl=3s", "--etcd-compaction-interval=2s", "--disable-admission-plugins=ServiceAccount"}
}

// An unmodified kube-apiserver runs on a store in memory and on one in a file.
func TestKubeAPIServer(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		url, _ := etcdservetest.Serve(t, newMem(t), etcdserve.Options{})
		s := stock.APIServer(t, stock.APIServerOptions{Etcd: []string{url}, Args: quick()})
		exercise(t, s, url)
	})
	t.Run("bolt", func(t *testing.T) {
		p := serveBolt(t)
		s := stock.APIServer(t, stock.APIServerOptions{Etcd: []string{p.url}, Args: quick()})
		exercise(t, s, p.url)
		crash(t, s, p)
	})
}

// An API server and its store know each other by certificates.
func TestKubeAPIServerTLS(t *testing.T) {
	dir := t.TempDir()
	authority, err := ca.New(ca.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Client("kube-apiserver")
	if err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key")
	if err := errors.Join(os.WriteFile(cert, pair.CertificatePEM, 0o600), os.WriteFile(key, pair.KeyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	url, _ := etcdservetest.Serve(t, newMem(t), etcdserve.Options{TLS: &tls.Config{
		GetCertificate: authority.ServingTLS("etcd", "127.0.0.1"), ClientCAs: authority.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
	}})
	s := stock.APIServer(t, stock.APIServerOptions{
		Etcd: []string{url}, EtcdCA: filepath.Join(dir, ca.CertificateFile), EtcdCert: cert, EtcdKey: key, Args: quick(),
	})
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m"}}
	if _, err := clientset(t, s).CoreV1().ConfigMaps("default").Create(t.Context(), m, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
}

func clientset(t *testing.T, s *stock.Server) kubernetes.Interface {
	t.Helper()
	c, err := kubernetes.NewForConfig(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// exercise does what clients of an API server do, and what an API server does to its etcd.
func exercise(t *testing.T, s *stock.Server, url string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := clientset(t, s)
	maps := c.CoreV1().ConfigMaps("default")
	list, err := maps.List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion, AllowWatchBookmarks: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for i := range 7 {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("m", i)}, Data: map[string]string{"k": "0"}}
		if _, err := maps.Create(ctx, m, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m1"}}, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("a second m1: %v", err)
	}
	first, err := maps.Get(ctx, "m1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	patched, err := maps.Patch(ctx, "m1", types.StrategicMergePatchType, []byte(`{"data":{"k":"1"}}`), metav1.PatchOptions{})
	if err != nil || patched.Data["k"] != "1" {
		t.Fatalf("%v, %v", patched, err)
	}
	if _, err := maps.Update(ctx, first, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("a stale update: %v", err)
	}
	patched.Data["k"] = "2"
	if _, err := maps.Update(ctx, patched, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := maps.Delete(ctx, "m1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	got := ""
	for n := 0; n < 10; {
		select {
		case ev := <-w.ResultChan():
			m, ok := ev.Object.(*corev1.ConfigMap)
			if !ok {
				t.Fatalf("the watch has %+v", ev)
			}
			if strings.HasPrefix(m.Name, "m") {
				got += fmt.Sprintf("%s %s=%s; ", ev.Type, m.Name, m.Data["k"])
				n++
			}
		case <-ctx.Done():
			t.Fatalf("the watch has only %s", got)
		}
	}
	if want := "ADDED m0=0; ADDED m1=0; ADDED m2=0; ADDED m3=0; ADDED m4=0; ADDED m5=0; ADDED m6=0; MODIFIED m1=1; MODIFIED m1=2; DELETED m1=2; "; got != want {
		t.Errorf("the watch has %s\nwant %s", got, want)
	}
	// Pages are of one revision.
	var names []string
	for opts := (metav1.ListOptions{Limit: 2}); ; {
		page, err := maps.List(ctx, opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.Items {
			names = append(names, m.Name)
		}
		if len(names) == 2 {
			if err := maps.Delete(ctx, "m6", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			break
		}
	}
	if got := strings.Join(names, " "); !strings.Contains(got, "m0 m2 m3 m4 m5 m6") {
		t.Errorf("in pages there are %s", got)
	}
	if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if list, err := maps.List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) > 1 { // kube-root-ca.crt may come back
		t.Errorf("after the deletion of all there are %d, %v", len(list.Items), err)
	}
	expires(ctx, t, c)
	compacts(ctx, t, c, url)
}

// expires checks that an event goes when its lease ends.
func expires(ctx context.Context, t *testing.T, c kubernetes.Interface) {
	t.Helper()
	events := c.CoreV1().Events("default")
	w, err := events.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=passing"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	start := time.Now()
	if _, err := events.Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "passing"}, InvolvedObject: corev1.ObjectReference{Namespace: "default"},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case ev := <-w.ResultChan():
			if ev.Type == watch.Deleted {
				if took := time.Since(start); took < 2500*time.Millisecond || took > 20*time.Second {
					t.Errorf("an event of 3 seconds has gone after %v", took)
				}
				return
			}
		case <-ctx.Done():
			t.Fatal("an event does not expire")
		}
	}
}

// compacts checks that the API server's compactor does its work.
func compacts(ctx context.Context, t *testing.T, c kubernetes.Interface, url string) {
	t.Helper()
	e := client(t, url)
	for {
		_, err := e.Get(ctx, "/registry/", clientv3.WithPrefix(), clientv3.WithRev(2), clientv3.WithCountOnly())
		if errors.Is(err, rpctypes.ErrCompacted) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	// Of events kube-apiserver keeps nothing in memory.
	_, err := c.CoreV1().Events("").List(ctx, metav1.ListOptions{ResourceVersion: "2", ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	if !apierrors.IsResourceExpired(err) {
		t.Errorf("a list of a compacted revision: %v", err)
	}
}

// crash kills the server of the store again and again while objects are created. None whose creation was
// acknowledged is lost, and an informer that was there all the time has what there is in the end.
func crash(t *testing.T, s *stock.Server, p *process) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c := clientset(t, s)
	ns := "crash"
	if _, err := c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(c, 0, informers.WithNamespace(ns))
	informer := factory.Core().V1().ConfigMaps()
	informer.Informer()
	factory.Start(ctx.Done())
	defer func() {
		cancel()
		factory.Shutdown()
	}()
	factory.WaitForCacheSync(ctx.Done())
	var mu sync.Mutex
	acknowledged := map[string]string{}
	var wg sync.WaitGroup
	working, stop := context.WithCancel(ctx)
	for i := range 4 {
		wg.Go(func() {
			for n := 0; working.Err() == nil; n++ {
				m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("c%d-%d", i, n)}}
				attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
				out, err := c.CoreV1().ConfigMaps(ns).Create(attempt, m, metav1.CreateOptions{})
				cancel()
				if err != nil {
					time.Sleep(20 * time.Millisecond)
					continue
				}
				mu.Lock()
				acknowledged[out.Name] = out.ResourceVersion
				mu.Unlock()
			}
		})
	}
	for range 6 {
		mu.Lock()
		before := len(acknowledged)
		mu.Unlock()
		for made := 0; made < 30; { // something is written between two crashes
			if ctx.Err() != nil {
				t.Fatal("the API server does not come back")
			}
			time.Sleep(10 * time.Millisecond)
			mu.Lock()
			made = len(acknowledged) - before
			mu.Unlock()
		}
		p.kill()
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	wg.Wait()
	var list *corev1.ConfigMapList
	var err error
	for {
		if list, err = c.CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{}); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	there := map[string]string{}
	for _, m := range list.Items {
		there[m.Name] = m.ResourceVersion
	}
	for name, rv := range acknowledged {
		if there[name] != rv {
			t.Errorf("%s was created at %s, and is at %q", name, rv, there[name])
		}
	}
	for {
		have := map[string]string{}
		for _, m := range informer.Informer().GetStore().List() {
			m := m.(*corev1.ConfigMap)
			have[m.Name] = m.ResourceVersion
		}
		if maps.Equal(have, there) {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("the informer has %d objects, of %d: %v", len(have), len(there), slices.Sorted(maps.Keys(have)))
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("%d creations acknowledged, %d objects", len(acknowledged), len(there))
}
