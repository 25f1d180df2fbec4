package podspec

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

const (
	sysctlPattern      = `([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?`
	maxSysctlLength    = 253
	maxAppArmorLength  = 4095
	maxGMSASpecLength  = 64 * 1024
	maxRunAsUserDomain = 256
	maxRunAsUserName   = 104
)

var (
	sysctlName         = regexp.MustCompile("^" + sysctlPattern + "$")
	windowsControlChar = regexp.MustCompile(`[[:cntrl:]]+`)
)

func (c *check) podSecurity(spec *field.Path) {
	s, p := c.spec.SecurityContext, spec.Child("securityContext")
	if s == nil {
		return
	}
	if s.FSGroup != nil {
		c.InvalidEach(p.Child("fsGroup"), *s.FSGroup, validation.IsValidGroupID(*s.FSGroup))
	}
	if s.RunAsUser != nil {
		c.InvalidEach(p.Child("runAsUser"), *s.RunAsUser, validation.IsValidUserID(*s.RunAsUser))
	}
	if s.RunAsGroup != nil {
		c.InvalidEach(p.Child("runAsGroup"), *s.RunAsGroup, validation.IsValidGroupID(*s.RunAsGroup))
	}
	for i, group := range s.SupplementalGroups {
		c.InvalidEach(p.Child("supplementalGroups").Index(i), group, validation.IsValidGroupID(group))
	}
	if share := c.spec.ShareProcessNamespace; c.spec.HostPID && share != nil && *share {
		c.Invalid(spec.Child("shareProcessNamespace"), *share, "ShareProcessNamespace and HostPID cannot both be enabled")
	}
	c.sysctls(s.Sysctls, p.Child("sysctls"))
	if s.FSGroupChangePolicy != nil {
		validate.OneOfOrEmptyRefused(&c.Errors, p.Child("fsGroupChangePolicy"), *s.FSGroupChangePolicy,
			corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)
	}
	c.seccomp(s.SeccompProfile, p.Child("seccompProfile"))
	c.windowsOptions(s.WindowsOptions, p.Child("windowsOptions"))
	c.appArmor(s.AppArmorProfile, p.Child("appArmorProfile"))
	if s.SupplementalGroupsPolicy != nil {
		validate.OneOfOrEmptyRefused(&c.Errors, p.Child("supplementalGroupsPolicy"), *s.SupplementalGroupsPolicy,
			corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)
	}
	if s.SELinuxChangePolicy != nil {
		validate.OneOfOrEmptyRefused(&c.Errors, p.Child("seLinuxChangePolicy"), *s.SELinuxChangePolicy,
			corev1.SELinuxChangePolicyMountOption, corev1.SELinuxChangePolicyRecursive)
	}
}

func (c *check) sysctls(sysctls []corev1.Sysctl, path *field.Path) {
	names := sets.New[string]()
	for i, sysctl := range sysctls {
		p := path.Index(i).Child("name")
		switch {
		case sysctl.Name == "":
			c.Required(p, "")
		case len(sysctl.Name) > maxSysctlLength || !sysctlName.MatchString(sysctl.Name):
			c.Invalid(p, sysctl.Name, fmt.Sprintf("must have at most %d characters and match regex %s", maxSysctlLength, sysctlPattern))
		case names.Has(sysctl.Name):
			c.Duplicate(p, sysctl.Name)
		}
		names.Insert(sysctl.Name)
		if c.opts.AllowHostSysctls {
			continue
		}
		switch name := strings.ReplaceAll(sysctl.Name, "/", "."); {
		case c.spec.HostNetwork && strings.HasPrefix(name, "net."):
			c.Invalid(p, sysctl.Name, "may not be specified when 'hostNetwork' is true")
		case c.spec.HostIPC && isIPCSysctl(name):
			c.Invalid(p, sysctl.Name, "may not be specified when 'hostIPC' is true")
		}
	}
}

