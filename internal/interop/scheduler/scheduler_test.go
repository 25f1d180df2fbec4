// Package scheduler tests Keelson's scheduler on kube-apiserver, and kube-scheduler on Keelson's API server.
package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/internal/interop/stock"
	"github.com/keelson/keelson/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const schedulerUser = "system:kube-scheduler"

// TestOnKubeAPIServer runs the example against an unmodified kube-apiserver, two of them: one leads, and when it ends the other takes over.
func TestOnKubeAPIServer(t *testing.T) {
	s := stock.APIServer(t, stock.APIServerOptions{Args: []string{"--disable-admission-plugins=ServiceAccount"}})
	dir := t.TempDir()
	binary, kubeconfig := filepath.Join(dir, "scheduler"), filepath.Join(dir, "kubeconfig")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/keelson/keelson/examples/scheduler").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	stock.WriteKubeconfig(t, kubeconfig, s.ConfigFor(t, schedulerUser))
	first := start(t, binary, "-kubeconfig", kubeconfig)
	k := newCluster(t, s.Config)
	k.places("default-scheduler")
	second := start(t, binary, "-kubeconfig", kubeconfig)
	first.stop(t)
	k.bound(k.pod("after", "100m", ""))
	second.stop(t)
}

// TestKubeScheduler runs an unmodified kube-scheduler, as it is by default, against Keelson's API server.
func TestKubeScheduler(t *testing.T) {
	srv := keelson(t)
	p := stock.Scheduler(t, stock.SchedulerOptions{Config: config(t, srv, &user.DefaultInfo{Name: schedulerUser})})
	k := newCluster(t, config(t, srv, apiserver.Admin))
	k.allocates()
	k.places("default-scheduler")
	p.Stop()
	for _, missing := range []string{"could not find the requested resource", "is forbidden", "Failed to watch"} {
		if strings.Contains(p.Log(), missing) {
			t.Errorf("kube-scheduler's log has %q:\n%s", missing, p.Log())
		}
	}
}

// keelson serves Keelson's API from memory until the test ends.
func keelson(t *testing.T) *apiserver.Server {
	t.Helper()
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	srv, err := apiserver.New(st, apiserver.Options{Listen: []string{"127.0.0.1:0"}, DisableAdmission: []string{"ServiceAccount"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	if err := srv.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return srv
}

// config reaches the server by its socket.
func config(t *testing.T, srv *apiserver.Server, who user.Info) *rest.Config {
	t.Helper()
	text, err := srv.Kubeconfig(who)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// process is a program that runs until it is stopped.
type process struct {
	cmd *exec.Cmd
	out *bytes.Buffer
}

func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...), out: &bytes.Buffer{}}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("%s:\n%s", strings.Join(p.cmd.Args, " "), p.out)
		}
	})
	return p
}

func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%s: %v", p.cmd.Path, err)
	}
}

type cluster struct {
	*testing.T
	client kubernetes.Interface
}

func newCluster(t *testing.T, cfg *rest.Config) *cluster {
	t.Helper()
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	k := &cluster{t, c}
	high := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 1000}
	_, err = c.SchedulingV1().PriorityClasses().Create(t.Context(), high, metav1.CreateOptions{})
	k.must(err)
	for _, zone := range []string{"a", "b"} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n" + zone, Labels: map[string]string{corev1.LabelTopologyZone: zone}}}
		n, err := c.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{})
		k.must(err)
		n.Status.Allocatable = corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("4Gi"), "pods": resource.MustParse("10")}
		n.Status.Capacity = n.Status.Allocatable
		_, err = c.CoreV1().Nodes().UpdateStatus(t.Context(), n, metav1.UpdateOptions{})
		k.must(err)
		_, err = c.CoreV1().Nodes().Patch(t.Context(), n.Name, "application/merge-patch+json", []byte(`{"spec":{"taints":null}}`), metav1.PatchOptions{})
		k.must(err)
	}
	return k
}

func (k *cluster) must(err error) {
	k.Helper()
	if err != nil {
		k.Fatal(err)
	}
}

func (k *cluster) pod(name, cpu, class string) *corev1.Pod {
	k.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "web"}}}
	p.Spec.PriorityClassName = class
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse(cpu)}}}}
	p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels},
	}}
	p, err := k.client.CoreV1().Pods("default").Create(k.Context(), p, metav1.CreateOptions{})
	k.must(err)
	return p
}

// wait polls a pod until ok says so.
func (k *cluster) wait(p *corev1.Pod, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	k.Helper()
	var last *corev1.Pod
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		got, err := k.client.CoreV1().Pods(p.Namespace).Get(k.Context(), p.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			got, err = nil, nil
		}
		k.must(err)
		if ok(got) {
			return got
		}
		last = got
	}
	k.Fatalf("%s: not %s: %+v", p.Name, what, last)
	return nil
}

