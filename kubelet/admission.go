package kubelet

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	schedulingcorev1 "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/keelson/keelson/kubelet/internal/podstate"
)

// resources are what admitted pods asked for: thousandths of a core for cpu, whole units else, and the number of pods.
type resources struct {
	pods   int64
	amount map[corev1.ResourceName]int64
	ports  map[hostPort]int
}

type hostPort struct {
	ip       string
	protocol corev1.Protocol
	port     int32
}

func amounts(list corev1.ResourceList) map[corev1.ResourceName]int64 {
	out := make(map[corev1.ResourceName]int64, len(list))
	for name, q := range list {
		if name == corev1.ResourceCPU {
			out[name] = q.MilliValue()
		} else {
			out[name] = q.Value()
		}
	}
	return out
}

func podAmounts(pod *corev1.Pod) map[corev1.ResourceName]int64 {
	return amounts(resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}))
}

func hostPorts(pod *corev1.Pod) []hostPort {
	var out []hostPort
	each := func(c *corev1.Container) {
		for i := range c.Ports {
			if p := &c.Ports[i]; p.HostPort > 0 {
				protocol := p.Protocol
				if protocol == "" {
					protocol = corev1.ProtocolTCP
				}
				ip := p.HostIP
				if ip == "" || ip == "::" {
					ip = "0.0.0.0"
				}
				out = append(out, hostPort{ip, protocol, p.HostPort})
			}
		}
	}
	for i := range pod.Spec.InitContainers {
		if podstate.IsSidecar(&pod.Spec.InitContainers[i]) {
			each(&pod.Spec.InitContainers[i])
		}
	}
	for i := range pod.Spec.Containers {
		each(&pod.Spec.Containers[i])
	}
	return out
}

// admit decides if the node takes a pod. The record is locked.
func (k *Kubelet) admit(rec *record) {
	pod := rec.pod
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || pod.DeletionTimestamp != nil && pod.Status.StartTime == nil {
		// It asks for nothing any more.
		rec.admission = released
		return
	}
	k.mu.Lock()
	node := k.node
	k.mu.Unlock()
	k.admitMu.Lock()
	reason, message := k.fits(pod, node)
	k.admitMu.Unlock()
	if reason != "" {
		rec.admission = released
		rec.rejected = &podstate.Rejection{Reason: reason, Message: "Pod was rejected: " + message}
		k.events.pod(pod, "", corev1.EventTypeWarning, reason, message)
		return
	}
	k.take1(rec)
}

// take1 accounts for a pod that is admitted.
func (k *Kubelet) take1(rec *record) {
	k.admitMu.Lock()
	defer k.admitMu.Unlock()
	rec.admission = admitted
	k.used.add(rec.pod, 1)
}

func (k *Kubelet) release(rec *record) {
	k.admitMu.Lock()
	defer k.admitMu.Unlock()
	rec.admission = released
	k.used.add(rec.pod, -1)
}

func (r *resources) add(pod *corev1.Pod, sign int64) {
	if r.amount == nil {
		r.amount, r.ports = map[corev1.ResourceName]int64{}, map[hostPort]int{}
	}
	r.pods += sign
	for name, n := range podAmounts(pod) {
		r.amount[name] += sign * n
	}
	for _, p := range hostPorts(pod) {
		if r.ports[p] += int(sign); r.ports[p] == 0 {
			delete(r.ports, p)
		}
	}
}

// fits repeats the scheduler's checks, as a pod may have been bound by hand or in a race. The reasons and messages are those of
// Kubernetes.
func (k *Kubelet) fits(pod *corev1.Pod, node *corev1.Node) (reason, message string) {
	if pod.Spec.OS != nil && string(pod.Spec.OS.Name) != hostOS {
		return "PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"
	}
	for _, list := range [...][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			for _, r := range list[i].RestartPolicyRules {
				if r.Action != corev1.ContainerRestartRuleActionRestart {
					return "UnsupportedRestartRule", fmt.Sprintf("restart rule action %q of container %s is not supported by this node", r.Action, list[i].Name)
				}
			}
		}
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		return "UnexpectedAdmissionError", "resource claims are not supported by this node"
	}
	if pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers && !k.opts.Simulated {
		return "UnexpectedAdmissionError", "hostUsers: false is not supported by this node"
	}
	if reason, message := k.secures(pod); reason != "" {
		return reason, message
	}
	if k.used.pods+1 > k.opts.MaxPods {
		return "OutOfpods", outOf("pods", 1, k.used.pods, k.opts.MaxPods)
	}
	want, have := podAmounts(pod), amounts(node.Status.Allocatable)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		n := want[name]
		if n == 0 {
			continue
		}
		if used := k.used.amount[name]; used+n > have[name] {
			return "OutOf" + string(name), outOf(string(name), n, used, have[name])
		}
	}
	predicate := func(name, why string) (string, string) {
		return name, fmt.Sprintf("Predicate %s failed: %s", name, why)
	}
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); err != nil || !ok {
		return predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
	}
	for _, p := range hostPorts(pod) {
		for other := range k.used.ports {
			if p.port == other.port && p.protocol == other.protocol && (p.ip == other.ip || p.ip == "0.0.0.0" || other.ip == "0.0.0.0") {
				return predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports")
			}
		}
	}
	noExecute := func(t *corev1.Taint) bool { return t.Effect == corev1.TaintEffectNoExecute }
	if _, bad := schedulingcorev1.FindMatchingUntoleratedTaint(k.log, node.Spec.Taints, pod.Spec.Tolerations, noExecute, false); bad {
		return predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate")
	}
	return "", ""
}

func outOf(name string, requested, used, capacity int64) string {
	return fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, requested, used, capacity)
}
