package podspec

import (
	"fmt"
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

// Limits of a resolver's configuration.
const (
	maxNameservers  = 3
	maxSearches     = 32
	maxSearchLength = 2048
	maxHostname     = 64
)

func validateLabels(labels map[string]string, p *field.Path) field.ErrorList {
	return metav1validation.ValidateLabels(labels, p)
}

// policies checks restart and DNS policy and the node selector.
func (c *check) policies(p *field.Path) {
	validate.OneOf(&c.Errors, p.Child("restartPolicy"), c.spec.RestartPolicy,
		corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	validate.OneOf(&c.Errors, p.Child("dnsPolicy"), c.spec.DNSPolicy,
		corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)
	c.Add(validateLabels(c.spec.NodeSelector, p.Child("nodeSelector")))
}

func (c *check) dnsConfig(p *field.Path) {
	d := c.spec.DNSConfig
	if c.spec.DNSPolicy == corev1.DNSNone {
		if d == nil {
			c.Required(p, fmt.Sprintf("must provide `dnsConfig` when `dnsPolicy` is %s", corev1.DNSNone))
			return
		}
		if len(d.Nameservers) == 0 {
			c.Required(p.Child("nameservers"), fmt.Sprintf("must provide at least one DNS nameserver when `dnsPolicy` is %s", corev1.DNSNone))
			return
		}
	}
	if d == nil {
		return
	}
	if len(d.Nameservers) > maxNameservers {
		c.Invalid(p.Child("nameservers"), d.Nameservers, fmt.Sprintf("must not have more than %v nameservers", maxNameservers))
	}
	for i, server := range d.Nameservers {
		c.Add(validation.IsValidIPForLegacyField(p.Child("nameservers").Index(i), server, false, c.opts.OldAddresses))
	}
	searches := p.Child("searches")
	if len(d.Searches) > maxSearches {
		c.Invalid(searches, d.Searches, fmt.Sprintf("must not have more than %v search paths", maxSearches))
	}
	if len(strings.Join(d.Searches, " ")) > maxSearchLength {
		c.Invalid(searches, d.Searches, fmt.Sprintf("must not have more than %v characters (including spaces) in the search list", maxSearchLength))
	}
	for i, search := range d.Searches {
		// A single dot is the root; one at the end says that a name is complete.
		if search == "." {
			continue
		}
		search = strings.TrimSuffix(search, ".")
		c.InvalidEach(searches.Index(i), search, validation.IsDNS1123SubdomainWithUnderscore(search))
	}
	for i, option := range d.Options {
		if option.Name == "" {
			c.Required(p.Child("options").Index(i), "must not be empty")
		}
	}
}

func (c *check) readinessGates(path *field.Path) {
	for i, gate := range c.spec.ReadinessGates {
		c.QualifiedName(string(gate.ConditionType), path.Index(i).Child("conditionType"))
	}
}

func (c *check) schedulingGates(path *field.Path) {
	names := sets.New[string]()
	for i, gate := range c.spec.SchedulingGates {
		c.QualifiedName(gate.Name, path.Index(i).Child("name"))
		if names.Has(gate.Name) {
			c.Duplicate(path.Index(i), gate.Name)
		}
		names.Insert(gate.Name)
	}
}

func (c *check) schedulingGroup(name *field.Path) {
	switch g := c.spec.SchedulingGroup; {
	case g == nil:
	case g.PodGroupName == nil:
		c.Invalid(name, nil, "must specify one of: `podGroupName`")
	default:
		c.Name(*g.PodGroupName, apivalidation.NameIsDNSSubdomain, name)
	}
}

// scalars checks what stands on its own.
func (c *check) scalars(p *field.Path) {
	s := c.spec
	if s.ServiceAccountName != "" {
		c.Name(s.ServiceAccountName, apivalidation.ValidateServiceAccountName, p.Child("serviceAccountName"))
	}
	if s.NodeName != "" {
		c.Name(s.NodeName, apivalidation.NameIsDNSSubdomain, p.Child("nodeName"))
	}
	if s.ActiveDeadlineSeconds != nil && (*s.ActiveDeadlineSeconds < 1 || *s.ActiveDeadlineSeconds > math.MaxInt32) {
		c.Invalid(p.Child("activeDeadlineSeconds"), *s.ActiveDeadlineSeconds, validation.InclusiveRangeError(1, math.MaxInt32))
	}
	if s.Hostname != "" {
		c.DNSLabel(s.Hostname, p.Child("hostname"))
	}
	if s.Subdomain != "" {
		c.DNSLabel(s.Subdomain, p.Child("subdomain"))
	}
	c.hostnameOverride(p)
	c.tolerations(s.Tolerations, p.Child("tolerations"))
	for i, alias := range s.HostAliases {
		p := p.Child("hostAliases").Index(i)
		c.Add(validation.IsValidIPForLegacyField(p.Child("ip"), alias.IP, false, c.opts.OldAddresses))
		for j, name := range alias.Hostnames {
			c.DNSSubdomain(name, p.Child("hostnames").Index(j))
		}
	}
	if s.PriorityClassName != "" {
		c.Name(s.PriorityClassName, apivalidation.NameIsDNSSubdomain, p.Child("priorityClassName"))
	}
	if s.RuntimeClassName != nil {
		c.Name(*s.RuntimeClassName, apivalidation.NameIsDNSSubdomain, p.Child("runtimeClassName"))
	}
	if s.PreemptionPolicy != nil {
		validate.OneOf(&c.Errors, p.Child("preemptionPolicy"), *s.PreemptionPolicy, corev1.PreemptLowerPriority, corev1.PreemptNever)
	}
	if s.Overhead != nil {
		c.requirements(&corev1.ResourceRequirements{Limits: s.Overhead}, nil, p.Child("overhead"), c.ContainerResourceName)
	}
}

func (c *check) hostnameOverride(p *field.Path) {
	s := c.spec
	if s.HostnameOverride == nil {
		return
	}
	p = p.Child("hostnameOverride")
	name := *s.HostnameOverride
	if name == "" {
		c.Invalid(p, name, "must not be empty")
		return
	}
	c.DNSSubdomain(name, p)
	if len(name) > maxHostname {
		c.TooLong(p, name, maxHostname)
	}
	if s.HostNetwork {
		c.Forbidden(p, "may not be specified when `hostNetwork` is true")
	}
	if s.SetHostnameAsFQDN != nil && *s.SetHostnameAsFQDN {
		c.Forbidden(p, "may not be specified when `setHostnameAsFQDN` is true")
	}
}

// ValidateTolerations returns every mistake of tolerations, as runtime classes have them too.
func ValidateTolerations(tolerations []corev1.Toleration, path *field.Path) field.ErrorList {
	c := &check{}
	c.tolerations(tolerations, path)
	return c.List
}

func (c *check) tolerations(tolerations []corev1.Toleration, path *field.Path) {
	for i, t := range tolerations {
		p := path.Index(i)
		if t.Key != "" {
			c.Add(metav1validation.ValidateLabelName(t.Key, p.Child("key")))
		}
		if t.Key == "" && t.Operator != corev1.TolerationOpExists {
			c.Invalid(p.Child("operator"), t.Operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\"")
		}
		if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
			c.Invalid(p.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
		}
		switch t.Operator {
		case corev1.TolerationOpEqual, "":
			if messages := validation.IsValidLabelValue(t.Value); len(messages) > 0 {
				c.Invalid(p.Child("operator"), t.Value, strings.Join(messages, ";"))
			}
		case corev1.TolerationOpExists:
			if t.Value != "" {
				c.Invalid(p.Child("operator"), t.Value, "value must be empty when `operator` is 'Exists'")
			}
		default:
			validate.NotSupported(&c.Errors, p.Child("operator"), t.Operator, corev1.TolerationOpEqual, corev1.TolerationOpExists)
		}
		if t.Effect != "" {
			TaintEffect(&c.Errors, t.Effect, p.Child("effect"))
		}
	}
}

// TaintEffect checks the effect of a taint or toleration.
func TaintEffect(e *validate.Errors, effect corev1.TaintEffect, p *field.Path) {
	validate.OneOf(e, p, effect, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
}

// operatingSystem checks spec.os and that nothing of another system is asked for.
func (c *check) operatingSystem(p *field.Path) {
	if c.spec.OS == nil {
		return
	}
	os := p.Child("os")
	switch c.spec.OS.Name {
	case "":
		c.Required(os.Child("name"), "cannot be empty")
	case corev1.Linux:
		const text = "windows options cannot be set for a linux pod"
		if s := c.spec.SecurityContext; s != nil && s.WindowsOptions != nil {
			c.Forbidden(p.Child("securityContext", "windowsOptions"), text)
		}
		each(c.spec, p, func(ctr *corev1.Container, p *field.Path) {
			if ctr.SecurityContext != nil && ctr.SecurityContext.WindowsOptions != nil {
				c.Forbidden(p.Child("securityContext", "windowsOptions"), text)
			}
		})
	case corev1.Windows:
		c.windowsFields(p)
	default:
		validate.NotSupported(&c.Errors, os, c.spec.OS.Name, corev1.Linux, corev1.Windows)
	}
}

// windowsFields refuses what only Linux has.
func (c *check) windowsFields(p *field.Path) {
	forbid := func(p *field.Path, fields map[string]bool) {
		for _, name := range sets.List(sets.KeySet(fields)) {
			if fields[name] {
				c.Forbidden(p.Child(name), "cannot be set for a windows pod")
			}
		}
	}
	s := c.spec
	forbid(p, map[string]bool{
		"hostPID": s.HostPID, "hostIPC": s.HostIPC, "shareProcessNamespace": s.ShareProcessNamespace != nil, "hostUsers": s.HostUsers != nil,
	})
	if sc := s.SecurityContext; sc != nil {
		forbid(p.Child("securityContext"), map[string]bool{
			"appArmorProfile": sc.AppArmorProfile != nil, "seLinuxOptions": sc.SELinuxOptions != nil, "seccompProfile": sc.SeccompProfile != nil,
			"fsGroup": sc.FSGroup != nil, "fsGroupChangePolicy": sc.FSGroupChangePolicy != nil, "sysctls": len(sc.Sysctls) > 0,
			"runAsUser": sc.RunAsUser != nil, "runAsGroup": sc.RunAsGroup != nil, "supplementalGroups": sc.SupplementalGroups != nil,
			"supplementalGroupsPolicy": sc.SupplementalGroupsPolicy != nil, "seLinuxChangePolicy": sc.SELinuxChangePolicy != nil,
		})
	}
	each(s, p, func(ctr *corev1.Container, p *field.Path) {
		if sc := ctr.SecurityContext; sc != nil {
			forbid(p.Child("securityContext"), map[string]bool{
				"appArmorProfile": sc.AppArmorProfile != nil, "seLinuxOptions": sc.SELinuxOptions != nil, "seccompProfile": sc.SeccompProfile != nil,
				"capabilities": sc.Capabilities != nil, "readOnlyRootFilesystem": sc.ReadOnlyRootFilesystem != nil, "privileged": sc.Privileged != nil,
				"allowPrivilegeEscalation": sc.AllowPrivilegeEscalation != nil, "procMount": sc.ProcMount != nil,
				"runAsUser": sc.RunAsUser != nil, "runAsGroup": sc.RunAsGroup != nil,
			})
		}
	})
}
