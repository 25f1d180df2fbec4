package podspec

import (
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

const (
	maxRestartRules     = 20
	maxRestartExitCodes = 255
)

func (c *check) containers(path *field.Path) {
	if len(c.spec.Containers) == 0 {
		c.Required(path, "")
		return
	}
	names := sets.New[string]()
	for i := range c.spec.Containers {
		ctr, p := &c.spec.Containers[i], path.Index(i)
		c.container(ctr, p)
		if names.Has(ctr.Name) {
			c.Duplicate(p.Child("name"), ctr.Name)
		}
		names.Insert(ctr.Name)
		c.lifecycle(ctr.Lifecycle, p.Child("lifecycle"))
		c.probes(ctr, p)
		c.restartRules(ctr, p)
	}
	taken := sets.New[string]()
	for i := range c.spec.Containers {
		c.hostPortConflicts(&c.spec.Containers[i], taken, path.Index(i))
	}
}

func (c *check) initContainers(path *field.Path) {
	names := sets.New[string]()
	for i := range c.spec.Containers {
		names.Insert(c.spec.Containers[i].Name)
	}
	for i := range c.spec.InitContainers {
		ctr, p := &c.spec.InitContainers[i], path.Index(i)
		c.container(ctr, p)
		sidecar := ctr.RestartPolicy != nil && *ctr.RestartPolicy == corev1.ContainerRestartPolicyAlways
		c.restartRules(ctr, p)
		if names.Has(ctr.Name) {
			c.Duplicate(p.Child("name"), ctr.Name)
		} else if ctr.Name != "" {
			names.Insert(ctr.Name)
		}
		// Init containers run one after another, so only ports of the same one can be in conflict.
		c.hostPortConflicts(ctr, sets.New[string](), p)
		if sidecar {
			c.lifecycle(ctr.Lifecycle, p.Child("lifecycle"))
			c.probes(ctr, p)
			continue
		}
		const text = "may not be set for init containers without restartPolicy=Always"
		if ctr.Lifecycle != nil {
			c.Forbidden(p.Child("lifecycle"), text)
		}
		for _, probe := range []struct {
			name string
			set  bool
		}{{"livenessProbe", ctr.LivenessProbe != nil}, {"readinessProbe", ctr.ReadinessProbe != nil}, {"startupProbe", ctr.StartupProbe != nil}} {
			if probe.set {
				c.Forbidden(p.Child(probe.name), text)
			}
		}
	}
}

// ephemeralFields are what an ephemeral container may set, by the name of the Go field.
var ephemeralFields = sets.New(
	"Name", "Image", "Command", "Args", "WorkingDir", "EnvFrom", "Env", "VolumeMounts", "VolumeDevices", "TerminationMessagePath",
	"TerminationMessagePolicy", "ImagePullPolicy", "SecurityContext", "Stdin", "StdinOnce", "TTY",
)

// ValidateEphemeralContainers returns every mistake of the ephemeral containers of a pod.
func ValidateEphemeralContainers(spec *corev1.PodSpec, path *field.Path, opts Options) field.ErrorList {
	c := &check{spec: spec, opts: opts}
	c.podVolumes("", field.NewPath("ignored"))
	c.List = nil
	c.claims = sets.New[string]()
	c.ephemeralContainers(spec.EphemeralContainers, path)
	return c.List
}

func (c *check) ephemeralContainers(containers []corev1.EphemeralContainer, path *field.Path) {
	names := sets.New[string]()
	for i := range c.spec.Containers {
		names.Insert(c.spec.Containers[i].Name)
	}
	for i := range c.spec.InitContainers {
		names.Insert(c.spec.InitContainers[i].Name)
	}
	targets := names.Clone()
	for i := range containers {
		ec, p := &containers[i], path.Index(i)
		ctr := (*corev1.Container)(&ec.EphemeralContainerCommon)
		c.container(ctr, p)
		if names.Has(ec.Name) {
			c.Duplicate(p.Child("name"), ec.Name)
		}
		names.Insert(ec.Name)
		if ec.TargetContainerName != "" && !targets.Has(ec.TargetContainerName) {
			c.NotFound(p.Child("targetContainerName"), ec.TargetContainerName)
		}
		const text = "cannot be set for an Ephemeral Container"
		value := reflect.ValueOf(ec.EphemeralContainerCommon)
		for f := range value.NumField() {
			name := value.Type().Field(f).Name
			if !value.Field(f).IsZero() && !ephemeralFields.Has(name) {
				c.Forbidden(p.Child(strings.ToLower(name[:1])+name[1:]), text)
			}
		}
		for m, mount := range ec.VolumeMounts {
			if mount.SubPath != "" {
				c.Forbidden(p.Child("volumeMounts").Index(m).Child("subPath"), text)
			}
			if mount.SubPathExpr != "" {
				c.Forbidden(p.Child("volumeMounts").Index(m).Child("subPathExpr"), text)
			}
		}
	}
}

// container checks what all kinds of containers have in common.
func (c *check) container(ctr *corev1.Container, p *field.Path) {
	if ctr.Name == "" {
		c.Required(p.Child("name"), "")
	} else {
		c.DNSLabel(ctr.Name, p.Child("name"))
	}
	// A template may have an image of blanks, that something replaces before it is a pod.
	if ctr.Image == "" {
		c.Required(p.Child("image"), "")
	}
	if c.opts.isPod && strings.TrimSpace(ctr.Image) != ctr.Image {
		c.Invalid(p.Child("image"), ctr.Image, "must not have leading or trailing whitespace")
	}
	validate.OneOf(&c.Errors, p.Child("terminationMessagePolicy"), ctr.TerminationMessagePolicy,
		corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)
	c.ports(ctr.Ports, p.Child("ports"))
	c.env(ctr.Env, p.Child("env"))
	c.envFrom(ctr.EnvFrom, p.Child("envFrom"))
	c.volumeMounts(ctr, p.Child("volumeMounts"))
	c.volumeDevices(ctr, p.Child("volumeDevices"))
	validate.OneOf(&c.Errors, p.Child("imagePullPolicy"), ctr.ImagePullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
	c.containerResources(&ctr.Resources, p.Child("resources"))
	c.resizePolicy(ctr.ResizePolicy, p.Child("resizePolicy"))
	c.containerSecurity(ctr.SecurityContext, p.Child("securityContext"))
}

func (c *check) ports(ports []corev1.ContainerPort, path *field.Path) {
	names := sets.New[string]()
	for i, port := range ports {
		p := path.Index(i)
		if port.Name != "" {
			if messages := validation.IsValidPortName(port.Name); len(messages) > 0 {
				c.InvalidEach(p.Child("name"), port.Name, messages)
			} else if names.Has(port.Name) {
				c.Duplicate(p.Child("name"), port.Name)
			}
			names.Insert(port.Name)
		}
		if port.ContainerPort == 0 {
			c.Required(p.Child("containerPort"), "")
		} else {
			c.PortNumber(port.ContainerPort, p.Child("containerPort"))
		}
		if port.HostPort != 0 {
			c.PortNumber(port.HostPort, p.Child("hostPort"))
		}
		validate.OneOf(&c.Errors, p.Child("protocol"), port.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
	}
}

// hostPortConflicts refuses ports of the host that are taken already, and adds the container's to them.
func (c *check) hostPortConflicts(ctr *corev1.Container, taken sets.Set[string], p *field.Path) {
	for i, port := range ctr.Ports {
		if port.HostPort == 0 {
			continue
		}
		key := fmt.Sprintf("%s/%s/%d", port.Protocol, port.HostIP, port.HostPort)
		if taken.Has(key) {
			c.Duplicate(p.Child("ports").Index(i).Child("hostPort"), key)
		}
		taken.Insert(key)
	}
}

// hostNetworkPorts: on the host's network a container's port is the host's.
func (c *check) hostNetworkPorts(path *field.Path) {
	if !c.spec.HostNetwork {
		return
	}
	for _, list := range []struct {
		name       string
		containers []corev1.Container
	}{{"containers", c.spec.Containers}, {"initContainers", c.spec.InitContainers}} {
		for i := range list.containers {
			for j, port := range list.containers[i].Ports {
				if port.HostPort != port.ContainerPort && (c.opts.isPod || port.HostPort != 0) {
					c.Invalid(path.Child(list.name).Index(i).Child("ports").Index(j).Child("hostPort"), port.HostPort,
						"must match `containerPort` when `hostNetwork` is true")
				}
			}
		}
	}
}

// restartRules checks a container's own restart policy and its rules by exit code.
func (c *check) restartRules(ctr *corev1.Container, p *field.Path) {
	rules := p.Child("restartPolicyRules")
	if ctr.RestartPolicy == nil {
		if len(ctr.RestartPolicyRules) > 0 {
			c.Required(p.Child("restartPolicy"), "must specify restartPolicy when restart rules are used")
		}
	} else {
		validate.OneOfOrEmptyRefused(&c.Errors, p.Child("restartPolicy"), *ctr.RestartPolicy,
			corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)
	}
	if len(ctr.RestartPolicyRules) > maxRestartRules {
		c.TooMany(rules, len(ctr.RestartPolicyRules), maxRestartRules)
	}
	for i, rule := range ctr.RestartPolicyRules {
		r := rules.Index(i)
		validate.OneOfOrEmptyRefused(&c.Errors, r.Child("action"), rule.Action,
			corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)
		if rule.ExitCodes == nil {
			c.Required(r.Child("exitCodes"), "must be specified")
			continue
		}
		validate.OneOfOrEmptyRefused(&c.Errors, r.Child("exitCodes", "operator"), rule.ExitCodes.Operator,
			corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)
		values := r.Child("exitCodes", "values")
		switch n := len(rule.ExitCodes.Values); {
		case n == 0:
			c.Invalid(values, rule.ExitCodes.Values, "must specify at least one value")
		case n > maxRestartExitCodes:
			c.TooMany(values, n, maxRestartExitCodes)
		}
		seen := sets.New[int32]()
		for j, value := range rule.ExitCodes.Values {
			if seen.Has(value) {
				c.Duplicate(values.Index(j), value)
			}
			seen.Insert(value)
		}
	}
}
