package kubelet

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/kubelet/internal/criconfig"
	"github.com/keelson/keelson/kubelet/internal/env"
	"github.com/keelson/keelson/kubelet/internal/images"
	"github.com/keelson/keelson/kubelet/internal/podstate"
)

// startContainer pulls the image, makes the container, starts it and runs its postStart hook.
func (k *Kubelet) startContainer(ctx context.Context, rec *record, pod *corev1.Pod, a podstate.Action) *podstate.Failure {
	c := findContainer(pod, a.Container)
	if c == nil {
		return &podstate.Failure{Reason: podstate.ReasonCreateConfigError, Message: errNoContainer.Error()}
	}
	event := func(kind, reason, message string) {
		if ctx.Err() == nil {
			k.events.pod(pod, c.Name, kind, reason, message)
		}
	}
	fail := func(reason string, err error) *podstate.Failure {
		if ctx.Err() != nil {
			return &podstate.Failure{}
		}
		// What a runtime says is told without the wrapping of its transport.
		message := status.Convert(err).Message()
		event(corev1.EventTypeWarning, "Failed", "Error: "+message)
		return &podstate.Failure{Reason: reason, Message: message}
	}
	// The sandbox's configuration is the one it was made with.
	sandbox := k.sandbox(rec, a.SandboxID)
	if sandbox == nil {
		return &podstate.Failure{}
	}
	sandboxConfig, err := k.sandboxConfig(pod, sandbox.Attempt)
	if err != nil {
		return fail(podstate.ReasonCreateConfigError, err)
	}
	image, ferr := k.images.Ensure(ctx, images.Request{Image: c.Image, Policy: c.ImagePullPolicy, Namespace: pod.Namespace, Secrets: k.pullSecrets(pod), Sandbox: sandboxConfig},
		event)
	if ferr != nil {
		if ctx.Err() != nil {
			return &podstate.Failure{}
		}
		event(corev1.EventTypeWarning, "Failed", "Error: "+ferr.Reason)
		return &podstate.Failure{Reason: ferr.Reason, Message: ferr.Message}
	}
	config, err := k.containerConfig(ctx, rec, pod, c, a, image, sandbox)
	if err != nil {
		return fail(podstate.ReasonCreateConfigError, err)
	}
	start := k.clock.Now()
	id, err := k.runtime.CreateContainer(ctx, a.SandboxID, config, sandboxConfig)
	k.metrics.operation("create_container", k.clock.Since(start), err)
	if err != nil {
		return fail(podstate.ReasonCreateError, err)
	}
	event(corev1.EventTypeNormal, "Created", "Container created")
	if l, ok := k.runtime.(LimitService); ok {
		if missing := l.Unenforced(sandboxConfig, config); len(missing) > 0 {
			event(corev1.EventTypeWarning, "NotEnforced", "This node cannot enforce "+strings.Join(missing, ", "))
		}
	}
	start = k.clock.Now()
	err = k.runtime.StartContainer(ctx, id)
	k.metrics.operation("start_container", k.clock.Since(start), err)
	if err != nil {
		return fail(podstate.ReasonRunError, err)
	}
	event(corev1.EventTypeNormal, "Started", "Container started")
	k.metrics.started()
	if c.Lifecycle != nil && c.Lifecycle.PostStart != nil {
		if err := k.runHook(ctx, rec, pod, c, id, c.Lifecycle.PostStart, "PostStart"); err != nil {
			if ctx.Err() != nil {
				return &podstate.Failure{}
			}
			event(corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed")
			stop := podstate.Action{Container: c.Name, ContainerID: id, Grace: grace(pod), Message: "FailedPostStartHook"}
			if e := k.stopContainer(ctx, rec, pod, stop); e != nil {
				k.log.Error(e, "Stopping a container whose postStart hook failed", "pod", pod.Name, "container", c.Name)
			}
			return &podstate.Failure{Reason: podstate.ReasonPostStartHookError, Message: "PostStartHook failed: " + err.Error()}
		}
	}
	if a.Attempt > 1 {
		k.removeOld(ctx, rec, c.Name, a.Attempt)
	}
	return nil
}

// removeOld leaves of the containers that exited before only the last one, for its status and logs.
func (k *Kubelet) removeOld(ctx context.Context, rec *record, name string, attempt uint32) {
	rec.mu.Lock()
	var old []string
	for i := range rec.containers {
		if c := &rec.containers[i]; c.Name == name && c.State == podstate.Exited && c.Attempt+1 < attempt {
			old = append(old, c.ID)
		}
	}
	pod := rec.pod
	rec.mu.Unlock()
	for _, id := range old {
		if err := k.runtime.RemoveContainer(ctx, id); err != nil {
			k.log.Error(err, "Removing an old container", "id", id)
		}
	}
	if !k.opts.Simulated && attempt > 1 {
		k.removeContainerLogs(pod, name, attempt-1)
	}
}

func (k *Kubelet) sandbox(rec *record, id string) *podstate.Sandbox {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if s := findSandbox(rec.sandboxes, id); s != nil {
		x := *s
		return &x
	}
	return nil
}

func grace(pod *corev1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return 30 * time.Second
}

func (k *Kubelet) containerConfig(ctx context.Context, rec *record, pod *corev1.Pod, c *corev1.Container, a podstate.Action, image images.Image, sandbox *podstate.Sandbox) (*runtimeapi.ContainerConfig, error) {
	input := criconfig.Container{
		Pod: pod, Container: c, Attempt: a.Attempt, ImageRef: image.Ref, ImageUID: image.UID, ImageUser: image.User,
		MemoryCapacity: k.memoryCapacity(), WithLog: true, QOS: podstate.QOS(pod),
		Annotations: map[string]string{AnnotationContainerRole: role(pod, c.Name)},
	}
	for i := range pod.Spec.EphemeralContainers {
		if e := &pod.Spec.EphemeralContainers[i]; e.Name == c.Name && e.TargetContainerName != "" {
			id, err := k.runningID(rec, e.TargetContainerName)
			if err != nil {
				return nil, err
			}
			input.TargetID = id
		}
	}
	if k.opts.Simulated {
		return input.Config()
	}
	podIPs := sandbox.IPs
	if pod.Spec.HostNetwork {
		podIPs = k.hostIPs
	}
	vars, err := env.Make(ctx, env.Input{Pod: pod, Container: c, PodIPs: podIPs, HostIPs: k.hostIPs, Allocatable: k.allocatable()}, k.objects)
	if err != nil {
		return nil, err
	}
	if !hasVar(vars, "HOSTNAME") {
		hostname, err := criconfig.Hostname(pod, k.opts.ClusterDomain, k.opts.Hostname)
		if err != nil {
			return nil, err
		}
		vars = append([]env.Var{{Name: "HOSTNAME", Value: hostname}}, vars...)
	}
	input.Env = vars
	if input.Mounts, err = k.mounts(rec, pod, c, a.Attempt, vars, podIPs); err != nil {
		return nil, err
	}
	return input.Config()
}

func hasVar(vars []env.Var, name string) bool {
	for i := range vars {
		if vars[i].Name == name {
			return true
		}
	}
	return false
}

func (k *Kubelet) runningID(rec *record, name string) (string, error) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for i := range rec.containers {
		if c := &rec.containers[i]; c.Name == name && c.State == podstate.Running {
			return c.ID, nil
		}
	}
	return "", fmt.Errorf("unable to find target container %s", name)
}

func (k *Kubelet) pullSecrets(pod *corev1.Pod) []string {
	var out []string
	for _, s := range pod.Spec.ImagePullSecrets {
		out = append(out, s.Name)
	}
	return out
}

// runtimeHandler is the handler of the pod's RuntimeClass.
func (k *Kubelet) runtimeHandler(ctx context.Context, pod *corev1.Pod) (string, error) {
	name := pod.Spec.RuntimeClassName
	if name == nil || *name == "" {
		return "", nil
	}
	var rc nodev1.RuntimeClass
	if err := k.client.Get(ctx, client.ObjectKey{Name: *name}, &rc); err != nil {
		return "", fmt.Errorf("RuntimeClass %q: %w", *name, err)
	}
	return rc.Handler, nil
}

func addressStrings(list []netip.Addr) []string {
	out := make([]string, len(list))
	for i := range list {
		out[i] = list[i].String()
	}
	return out
}
