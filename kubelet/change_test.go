package kubelet_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/kubelet"
	"github.com/keelson/keelson/kubelet/fakeruntime"
)

func TestEphemeralContainers(t *testing.T) {
	simulated(t, func(h *harness) {
		h.run(kubelet.Options{})
		h.create(newPod("p"))
		before := h.pod("p").Status.ContainerStatuses[0]
		p := h.pod("p")
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "busybox:1"}, TargetContainerName: "app"}}
		if err := h.client.Update(h.ctx, p); err != nil {
			t.Fatal(err)
		}
		h.settle()
		p = h.pod("p")
		es := p.Status.EphemeralContainerStatuses
		if len(es) != 1 || es[0].State.Running == nil {
			t.Fatalf("%+v", es)
		}
		if diff := cmp.Diff(before, p.Status.ContainerStatuses[0]); diff != "" {
			t.Errorf("the target changed: %s", diff)
		}
		// It is never restarted.
		if err := h.rt.StopContainer(h.ctx, strings.TrimPrefix(es[0].ContainerID, "fake://"), 0); err != nil {
			t.Fatal(err)
		}
		h.pass(time.Minute)
		if es = h.pod("p").Status.EphemeralContainerStatuses; es[0].State.Terminated == nil || es[0].RestartCount != 0 {
			t.Errorf("%+v", es)
		}
		if ph := h.pod("p").Status.Phase; ph != corev1.PodRunning {
			t.Error(ph)
		}
	})
}

func TestSandboxLoss(t *testing.T) {
	simulated(t, func(h *harness) {
		h.run(kubelet.Options{})
		h.create(newPod("p"))
		h.create(newPod("never", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }))
		ip := h.pod("p").Status.PodIP
		list, _ := h.rt.ListPodSandbox(h.ctx, nil)
		for _, s := range list {
			if err := h.rt.StopPodSandbox(h.ctx, s.Id); err != nil {
				t.Fatal(err)
			}
		}
		h.pass(15 * time.Second)
		p := h.pod("p")
		if p.Status.Phase != corev1.PodRunning || p.Status.ContainerStatuses[0].RestartCount != 1 || p.Status.PodIP == ip || p.Status.PodIP == "" {
			t.Errorf("%+v", p.Status)
		}
		h.hasEvent("p", "SandboxChanged Pod sandbox changed, it will be killed and re-created.")
		if p = h.pod("never"); p.Status.Phase != corev1.PodFailed {
			t.Errorf("%+v", p.Status)
		}
	})
}

func TestImageChangeRestarts(t *testing.T) {
	simulated(t, func(h *harness) {
		h.run(kubelet.Options{})
		h.create(newPod("p"))
		p := h.pod("p")
		p.Spec.Containers[0].Image = "registry.example/app:2"
		if err := h.client.Update(h.ctx, p); err != nil {
			t.Fatal(err)
		}
		h.settle()
		cs := h.pod("p").Status.ContainerStatuses[0]
		if cs.Image != "registry.example/app:2" || cs.RestartCount != 1 || cs.State.Running == nil {
			t.Errorf("%+v", cs)
		}
		h.hasEvent("p", "Killing Container app definition changed, will be restarted")
	})
}

func TestRuntimeDown(t *testing.T) {
	simulated(t, func(h *harness) {
		broken := &brokenRuntime{Runtime: h.rt}
		k, err := kubelet.New(h.client, h.cache, broken, h.rt, kubelet.Options{NodeName: "n1", Simulated: true, DisableServer: true})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(h.ctx)
		ended := make(chan error, 1)
		go func() { ended <- k.Run(ctx) }()
		ready := func() string {
			node := &corev1.Node{}
			if err := h.client.Get(h.ctx, client.ObjectKey{Name: "n1"}, node); err != nil {
				t.Fatal(err)
			}
			for _, c := range node.Status.Conditions {
				if c.Type == corev1.NodeReady {
					return fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message)
				}
			}
			return ""
		}
		h.pass(time.Second)
		if got := ready(); got != "True KubeletReady kubelet is posting ready status" {
			t.Error(got)
		}
		broken.down.Store(true)
		h.pass(11 * time.Second)
		if got := ready(); got != "False KubeletNotReady container runtime is down: no answer" {
			t.Error(got)
		}
		broken.down.Store(false)
		h.pass(11 * time.Second)
		if got := ready(); got != "True KubeletReady kubelet is posting ready status" {
			t.Error(got)
		}
		h.hasEvent("n1", "NodeNotReady Node n1 status is now: NodeNotReady")
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// silentRuntime answers that it has no events, as a CRI runtime may.
type silentRuntime struct{ *fakeruntime.Runtime }

func (silentRuntime) GetContainerEvents(context.Context, chan<- *runtimeapi.ContainerEventResponse) error {
	return status.Error(codes.Unimplemented, "no events")
}

func TestPolling(t *testing.T) {
	simulated(t, func(h *harness) {
		silent := silentRuntime{h.rt}
		k, err := kubelet.New(h.client, h.cache, silent, h.rt, kubelet.Options{NodeName: "n1", Simulated: true, DisableServer: true})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(h.ctx)
		ended := make(chan error, 1)
		go func() { ended <- k.Run(ctx) }()
		h.settle()
		h.create(newPod("p", annotate("run-time", "1m"), func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }))
		if p := h.pod("p"); p.Status.Phase != corev1.PodRunning {
			t.Errorf("%+v", p.Status)
		}
		h.pass(62 * time.Second)
		if p := h.pod("p"); p.Status.Phase != corev1.PodSucceeded {
			t.Errorf("%+v", p.Status)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// brokenRuntime stops answering when told.
type brokenRuntime struct {
	*fakeruntime.Runtime
	down atomic.Bool
}

func (b *brokenRuntime) Status(ctx context.Context, verbose bool) (*runtimeapi.StatusResponse, error) {
	if b.down.Load() {
		return nil, errors.New("no answer")
	}
	return b.Runtime.Status(ctx, verbose)
}
