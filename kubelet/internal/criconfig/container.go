package criconfig

import (
	"fmt"
	"hash/fnv"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"

	"github.com/keelson/keelson/kubelet/internal/env"
)

// Annotations of containers, of which those of Kubernetes' own kubelet have its names.
const (
	AnnotationHash                     = "io.kubernetes.container.hash"
	AnnotationRestartCount             = "io.kubernetes.container.restartCount"
	AnnotationTerminationMessagePath   = "io.kubernetes.container.terminationMessagePath"
	AnnotationTerminationMessagePolicy = "io.kubernetes.container.terminationMessagePolicy"
	AnnotationPodGracePeriod           = "io.kubernetes.pod.terminationGracePeriod"
	// AnnotationImage is the image as the pod's spec names it.
	AnnotationImage = "kubelet.keelson.dev/image"
)

// Container is what a container's configuration depends on.
type Container struct {
	Pod       *corev1.Pod
	Container *corev1.Container
	Attempt   uint32
	// ImageRef is the image as the runtime knows it.
	ImageRef string
	// ImageUID and ImageUser are the user the image asks for.
	ImageUID  *int64
	ImageUser string
	Env       []env.Var
	Mounts    []*runtimeapi.Mount
	Devices   []*runtimeapi.Device
	// MemoryCapacity is the node's, for the out-of-memory score.
	MemoryCapacity int64
	// TargetID is the container whose processes an ephemeral container sees.
	TargetID    string
	WithLog     bool
	Annotations map[string]string
	// QOS is the pod's class.
	QOS corev1.PodQOSClass
}

// Config makes the container's configuration, or says why the pod's security context forbids it.
func (c Container) Config() (*runtimeapi.ContainerConfig, error) {
	if err := c.verifyNonRoot(); err != nil {
		return nil, err
	}
	spec := c.Container
	config := &runtimeapi.ContainerConfig{
		Metadata:   &runtimeapi.ContainerMetadata{Name: spec.Name, Attempt: c.Attempt},
		Image:      &runtimeapi.ImageSpec{Image: c.ImageRef, UserSpecifiedImage: spec.Image},
		Command:    env.ExpandAll(spec.Command, c.Env),
		Args:       env.ExpandAll(spec.Args, c.Env),
		WorkingDir: spec.WorkingDir,
		Mounts:     c.Mounts,
		Devices:    c.Devices,
		Stdin:      spec.Stdin,
		StdinOnce:  spec.StdinOnce,
		Tty:        spec.TTY,
		Labels: map[string]string{
			kubelettypes.KubernetesPodNameLabel:       c.Pod.Name,
			kubelettypes.KubernetesPodNamespaceLabel:  c.Pod.Namespace,
			kubelettypes.KubernetesPodUIDLabel:        string(c.Pod.UID),
			kubelettypes.KubernetesContainerNameLabel: spec.Name,
		},
		Annotations: map[string]string{
			AnnotationHash:                     Hash(spec),
			AnnotationRestartCount:             strconv.FormatUint(uint64(c.Attempt), 10),
			AnnotationTerminationMessagePath:   spec.TerminationMessagePath,
			AnnotationTerminationMessagePolicy: string(spec.TerminationMessagePolicy),
			AnnotationImage:                    spec.Image,
		},
	}
	if g := c.Pod.Spec.TerminationGracePeriodSeconds; g != nil {
		config.Annotations[AnnotationPodGracePeriod] = strconv.FormatInt(*g, 10)
	}
	for k, v := range c.Annotations {
		config.Annotations[k] = v
	}
	for _, v := range c.Env {
		config.Envs = append(config.Envs, &runtimeapi.KeyValue{Key: v.Name, Value: []byte(v.Value)})
	}
	if c.WithLog {
		config.LogPath = LogPath(spec.Name, c.Attempt)
	}
	if l := spec.Lifecycle; l != nil && l.StopSignal != nil {
		config.StopSignal = runtimeapi.Signal(runtimeapi.Signal_value[string(*l.StopSignal)])
		if n, ok := runtimeapi.Signal_value["SIGNAL_"+string(*l.StopSignal)]; ok {
			config.StopSignal = runtimeapi.Signal(n)
		}
	}
	resources := linuxResources(spec.Resources.Requests, spec.Resources.Limits)
	resources.OomScoreAdj = c.oomScore()
	config.Linux = &runtimeapi.LinuxContainerConfig{Resources: resources, SecurityContext: c.security()}
	return config, nil
}

// Hash identifies what of a container's spec cannot change without a new container.
func Hash(c *corev1.Container) string {
	h := fnv.New32a()
	_, _ = fmt.Fprintf(h, "%q %q", c.Name, c.Image)
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}

