package kubelet

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/kubelet/internal/criconfig"
	"github.com/keelson/keelson/kubelet/internal/podstate"
)

// do carries out one action of a pod. A failure without a reason is that of an action that was cancelled.
func (k *Kubelet) do(ctx context.Context, rec *record, pod *corev1.Pod, gone bool, a podstate.Action) *podstate.Failure {
	var err error
	switch a.Kind {
	case podstate.PrepareVolumes:
		if k.volumes != nil && !gone {
			if err = k.volumes.Prepare(ctx, k.volumeInput(rec, pod)); err != nil && ctx.Err() == nil {
				k.events.pod(pod, "", corev1.EventTypeWarning, "FailedMount", err.Error())
			}
		}
	case podstate.CreateSandbox:
		if err = k.createSandbox(ctx, pod, a.Attempt); err != nil && ctx.Err() == nil {
			k.events.pod(pod, "", corev1.EventTypeWarning, "FailedCreatePodSandBox", fmt.Sprintf("Failed to create pod sandbox: %v", err))
		}
	case podstate.StopSandbox:
		if err = k.runtime.StopPodSandbox(ctx, a.SandboxID); err != nil && ctx.Err() == nil {
			k.events.pod(pod, "", corev1.EventTypeWarning, "FailedKillPod", fmt.Sprintf("error killing pod: %v", err))
		}
	case podstate.RemoveSandbox:
		err = k.runtime.RemovePodSandbox(ctx, a.SandboxID)
	case podstate.StartContainer:
		return k.startContainer(ctx, rec, pod, a)
	case podstate.StopContainer:
		err = k.stopContainer(ctx, rec, pod, a)
	case podstate.RemoveContainer:
		err = k.runtime.RemoveContainer(ctx, a.ContainerID)
	case podstate.CleanUp:
		if k.volumes != nil {
			err = k.volumes.CleanUp(ctx, rec.uid)
		}
	case podstate.DeletePod:
		err = k.client.Delete(ctx, &corev1.Pod{ObjectMeta: pod.ObjectMeta}, client.GracePeriodSeconds(0), client.Preconditions{UID: &pod.UID})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			err = nil
		}
	}
	if err != nil {
		switch {
		case ctx.Err() != nil:
		case a.Kind == podstate.PrepareVolumes, a.Kind == podstate.CreateSandbox, a.Kind == podstate.StopSandbox:
			// The pod has an event that says so.
			k.log.V(1).Info("Working on a pod failed", "pod", pod.Namespace+"/"+pod.Name, "action", a.Kind.String(), "err", err.Error())
		default:
			k.log.Error(err, "Working on a pod", "pod", pod.Namespace+"/"+pod.Name, "action", a.Kind.String())
		}
		return &podstate.Failure{Message: err.Error()}
	}
	return nil
}

func (k *Kubelet) createSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32) error {
	config, err := k.sandboxConfig(pod, attempt)
	if err != nil {
		return err
	}
	if err := k.makeLogDirectory(pod); err != nil {
		return err
	}
	handler, err := k.runtimeHandler(ctx, pod)
	if err != nil {
		return err
	}
	start := k.clock.Now()
	_, err = k.runtime.RunPodSandbox(ctx, config, handler)
	k.metrics.operation("run_podsandbox", k.clock.Since(start), err)
	return err
}

func (k *Kubelet) sandboxConfig(pod *corev1.Pod, attempt uint32) (*runtimeapi.PodSandboxConfig, error) {
	hostname, err := criconfig.Hostname(pod, k.opts.ClusterDomain, k.opts.Hostname)
	if err != nil {
		return nil, err
	}
	s := criconfig.Sandbox{Pod: pod, Attempt: attempt, LogRoot: k.logRoot(), Annotations: map[string]string{AnnotationRestartPolicy: string(pod.Spec.RestartPolicy)}}
	if !k.opts.Simulated {
		var dropped string
		s.DNS, dropped = criconfig.DNS(pod, k.hostDNS(), k.opts.ClusterDNS, k.opts.ClusterDomain)
		if dropped != "" {
			k.events.pod(pod, "", corev1.EventTypeWarning, "DNSConfigForming", dropped)
		}
	}
	if k.opts.CgroupParent != "" {
		s.CgroupParent = k.opts.CgroupParent + "/pod" + string(pod.UID)
	}
	return s.Config(hostname), nil
}

// stopContainer runs the preStop hook and stops the container, both within the grace period.
func (k *Kubelet) stopContainer(ctx context.Context, rec *record, pod *corev1.Pod, a podstate.Action) error {
	k.events.pod(pod, a.Container, corev1.EventTypeNormal, "Killing", a.Message)
	start := k.clock.Now()
	grace := a.Grace
	if c := findContainer(pod, a.Container); c != nil && c.Lifecycle != nil && c.Lifecycle.PreStop != nil && grace > 0 {
		hookCtx, cancel := k.withTimeout(ctx, grace)
		err := k.runHook(hookCtx, rec, pod, c, a.ContainerID, c.Lifecycle.PreStop, "PreStop")
		cancel()
		if err != nil && ctx.Err() == nil {
			k.events.pod(pod, a.Container, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
			k.log.Error(err, "preStop hook", "pod", rec.uid, "container", a.Container)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		grace = max(grace-k.clock.Since(start), min(a.Grace, 2*time.Second))
	}
	err := k.runtime.StopContainer(ctx, a.ContainerID, int64(math.Ceil(grace.Seconds())))
	k.metrics.operation("stop_container", k.clock.Since(start), err)
	return err
}

// withTimeout is context.WithTimeout by the kubelet's clock.
func (k *Kubelet) withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := k.clock.NewTimer(d)
	stop := make(chan struct{})
	k.operations.Go(func() {
		defer timer.Stop()
		select {
		case <-timer.C():
			cancel(context.DeadlineExceeded)
		case <-ctx.Done():
		case <-stop:
		}
	})
	return ctx, func() {
		close(stop)
		cancel(context.Canceled)
	}
}

func findContainer(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [...][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
			return &c
		}
	}
	return nil
}

func role(pod *corev1.Pod, name string) string {
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.Name == name {
			if podstate.IsSidecar(c) {
				return "sidecar"
			}
			return "init"
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return "ephemeral"
		}
	}
	return "main"
}

var errNoContainer = errors.New("the pod's spec has no such container")