func isIPCSysctl(name string) bool {
	return strings.HasPrefix(name, "kernel.shm") || strings.HasPrefix(name, "kernel.msg") || name == "kernel.sem" || strings.HasPrefix(name, "fs.mqueue.")
}

func (c *check) containerSecurity(s *corev1.SecurityContext, p *field.Path) {
	if s == nil {
		return
	}
	if s.RunAsUser != nil {
		c.InvalidEach(p.Child("runAsUser"), *s.RunAsUser, validation.IsValidUserID(*s.RunAsUser))
	}
	if s.RunAsGroup != nil {
		c.InvalidEach(p.Child("runAsGroup"), *s.RunAsGroup, validation.IsValidGroupID(*s.RunAsGroup))
	}
	if s.ProcMount != nil {
		validate.OneOfOrEmptyRefused(&c.Errors, p.Child("procMount"), *s.ProcMount, corev1.DefaultProcMount, corev1.UnmaskedProcMount)
		if *s.ProcMount == corev1.UnmaskedProcMount && (c.spec.HostUsers == nil || *c.spec.HostUsers) {
			c.Invalid(p.Child("procMount"), s.ProcMount, "`hostUsers` must be false to use `Unmasked`")
		}
	}
	c.seccomp(s.SeccompProfile, p.Child("seccompProfile"))
	if s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation {
		if s.Privileged != nil && *s.Privileged {
			c.Invalid(p, s, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
		}
		if s.Capabilities != nil {
			for _, capability := range s.Capabilities.Add {
				if capability == "CAP_SYS_ADMIN" {
					c.Invalid(p, s, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN")
				}
			}
		}
	}
	c.windowsOptions(s.WindowsOptions, p.Child("windowsOptions"))
	c.appArmor(s.AppArmorProfile, p.Child("appArmorProfile"))
}

func (c *check) seccomp(s *corev1.SeccompProfile, p *field.Path) {
	if s == nil {
		return
	}
	if s.Type == "" {
		c.Required(p.Child("type"), "type is required when seccompProfile is set")
	} else {
		validate.OneOf(&c.Errors, p.Child("type"), s.Type,
			corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	}
	local := p.Child("localhostProfile")
	switch isLocal := s.Type == corev1.SeccompProfileTypeLocalhost; {
	case isLocal && s.LocalhostProfile == nil:
		c.Required(local, "must be set when seccomp type is Localhost")
	case isLocal:
		c.LocalDescendingPath(*s.LocalhostProfile, local)
	case s.LocalhostProfile != nil:
		c.Invalid(local, s, "can only be set when seccomp type is Localhost")
	}
}

func (c *check) appArmor(a *corev1.AppArmorProfile, p *field.Path) {
	if a == nil {
		return
	}
	local := p.Child("localhostProfile")
	switch a.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		switch {
		case a.LocalhostProfile == nil || strings.TrimSpace(*a.LocalhostProfile) == "":
			c.Required(local, "must be set when AppArmor type is Localhost")
		case strings.TrimSpace(*a.LocalhostProfile) != *a.LocalhostProfile:
			c.Invalid(local, *a.LocalhostProfile, "must not be padded with whitespace")
		case len(*a.LocalhostProfile) > maxAppArmorLength:
			c.TooLong(local, *a.LocalhostProfile, maxAppArmorLength)
		}
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if a.LocalhostProfile != nil {
			c.Invalid(local, a.LocalhostProfile, "can only be set when AppArmor type is Localhost")
		}
	case "":
		c.Required(p.Child("type"), "type is required when appArmorProfile is set")
	default:
		validate.NotSupported(&c.Errors, p.Child("type"), a.Type,
			corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
	}
}

func (c *check) windowsOptions(w *corev1.WindowsSecurityContextOptions, p *field.Path) {
	if w == nil {
		return
	}
	if w.GMSACredentialSpecName != nil {
		c.DNSSubdomain(*w.GMSACredentialSpecName, p.Child("gmsaCredentialSpecName"))
	}
	if spec := w.GMSACredentialSpec; spec != nil {
		switch n := len(*spec); {
		case n == 0:
			c.Invalid(p.Child("gmsaCredentialSpec"), *spec, "gmsaCredentialSpec cannot be an empty string")
		case n > maxGMSASpecLength:
			c.Invalid(p.Child("gmsaCredentialSpec"), *spec, fmt.Sprintf("gmsaCredentialSpec size must be under %d KiB", maxGMSASpecLength/1024))
		}
	}
	if w.RunAsUserName != nil {
		c.windowsUser(*w.RunAsUserName, p.Child("runAsUserName"))
	}
}

// windowsUser checks a user's name in the forms USER and DOMAIN\USER.
func (c *check) windowsUser(name string, p *field.Path) {
	if name == "" {
		c.Invalid(p, name, "runAsUserName cannot be an empty string")
		return
	}
	if windowsControlChar.MatchString(name) {
		c.Invalid(p, name, "runAsUserName cannot contain control characters")
		return
	}
	parts := strings.Split(name, `\`)
	if len(parts) > 2 {
		c.Invalid(p, name, "runAsUserName cannot contain more than one backslash")
		return
	}
	user := parts[len(parts)-1]
	if len(parts) == 2 {
		if domain := parts[0]; domain == "" || len(domain) >= maxRunAsUserDomain {
			c.Invalid(p, name, "runAsUserName's Domain doesn't match the NetBIOS nor the DNS format")
		}
	}
	switch {
	case user == "":
		c.Invalid(p, name, "runAsUserName's User cannot be empty")
	case len(user) > maxRunAsUserName:
		c.Invalid(p, name, fmt.Sprintf("runAsUserName's User length must not be longer than %d characters", maxRunAsUserName))
	case strings.Trim(user, ". ") == "":
		c.Invalid(p, name, "runAsUserName's User cannot contain only periods or spaces")
	case strings.ContainsAny(user, `"/\:;|=,+*?<>@[]`):
		c.Invalid(p, name, `runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]`)
	}
}

// windowsHostProcess: if one container of a pod is a host process, all are, on the host's network.
func (c *check) windowsHostProcess(spec *field.Path) {
	value := func(w *corev1.WindowsSecurityContextOptions) *bool {
		if w == nil {
			return nil
		}
		return w.HostProcess
	}
	var pod *bool
	if c.spec.SecurityContext != nil {
		pod = value(c.spec.SecurityContext.WindowsOptions)
	}
	hostProcess, other := false, false
	each(c.spec, spec, func(ctr *corev1.Container, p *field.Path) {
		own := pod
		if ctr.SecurityContext != nil {
			if v := value(ctr.SecurityContext.WindowsOptions); v != nil {
				if pod != nil && *v != *pod {
					c.Invalid(p.Child("securityContext", "windowsOptions", "hostProcess"), *v,
						fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *pod))
				}
				own = v
			}
		}
		if own != nil && *own {
			hostProcess = true
		} else {
			other = true
		}
	})
	if !hostProcess {
		return
	}
	if other {
		c.Invalid(spec, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers")
	}
	if !c.spec.HostNetwork {
		c.Invalid(spec.Child("hostNetwork"), false, "hostNetwork must be true if pod contains any hostProcess containers")
	}
}

// hostUsers: a pod in a user namespace of its own can share no other namespace with the host.
func (c *check) hostUsers(spec *field.Path) {
	if c.spec.HostUsers == nil || *c.spec.HostUsers {
		return
	}
	for _, shared := range []struct {
		name string
		set  bool
	}{{"hostNetwork", c.spec.HostNetwork}, {"hostPID", c.spec.HostPID}, {"hostIPC", c.spec.HostIPC}} {
		if shared.set {
			c.Forbidden(spec.Child(shared.name), "when `hostUsers` is false")
		}
	}
	each(c.spec, spec, func(ctr *corev1.Container, p *field.Path) {
		if len(ctr.VolumeDevices) > 0 {
			c.Forbidden(p.Child("volumeDevices"), "when `hostUsers` is false")
		}
	})
}
