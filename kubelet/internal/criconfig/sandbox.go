package criconfig

import (
	"fmt"
	"maps"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// Sandbox is what a sandbox's configuration depends on beside the pod.
type Sandbox struct {
	Pod     *corev1.Pod
	Attempt uint32
	// LogRoot holds the directories of pods' logs; none are named if it is empty.
	LogRoot      string
	DNS          *runtimeapi.DNSConfig
	CgroupParent string
	// Annotations are added to the pod's own.
	Annotations map[string]string
}

// LogDirectory is where a pod's logs are, by Kubernetes' layout.
func LogDirectory(root string, pod *corev1.Pod) string {
	if root == "" {
		return ""
	}
	return filepath.Join(root, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// LogPath is the path of a container's log in its pod's directory.
func LogPath(container string, attempt uint32) string {
	return filepath.Join(container, fmt.Sprintf("%d.log", attempt))
}

// Hostname is the name a pod has for itself.
func Hostname(pod *corev1.Pod, clusterDomain, nodeHostname string) (string, error) {
	if pod.Spec.HostNetwork {
		return nodeHostname, nil
	}
	if h := pod.Spec.HostnameOverride; h != nil {
		return *h, nil
	}
	name := pod.Name
	if pod.Spec.Hostname != "" {
		name = pod.Spec.Hostname
	}
	if len(name) > 63 {
		name = strings.TrimRight(name[:63], "-.")
		if name == "" {
			return "", fmt.Errorf("hostname for pod was invalid: %q", pod.Name)
		}
	}
	if pod.Spec.SetHostnameAsFQDN != nil && *pod.Spec.SetHostnameAsFQDN {
		if domain := Domain(pod, clusterDomain); domain != "" {
			fqdn := name + "." + domain
			if len(fqdn) > 64 {
				return "", fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (64 characters is the max, %d characters requested)", fqdn, len(fqdn))
			}
			return fqdn, nil
		}
	}
	return name, nil
}

// Domain is the domain of a pod that has a subdomain.
func Domain(pod *corev1.Pod, clusterDomain string) string {
	if pod.Spec.Subdomain == "" || pod.Spec.HostNetwork {
		return ""
	}
	return fmt.Sprintf("%s.%s.svc.%s", pod.Spec.Subdomain, pod.Namespace, clusterDomain)
}

// PodLabels are the labels by which a sandbox is found again.
func PodLabels(pod *corev1.Pod) map[string]string {
	l := make(map[string]string, len(pod.Labels)+3)
	maps.Copy(l, pod.Labels)
	l[kubelettypes.KubernetesPodNameLabel] = pod.Name
	l[kubelettypes.KubernetesPodNamespaceLabel] = pod.Namespace
	l[kubelettypes.KubernetesPodUIDLabel] = string(pod.UID)
	return l
}

// Config makes the sandbox's configuration.
func (s Sandbox) Config(hostname string) *runtimeapi.PodSandboxConfig {
	pod := s.Pod
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: s.Attempt},
		Hostname:     hostname,
		LogDirectory: LogDirectory(s.LogRoot, pod),
		DnsConfig:    s.DNS,
		Labels:       PodLabels(pod),
	}
	config.Annotations = make(map[string]string, len(pod.Annotations)+len(s.Annotations))
	maps.Copy(config.Annotations, pod.Annotations)
	maps.Copy(config.Annotations, s.Annotations)
	if !pod.Spec.HostNetwork {
		for i := range pod.Spec.InitContainers {
			config.PortMappings = append(config.PortMappings, portMappings(&pod.Spec.InitContainers[i])...)
		}
		for i := range pod.Spec.Containers {
			config.PortMappings = append(config.PortMappings, portMappings(&pod.Spec.Containers[i])...)
		}
	}
	linux := &runtimeapi.LinuxPodSandboxConfig{CgroupParent: s.CgroupParent, SecurityContext: sandboxSecurity(pod)}
	if sc := pod.Spec.SecurityContext; sc != nil && len(sc.Sysctls) > 0 {
		linux.Sysctls = make(map[string]string, len(sc.Sysctls))
		for _, ctl := range sc.Sysctls {
			linux.Sysctls[strings.ReplaceAll(ctl.Name, "/", ".")] = ctl.Value
		}
	}
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{ExcludeOverhead: true})
	limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{ExcludeOverhead: true})
	linux.Resources = linuxResources(requests, limits)
	linux.Overhead = linuxResources(pod.Spec.Overhead, pod.Spec.Overhead)
	if len(pod.Spec.Overhead) == 0 {
		linux.Overhead = &runtimeapi.LinuxContainerResources{}
	}
	config.Linux = linux
	return config
}

func portMappings(c *corev1.Container) []*runtimeapi.PortMapping {
	var out []*runtimeapi.PortMapping
	for i := range c.Ports {
		p := &c.Ports[i]
		out = append(out, &runtimeapi.PortMapping{ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP, Protocol: protocol(p.Protocol)})
	}
	return out
}

func protocol(p corev1.Protocol) runtimeapi.Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return runtimeapi.Protocol_UDP
	case corev1.ProtocolSCTP:
		return runtimeapi.Protocol_SCTP
	}
	return runtimeapi.Protocol_TCP
}

func sandboxSecurity(pod *corev1.Pod) *runtimeapi.LinuxSandboxSecurityContext {
	out := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(pod), Privileged: privileged(pod),
		Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}
	sc := pod.Spec.SecurityContext
	if sc == nil {
		return out
	}
	if sc.RunAsUser != nil {
		out.RunAsUser = &runtimeapi.Int64Value{Value: *sc.RunAsUser}
	}
	if sc.RunAsGroup != nil && sc.RunAsUser != nil {
		out.RunAsGroup = &runtimeapi.Int64Value{Value: *sc.RunAsGroup}
	}
	out.SupplementalGroups, out.SupplementalGroupsPolicy = groups(sc)
	out.SelinuxOptions = selinux(sc.SELinuxOptions)
	return out
}

func privileged(pod *corev1.Pod) bool {
	for _, list := range [...][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if sc := list[i].SecurityContext; sc != nil && sc.Privileged != nil && *sc.Privileged {
				return true
			}
		}
	}
	return false
}

func groups(sc *corev1.PodSecurityContext) ([]int64, runtimeapi.SupplementalGroupsPolicy) {
	out := append([]int64(nil), sc.SupplementalGroups...)
	if sc.FSGroup != nil {
		out = append(out, *sc.FSGroup)
	}
	policy := runtimeapi.SupplementalGroupsPolicy_Merge
	if sc.SupplementalGroupsPolicy != nil && *sc.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict {
		policy = runtimeapi.SupplementalGroupsPolicy_Strict
	}
	return out, policy
}

func selinux(o *corev1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func namespaces(pod *corev1.Pod) *runtimeapi.NamespaceOption {
	out := &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_POD, Ipc: runtimeapi.NamespaceMode_POD, Pid: runtimeapi.NamespaceMode_CONTAINER}
	if pod.Spec.HostNetwork {
		out.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		out.Ipc = runtimeapi.NamespaceMode_NODE
	}
	switch {
	case pod.Spec.HostPID:
		out.Pid = runtimeapi.NamespaceMode_NODE
	case pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace:
		out.Pid = runtimeapi.NamespaceMode_POD
	}
	return out
}