func (c Container) runAs() (user, group *int64, nonRoot *bool) {
	if sc := c.Pod.Spec.SecurityContext; sc != nil {
		user, group, nonRoot = sc.RunAsUser, sc.RunAsGroup, sc.RunAsNonRoot
	}
	if sc := c.Container.SecurityContext; sc != nil {
		if sc.RunAsUser != nil {
			user = sc.RunAsUser
		}
		if sc.RunAsGroup != nil {
			group = sc.RunAsGroup
		}
		if sc.RunAsNonRoot != nil {
			nonRoot = sc.RunAsNonRoot
		}
	}
	return user, group, nonRoot
}

func (c Container) verifyNonRoot() error {
	user, _, nonRoot := c.runAs()
	if nonRoot == nil || !*nonRoot {
		return nil
	}
	where := fmt.Sprintf("(pod: %q, container: %s)", c.Pod.Name+"_"+c.Pod.Namespace+"("+string(c.Pod.UID)+")", c.Container.Name)
	switch {
	case user != nil && *user == 0:
		return fmt.Errorf("container's runAsUser breaks non-root policy %s", where)
	case user != nil:
		return nil
	case c.ImageUID != nil && *c.ImageUID == 0, c.ImageUID == nil && c.ImageUser == "":
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	case c.ImageUID == nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", c.ImageUser, where)
	}
	return nil
}

var maskedPaths = []string{
	"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
	"/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
}

var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

func (c Container) security() *runtimeapi.LinuxContainerSecurityContext {
	out := &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: namespaces(c.Pod)}
	if c.TargetID != "" {
		out.NamespaceOptions.Pid, out.NamespaceOptions.TargetId = runtimeapi.NamespaceMode_TARGET, c.TargetID
	}
	user, group, _ := c.runAs()
	var seccomp *corev1.SeccompProfile
	var apparmor *corev1.AppArmorProfile
	if sc := c.Pod.Spec.SecurityContext; sc != nil {
		out.SupplementalGroups, out.SupplementalGroupsPolicy = groups(sc)
		out.SelinuxOptions = selinux(sc.SELinuxOptions)
		seccomp, apparmor = sc.SeccompProfile, sc.AppArmorProfile
	}
	switch {
	case user != nil:
		out.RunAsUser = &runtimeapi.Int64Value{Value: *user}
	case c.ImageUID != nil:
		out.RunAsUser = &runtimeapi.Int64Value{Value: *c.ImageUID}
	case c.ImageUser != "":
		out.RunAsUsername = c.ImageUser
	}
	if group != nil {
		out.RunAsGroup = &runtimeapi.Int64Value{Value: *group}
		if out.RunAsUser == nil && out.RunAsUsername == "" {
			out.RunAsUser = &runtimeapi.Int64Value{}
		}
	}
	masked := true
	if sc := c.Container.SecurityContext; sc != nil {
		if sc.Privileged != nil && *sc.Privileged {
			out.Privileged, masked = true, false
		}
		if sc.ReadOnlyRootFilesystem != nil {
			out.ReadonlyRootfs = *sc.ReadOnlyRootFilesystem
		}
		if sc.AllowPrivilegeEscalation != nil {
			out.NoNewPrivs = !*sc.AllowPrivilegeEscalation
		}
		if sc.ProcMount != nil && *sc.ProcMount == corev1.UnmaskedProcMount {
			masked = false
		}
		if sc.SELinuxOptions != nil {
			out.SelinuxOptions = selinux(sc.SELinuxOptions)
		}
		if sc.SeccompProfile != nil {
			seccomp = sc.SeccompProfile
		}
		if sc.AppArmorProfile != nil {
			apparmor = sc.AppArmorProfile
		}
		if caps := sc.Capabilities; caps != nil {
			out.Capabilities = &runtimeapi.Capability{}
			for _, x := range caps.Add {
				out.Capabilities.AddCapabilities = append(out.Capabilities.AddCapabilities, string(x))
			}
			for _, x := range caps.Drop {
				out.Capabilities.DropCapabilities = append(out.Capabilities.DropCapabilities, string(x))
			}
		}
	}
	if masked {
		out.MaskedPaths, out.ReadonlyPaths = maskedPaths, readonlyPaths
	}
	out.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	if seccomp != nil && !out.Privileged {
		out.Seccomp = profile(string(seccomp.Type), seccomp.LocalhostProfile)
	}
	if apparmor != nil {
		out.Apparmor = profile(string(apparmor.Type), apparmor.LocalhostProfile)
	}
	return out
}

func profile(kind string, local *string) *runtimeapi.SecurityProfile {
	out := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	switch kind {
	case "RuntimeDefault":
		out.ProfileType = runtimeapi.SecurityProfile_RuntimeDefault
	case "Localhost":
		out.ProfileType = runtimeapi.SecurityProfile_Localhost
		if local != nil {
			out.LocalhostRef = *local
		}
	}
	return out
}
