//go:build linux

package e2e

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/controller/builtin"
	"github.com/keelson/keelson/kubelet"
	"github.com/keelson/keelson/kubelet/fakeruntime"
	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
	"github.com/keelson/keelson/store/memstore"
)

// runControlPlane starts what places pods and binds volumes, until the test ends.
func runControlPlane(t *testing.T, srv *apiserver.Server) {
	t.Helper()
	c, cache := srv.Client(apiserver.Admin), srv.Cache(apiserver.Admin)
	s, err := scheduler.New(c, cache, scheduler.Options{Profile: plugins.Default()})
	if err != nil {
		t.Fatal(err)
	}
	controllers, err := builtin.New(c, cache, builtin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 3)
	for _, run := range []func(context.Context) error{cache.Start, s.Run, controllers.Run} {
		go func() { ended <- run(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		for range 3 {
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
}

// hostname is what the node calls itself.
func hostname(t *testing.T, c client.Client) string {
	t.Helper()
	var n corev1.Node
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err := c.Get(t.Context(), client.ObjectKey{Name: "node-1"}, &n); err == nil && n.Labels[corev1.LabelHostname] != "" {
			return n.Labels[corev1.LabelHostname]
		}
	}
	t.Fatalf("the node has labels %v", n.Labels)
	return ""
}

// addLocalVolume makes a volume in a directory of the node, a class without provisioner, and a claim that waits for its first consumer.
func addLocalVolume(t *testing.T, c client.Client, dir string) {
	t.Helper()
	late, class := storagev1.VolumeBindingWaitForFirstConsumer, "local"
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "disk"}, Spec: corev1.PersistentVolumeSpec{
		StorageClassName: class, Capacity: size, AccessModes: modes,
		PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: dir}},
		NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{hostname(t, c)}}},
		}}}},
	}}
	for _, o := range []client.Object{
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: class}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: &late}, pv,
		&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class, AccessModes: modes, Resources: corev1.VolumeResourceRequirements{Requests: size},
		}},
	} {
		if err := c.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
}

// claiming is a pod for any node that mounts the claim.
func claiming(name string, args ...string) *corev1.Pod {
	p := pod(name, args...)
	p.Spec.NodeName = ""
	p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	return p
}

// TestLocalVolume schedules a pod by its claim, binds that, and runs it with the volume mounted.
func TestLocalVolume(t *testing.T) {
	m := start(t)
	runControlPlane(t, m.srv)
	dir := filepath.Join(m.dir, "disk")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	addLocalVolume(t, m.client, dir)
	m.create(claiming("writer", "write /data/f kept", "exit 0"))
	m.wait("writer", "succeeded", phase(corev1.PodSucceeded))
	if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || strings.TrimSpace(string(got)) != "kept" {
		t.Errorf("%q, %v", got, err)
	}
	m.create(claiming("reader", "cat /data/f", "exit 0"))
	m.wait("reader", "succeeded", phase(corev1.PodSucceeded))
	if got := m.log("reader"); strings.TrimSpace(got) != "kept" {
		t.Errorf("read %q", got)
	}
}

// TestLocalVolumeSimulated does the same on the runtime that only pretends.
func TestLocalVolumeSimulated(t *testing.T) {
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := apiserver.New(st, apiserver.Options{DisableAdmission: []string{"ServiceAccount"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 3)
	go func() { ended <- srv.Run(ctx) }()
	if err := srv.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	rt, err := fakeruntime.New(fakeruntime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c, cache := srv.Client(apiserver.Admin), srv.Cache(apiserver.Admin)
	k, err := kubelet.New(c, cache, rt, rt, kubelet.Options{NodeName: "node-1", RootDir: filepath.Join(dir, "kubelet"), NodeIPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- cache.Start(ctx) }()
	go func() { ended <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 3 {
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	runControlPlane(t, srv)
	disk := filepath.Join(dir, "disk")
	if err := os.MkdirAll(disk, 0o777); err != nil {
		t.Fatal(err)
	}
	addLocalVolume(t, c, disk)
	p := claiming("runs")
	p.Spec.Containers[0].ImagePullPolicy = corev1.PullIfNotPresent
	p.Spec.RestartPolicy = corev1.RestartPolicyAlways
	if err := c.Create(ctx, p); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); p.Status.Phase != corev1.PodRunning; time.Sleep(20 * time.Millisecond) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(p), p); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", p.Status)
		}
	}
	var claim corev1.PersistentVolumeClaim
	if err := c.Get(ctx, client.ObjectKey{Namespace: "default", Name: "data"}, &claim); err != nil || claim.Spec.VolumeName != "disk" || claim.Status.Phase != corev1.ClaimBound {
		t.Errorf("%+v, %v", claim.Status, err)
	}
}
