package podspec

import (
	corev1 "k8s.io/api/core/v1"
)

// Options loosens validation for what is stored already: Kubernetes does not refuse an update because of a
// mistake that an earlier release let in and that the update keeps. The zero value is the rule for new objects.
type Options struct {
	// AllowInvalidLabelValueInSelector accepts label selectors in affinity with values that are no valid label values.
	AllowInvalidLabelValueInSelector bool
}

// OptionsFor returns the Options to validate a change from old to spec; old is nil for a new object.
func OptionsFor(spec, old *corev1.PodSpec) Options {
	return Options{}
}