func (k *cluster) bound(p *corev1.Pod) string {
	k.Helper()
	return k.wait(p, "bound", func(p *corev1.Pod) bool { return p.Spec.NodeName != "" }).Spec.NodeName
}

// allocates lets a claim be allocated, and reserved for its pod, on the node that has the device it selects.
func (k *cluster) allocates() {
	k.Helper()
	api := k.client.ResourceV1()
	_, err := api.DeviceClasses().Create(k.Context(), &resourcev1.DeviceClass{
		ObjectMeta: metav1.ObjectMeta{Name: "gpu"},
		Spec:       resourcev1.DeviceClassSpec{Selectors: []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: `device.driver == "gpu.example.com"`}}}},
	}, metav1.CreateOptions{})
	k.must(err)
	for node, model := range map[string]string{"na": "small", "nb": "large"} {
		_, err = api.ResourceSlices().Create(k.Context(), &resourcev1.ResourceSlice{
			ObjectMeta: metav1.ObjectMeta{Name: "gpus-" + node},
			Spec: resourcev1.ResourceSliceSpec{
				Driver: "gpu.example.com", NodeName: &node, Pool: resourcev1.ResourcePool{Name: node, ResourceSliceCount: 1},
				Devices: []resourcev1.Device{{Name: "gpu0", Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"model": {StringValue: &model}}}},
			},
		}, metav1.CreateOptions{})
		k.must(err)
	}
	claim := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "large"}}
	claim.Spec.Devices.Requests = []resourcev1.DeviceRequest{{Name: "gpu", Exactly: &resourcev1.ExactDeviceRequest{
		DeviceClassName: "gpu", Selectors: []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: `device.attributes["gpu.example.com"].model == "large"`}}},
	}}}
	_, err = api.ResourceClaims("default").Create(k.Context(), claim, metav1.CreateOptions{})
	k.must(err)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "claims"}}
	p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: &claim.Name}}
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "gpu"}}}}}
	p, err = k.client.CoreV1().Pods("default").Create(k.Context(), p, metav1.CreateOptions{})
	k.must(err)
	if node := k.bound(p); node != "nb" {
		k.Errorf("the pod is on node %s", node)
	}
	claim, err = api.ResourceClaims("default").Get(k.Context(), claim.Name, metav1.GetOptions{})
	k.must(err)
	if a := claim.Status.Allocation; a == nil || len(a.Devices.Results) != 1 || a.Devices.Results[0].Pool != "nb" || len(claim.Status.ReservedFor) != 1 || claim.Status.ReservedFor[0].UID != p.UID {
		k.Errorf("the claim's status is %+v", claim.Status)
	}
	zero := int64(0)
	k.must(k.client.CoreV1().Pods("default").Delete(k.Context(), p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}))
}

// places lets pods be placed: spread, refused where they don't fit, and preempting others, with the same words by either scheduler.
func (k *cluster) places(name string) {
	k.Helper()
	on := map[string]int{}
	for i := range 4 {
		on[k.bound(k.pod(fmt.Sprint("low", i), "800m", ""))]++
	}
	if on["na"] != 2 || on["nb"] != 2 {
		k.Errorf("pods on nodes: %v", on)
	}
	huge := k.pod("huge", "3", "")
	k.wait(huge, "refused", func(p *corev1.Pod) bool {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
				want := "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
				if c.Message != want {
					k.Fatalf("message %q, want %q", c.Message, want)
				}
				return true
			}
		}
		return false
	})
	high := k.pod("high", "1", "high")
	// Victims may be deleted a moment after the pod was nominated.
	k.wait(high, "bound", func(p *corev1.Pod) bool {
		k.evicted(name)
		return p.Spec.NodeName != ""
	})
}

// evicted ends the pods that are being deleted, as their kubelets would, and wants the words of preemption on them.
func (k *cluster) evicted(name string) {
	k.Helper()
	list, err := k.client.CoreV1().Pods("default").List(k.Context(), metav1.ListOptions{})
	k.must(err)
	zero := int64(0)
	want := name + ": preempting to accommodate a higher priority pod"
	for i := range list.Items {
		p := &list.Items[i]
		if p.DeletionTimestamp == nil {
			continue
		}
		found := false
		for _, c := range p.Status.Conditions {
			found = found || c.Type == corev1.DisruptionTarget && c.Reason == corev1.PodReasonPreemptionByScheduler && c.Message == want
		}
		if !found {
			k.Errorf("%s is a victim with conditions %+v", p.Name, p.Status.Conditions)
		}
		err := k.client.CoreV1().Pods("default").Delete(k.Context(), p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
		if !apierrors.IsNotFound(err) {
			k.must(err)
		}
	}
}
