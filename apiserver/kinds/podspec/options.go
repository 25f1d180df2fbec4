package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/ptr"
)

// Options loosens validation for what is stored already: Kubernetes does not refuse an update because of a
// mistake that an earlier release let in and that the update keeps. The zero value is the rule for new objects.
type Options struct {
	// AllowInvalidLabelValueInSelector accepts label selectors in affinity with values that are no valid label values.
	AllowInvalidLabelValueInSelector bool
	// AllowInvalidSpreadSelector accepts a bad label selector of a topology spread constraint.
	AllowInvalidSpreadSelector bool
	// AllowHostSysctls accepts sysctls of a namespace that is shared with the host.
	AllowHostSysctls bool
	// OldAddresses are IP addresses that are accepted though not canonical, as they are stored.
	OldAddresses []string

	// isPod is set for Pods: some rules came too late to hold for templates.
	isPod bool
}

// OptionsFor returns the Options to validate a change from old to spec; old is nil for a new object.
func OptionsFor(spec, old *corev1.PodSpec) Options {
	if old == nil {
		return Options{}
	}
	var opts Options
	bad := &check{spec: old}
	bad.affinity(old.Affinity, nil)
	opts.AllowInvalidLabelValueInSelector = len(bad.List) > 0
	bad = &check{spec: old}
	bad.topologySpread(nil)
	opts.AllowInvalidSpreadSelector = len(bad.List) > 0
	if old.SecurityContext != nil && (old.HostNetwork || old.HostIPC) {
		opts.AllowHostSysctls = len(old.SecurityContext.Sysctls) > 0
	}
	addresses := sets.New[string]()
	for _, alias := range old.HostAliases {
		addresses.Insert(alias.IP)
	}
	addresses.Insert(ptr.Deref(old.DNSConfig, corev1.PodDNSConfig{}).Nameservers...)
	opts.OldAddresses = sets.List(addresses)
	return opts
}
