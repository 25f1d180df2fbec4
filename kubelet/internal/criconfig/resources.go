package criconfig

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The kernel's scheduler in the units of cgroups.
const (
	minShares     = 2
	maxShares     = 262144
	sharesPerCPU  = 1024
	quotaPeriod   = 100000 // microseconds
	minQuota      = 1000   // microseconds
	milliPerCPU   = 1000
	oomGuaranteed = -997
	oomBestEffort = 1000
	// SystemCritical is the priority from which on a pod is spared by the kernel when memory runs out.
	SystemCritical = 2 * 1000000000
)

func linuxResources(requests, limits corev1.ResourceList) *runtimeapi.LinuxContainerResources {
	request, limit := requests.Cpu(), limits.Cpu()
	if _, set := requests[corev1.ResourceCPU]; !set {
		request = limit
	}
	out := &runtimeapi.LinuxContainerResources{CpuShares: shares(request.MilliValue()), CpuPeriod: quotaPeriod}
	if limit.MilliValue() > 0 {
		out.CpuQuota = max(limit.MilliValue()*quotaPeriod/milliPerCPU, minQuota)
	}
	if m := limits.Memory(); !m.IsZero() {
		out.MemoryLimitInBytes = m.Value()
	}
	for name, q := range limits {
		if size, ok := hugePageSize(name); ok {
			out.HugepageLimits = append(out.HugepageLimits, &runtimeapi.HugepageLimit{PageSize: size, Limit: uint64(q.Value())})
		}
	}
	return out
}

func hugePageSize(name corev1.ResourceName) (string, bool) {
	n := len(corev1.ResourceHugePagesPrefix)
	if len(name) <= n || string(name[:n]) != corev1.ResourceHugePagesPrefix {
		return "", false
	}
	q, err := resource.ParseQuantity(string(name[n:]))
	if err != nil {
		return "", false
	}
	// The kernel names them 2MB and 1GB.
	v, unit := q.Value(), 0
	for v >= 1024 && unit < 3 {
		v, unit = v/1024, unit+1
	}
	return resource.NewQuantity(v, resource.DecimalSI).String() + [...]string{"B", "KB", "MB", "GB"}[unit], true
}

func shares(milli int64) int64 {
	return min(max(milli*sharesPerCPU/milliPerCPU, minShares), maxShares)
}

// oomScore is how readily the kernel kills the container when memory runs out.
func (c Container) oomScore() int64 {
	if p := c.Pod.Spec.Priority; p != nil && *p >= SystemCritical {
		return oomGuaranteed
	}
	switch c.QOS {
	case corev1.PodQOSGuaranteed:
		return oomGuaranteed
	case corev1.PodQOSBestEffort:
		return oomBestEffort
	}
	if c.MemoryCapacity <= 0 {
		return oomBestEffort - 1
	}
	request := c.Container.Resources.Requests.Memory().Value()
	score := int64(1000 - 1000*float64(request)/float64(c.MemoryCapacity))
	return min(max(score, 1000+oomGuaranteed), oomBestEffort-1)
}
