//go:build linux

package processruntime

import (
	"os"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/processruntime/internal/shim"
)

// Unenforced implements [kubelet.LimitService]: what the machine permits less of than the container asks for.
func (r *Runtime) Unenforced(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) []string {
	var out []string
	left := func(asked bool, what string) {
		if asked {
			out = append(out, what)
		}
	}
	res, sc := c.GetLinux().GetResources(), c.GetLinux().GetSecurityContext()
	if !r.cgroups.Usable() {
		left(res.GetCpuQuota() > 0, "the CPU limit")
		left(res.GetMemoryLimitInBytes() > 0, "the memory limit")
	}
	if r.level == shim.LevelNamespaces {
		left(res.GetOomScoreAdj() < r.lowestOOM, "an out-of-memory score this low")
		return out
	}
	left(len(sc.GetSupplementalGroups()) > 0, "supplementalGroups and fsGroup")
	if r.level == shim.LevelUserNS {
		return out
	}
	if u := sc.GetRunAsUser(); u != nil && os.Geteuid() != 0 {
		left(u.GetValue() != int64(os.Geteuid()), "runAsUser")
	}
	left(sc.GetReadonlyRootfs(), "readOnlyRootFilesystem")
	left(len(sc.GetCapabilities().GetAddCapabilities())+len(sc.GetCapabilities().GetDropCapabilities()) > 0, "capabilities")
	left(sc.GetNoNewPrivs(), "allowPrivilegeEscalation: false")
	left(sc.GetSeccomp().GetProfileType() == runtimeapi.SecurityProfile_RuntimeDefault && sc.GetSeccomp() != nil, "the seccomp profile")
	for _, m := range c.GetMounts() {
		if m.GetReadonly() {
			return append(out, "read-only mounts")
		}
	}
	return out
}
