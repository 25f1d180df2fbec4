package noderestriction

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/admission"
)

const restrictedDomain = "node-restriction.kubernetes.io"

func (p *Plugin) node(_ context.Context, node string, a admission.Attributes) error {
	name := a.GetName()
	obj, ok := a.GetObject().(*corev1.Node)
	if a.GetOperation() == admission.Create && ok {
		name = obj.Name
	}
	if name != node {
		return admission.NewForbidden(a, fmt.Errorf("node %q is not allowed to modify node %q", node, name))
	}
	switch a.GetOperation() {
	case admission.Create:
		if !ok {
			return admission.NewForbidden(a, fmt.Errorf("unexpected type %T", a.GetObject()))
		}
		if obj.Spec.ConfigSource != nil { //nolint:staticcheck // clients can still send it
			return admission.NewForbidden(a, fmt.Errorf("node %q is not allowed to create pods with a non-nil configSource", node))
		}
		if bad := forbiddenLabels(obj.Labels, nil); len(bad) > 0 {
			return admission.NewForbidden(a, fmt.Errorf("node %q is not allowed to set the following labels: %s", node, strings.Join(bad, ", ")))
		}
	case admission.Update:
		old, had := a.GetOldObject().(*corev1.Node)
		if !ok || !had {
			return admission.NewForbidden(a, fmt.Errorf("unexpected type %T", a.GetObject()))
		}
		//nolint:staticcheck // clients can still send it
		if obj.Spec.ConfigSource != nil && !apiequality.Semantic.DeepEqual(obj.Spec.ConfigSource, old.Spec.ConfigSource) {
			return admission.NewForbidden(a, fmt.Errorf("node %q is not allowed to update configSource to a new non-nil configSource", node))
		}
		if !apiequality.Semantic.DeepEqual(obj.Spec.Taints, old.Spec.Taints) {
			return admission.NewForbidden(a, fmt.Errorf("node %q is not allowed to modify taints", node))
		}
		if bad := forbiddenLabels(obj.Labels, old.Labels); len(bad) > 0 {
			return admission.NewForbidden(a, fmt.Errorf("is not allowed to modify labels: %s", strings.Join(bad, ", ")))
		}
		if !apiequality.Semantic.DeepEqual(obj.OwnerReferences, old.OwnerReferences) {
			return admission.NewForbidden(a, fmt.Errorf("node %q is not allowed to modify ownerReferences", node))
		}
	}
	return nil
}

// forbiddenLabels are those that changed and that kubelets may not set: they say where pods may run.
func forbiddenLabels(now, before map[string]string) []string {
	var out []string
	check := func(key string) {
		if now[key] == before[key] {
			_, a := now[key]
			if _, b := before[key]; a == b {
				return
			}
		}
		if !labelAllowed(key) && !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	for k := range now {
		check(k)
	}
	for k := range before {
		check(k)
	}
	slices.Sort(out)
	return out
}

func labelAllowed(key string) bool {
	domain, _, ok := strings.Cut(key, "/")
	if !ok {
		return true
	}
	within := func(d string) bool { return domain == d || strings.HasSuffix(domain, "."+d) }
	if within(restrictedDomain) {
		return false
	}
	if !within("kubernetes.io") && !within("k8s.io") {
		return true
	}
	if within("kubelet.kubernetes.io") || within("node.kubernetes.io") {
		return true
	}
	switch key {
	case corev1.LabelHostname, corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion,
		corev1.LabelInstanceType, corev1.LabelInstanceTypeStable, corev1.LabelOSStable, corev1.LabelArchStable, corev1.LabelWindowsBuild,
		"beta.kubernetes.io/os", "beta.kubernetes.io/arch":
		return true
	}
	return false
}
