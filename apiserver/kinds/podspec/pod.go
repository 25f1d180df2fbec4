package podspec

import (
	"fmt"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

const updateRefused = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`," +
	"`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations)," +
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

// ValidatePod returns every mistake of a Pod to be created, but for those of metadata that all objects share.
func ValidatePod(pod *corev1.Pod) field.ErrorList {
	e := &validate.Errors{}
	spec := field.NewPath("spec")
	annotations(e, pod.Annotations, &pod.Spec, field.NewPath("metadata", "annotations"))
	e.Add(Validate(&pod.Spec, pod.Name, spec, Options{isPod: true}))
	if len(pod.Spec.EphemeralContainers) > 0 {
		e.Forbidden(spec.Child("ephemeralContainers"), "cannot be set on create")
	}
	if pod.Spec.NodeName != "" && len(pod.Spec.SchedulingGates) > 0 {
		e.Forbidden(spec.Child("nodeName"), "cannot be set until all schedulingGates have been cleared")
	}
	return e.List
}

// ValidatePodUpdate returns every mistake of a change of a Pod by PUT or PATCH.
func ValidatePodUpdate(pod, old *corev1.Pod) field.ErrorList {
	e := &validate.Errors{}
	annotationChanges(e, pod, old, field.NewPath("metadata", "annotations"))
	if Same(&pod.Spec, &old.Spec) {
		return e.List
	}
	spec := field.NewPath("spec")
	opts := OptionsFor(&pod.Spec, &old.Spec)
	opts.isPod = true
	e.Add(Validate(&pod.Spec, pod.Name, spec, opts))
	if !containerUpdates(e, pod.Spec.Containers, old.Spec.Containers, spec.Child("containers")) ||
		!containerUpdates(e, pod.Spec.InitContainers, old.Spec.InitContainers, spec.Child("initContainers")) ||
		!deadlineUpdate(e, pod.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds, spec.Child("activeDeadlineSeconds")) {
		return e.List
	}
	// Everything that may change is set to the old value; what then still differs may not.
	rest := pod.Spec.DeepCopy()
	for i := range rest.Containers {
		rest.Containers[i].Image = old.Spec.Containers[i].Image
	}
	for i := range rest.InitContainers {
		rest.InitContainers[i].Image = old.Spec.InitContainers[i].Image
	}
	rest.ActiveDeadlineSeconds = old.Spec.ActiveDeadlineSeconds
	gatesUpdate(e, pod.Spec.SchedulingGates, old.Spec.SchedulingGates, spec.Child("schedulingGates"))
	rest.SchedulingGates = old.Spec.SchedulingGates
	addedTolerations(e, pod.Spec.Tolerations, old.Spec.Tolerations, spec.Child("tolerations"))
	rest.Tolerations = old.Spec.Tolerations
	if grace := rest.TerminationGracePeriodSeconds; grace != nil && *grace == 1 &&
		old.Spec.TerminationGracePeriodSeconds != nil && *old.Spec.TerminationGracePeriodSeconds < 0 {
		rest.TerminationGracePeriodSeconds = old.Spec.TerminationGracePeriodSeconds
	}
	if len(old.Spec.SchedulingGates) > 0 {
		gatedUpdate(e, rest, &old.Spec, spec)
	}
	if !Same(rest, &old.Spec) {
		e.Forbidden(spec, fmt.Sprintf("%s\n%v", updateRefused, diff.Diff(*rest, old.Spec)))
	}
	return e.List
}

// containerUpdates checks new images. It returns false if nothing more can be compared.
func containerUpdates(e *validate.Errors, containers, old []corev1.Container, path *field.Path) bool {
	if len(containers) != len(old) {
		e.Forbidden(path, "pod updates may not add or remove containers")
		return false
	}
	for i := range containers {
		switch image := containers[i].Image; {
		case image == "":
			e.Required(path.Index(i).Child("image"), "")
		case image != strings.TrimSpace(image):
			e.Invalid(path.Index(i).Child("image"), image, "must not have leading or trailing whitespace")
		}
	}
	return true
}

// deadlineUpdate: a deadline can be set or shortened, never lifted.
func deadlineUpdate(e *validate.Errors, deadline, old *int64, p *field.Path) bool {
	switch {
	case deadline == nil:
		if old != nil {
			e.Invalid(p, deadline, "must not update from a positive integer to nil value")
		}
	case *deadline < 0 || *deadline > math.MaxInt32:
		e.Invalid(p, *deadline, validation.InclusiveRangeError(0, math.MaxInt32))
		return false
	case old != nil && *old < *deadline:
		e.Invalid(p, *deadline, "must be less than or equal to previous value")
		return false
	}
	return true
}

func gatesUpdate(e *validate.Errors, gates, old []corev1.PodSchedulingGate, path *field.Path) {
	for i, gate := range gates {
		if !slices.Contains(old, gate) {
			e.Forbidden(path.Index(i).Child("name"), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", gate.Name))
		}
	}
}

func addedTolerations(e *validate.Errors, tolerations, old []corev1.Toleration, p *field.Path) {
	equal := func(a, b corev1.Toleration) bool {
		a.TolerationSeconds, b.TolerationSeconds = nil, nil
		return a == b
	}
	for _, before := range old {
		if !slices.ContainsFunc(tolerations, func(t corev1.Toleration) bool { return equal(t, before) }) {
			e.Forbidden(p, "existing toleration can not be modified except its tolerationSeconds")
			return
		}
	}
}

// gatedUpdate: while a pod is held back from scheduling, its node selection may become narrower. What is allowed
// is set to the old value in rest.
func gatedUpdate(e *validate.Errors, rest, old *corev1.PodSpec, spec *field.Path) {
	if !equality.Semantic.DeepEqual(rest.NodeSelector, old.NodeSelector) {
		e.Add(validateLabels(rest.NodeSelector, spec.Child("nodeSelector")))
		for key, value := range old.NodeSelector {
			if now, kept := rest.NodeSelector[key]; !kept || now != value {
				e.Invalid(spec.Child("nodeSelector"), rest.NodeSelector, "only additions to spec.nodeSelector are allowed (no mutations or deletions)")
				break
			}
		}
		rest.NodeSelector = old.NodeSelector
	}
	nodeAffinity := func(a *corev1.Affinity) *corev1.NodeAffinity {
		if a == nil {
			return nil
		}
		return a.NodeAffinity
	}
	now, before := nodeAffinity(rest.Affinity), nodeAffinity(old.Affinity)
	if equality.Semantic.DeepEqual(now, before) {
		return
	}
	c := &check{spec: rest}
	c.affinity(&corev1.Affinity{NodeAffinity: now}, spec.Child("affinity"))
	e.Add(c.List)
	narrower(e, now, before, spec.Child("affinity", "nodeAffinity"))
	switch {
	case rest.Affinity == nil || old.Affinity == nil && rest.Affinity.PodAffinity == nil && rest.Affinity.PodAntiAffinity == nil:
		rest.Affinity = old.Affinity
	default:
		rest.Affinity.NodeAffinity = before
	}
}

func narrower(e *validate.Errors, now, before *corev1.NodeAffinity, p *field.Path) {
	if before == nil || before.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return
	}
	p = p.Child("requiredDuringSchedulingIgnoredDuringExecution")
	terms := p.Child("nodeSelectorTerms")
	if now == nil || now.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		e.Invalid(terms, nil, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")
		return
	}
	had, have := before.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms, now.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(have) != len(had) {
		e.Invalid(terms, have, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")
		return
	}
	for i := range had {
		if !keepsPrefix(have[i].MatchExpressions, had[i].MatchExpressions) || !keepsPrefix(have[i].MatchFields, had[i].MatchFields) ||
			len(had[i].MatchExpressions)+len(had[i].MatchFields) == 0 && len(have[i].MatchExpressions)+len(have[i].MatchFields) > 0 {
			e.Invalid(terms.Index(i), have[i], "only additions are allowed (no mutations or deletions)")
		}
	}
}

func keepsPrefix(now, before []corev1.NodeSelectorRequirement) bool {
	return len(now) >= len(before) && equality.Semantic.DeepEqual(now[:len(before)], before)
}

// ValidatePodStatusUpdate returns every mistake of a change of a Pod's status.
func ValidatePodStatusUpdate(pod, old *corev1.Pod) field.ErrorList {
	e := &validate.Errors{}
	annotationChanges(e, pod, old, field.NewPath("metadata", "annotations"))
	p := field.NewPath("status")
	for i, condition := range pod.Status.Conditions {
		if slices.ContainsFunc(pod.Spec.ReadinessGates, func(g corev1.PodReadinessGate) bool { return g.ConditionType == condition.Type }) {
			continue
		}
		e.QualifiedName(string(condition.Type), p.Child("conditions").Index(i).Child("Type"))
	}
	if pod.Spec.NodeName != old.Spec.NodeName {
		e.Forbidden(p.Child("nodeName"), "may not be changed directly")
	}
	if name := pod.Status.NominatedNodeName; name != "" && name != old.Status.NominatedNodeName {
		e.DNSSubdomain(name, p.Child("nominatedNodeName"))
	}
	stateTransitions(e, pod.Status.ContainerStatuses, old.Status.ContainerStatuses, old, false, p.Child("containerStatuses"))
	stateTransitions(e, pod.Status.InitContainerStatuses, old.Status.InitContainerStatuses, old, true, p.Child("initContainerStatuses"))
	addresses(e, pod, old, p)
	claims := sets.New[string]()
	for _, claim := range pod.Spec.ResourceClaims {
		claims.Insert(claim.Name)
	}
	for i, status := range pod.Status.ResourceClaimStatuses {
		if !claims.Has(status.Name) {
			e.Invalid(p.Child("resourceClaimStatuses").Index(i).Child("name"), status.Name, "must match the name of an entry in `spec.resourceClaims`")
		}
		if status.ResourceClaimName != nil {
			e.DNSSubdomain(*status.ResourceClaimName, p.Child("resourceClaimStatuses").Index(i).Child("name"))
		}
	}
	return e.List
}

// stateTransitions: a container that ended for good does not run again.
func stateTransitions(e *validate.Errors, statuses, old []corev1.ContainerStatus, pod *corev1.Pod, isInit bool, path *field.Path) {
	if pod.Spec.RestartPolicy == corev1.RestartPolicyAlways {
		return
	}
	for i, before := range old {
		ended := before.State.Terminated
		if ended == nil || restartable(pod, before.Name, isInit) || ended.ExitCode != 0 && pod.Spec.RestartPolicy == corev1.RestartPolicyOnFailure {
			continue
		}
		for _, now := range statuses {
			if now.Name == before.Name && now.State.Terminated == nil {
				e.Forbidden(path.Index(i).Child("state"), "may not be transitioned to non-terminated state")
			}
		}
	}
}

// restartable says whether a container has a restart policy of its own under which it may run again.
func restartable(pod *corev1.Pod, name string, isInit bool) bool {
	containers := pod.Spec.Containers
	if isInit {
		containers = pod.Spec.InitContainers
	}
	for i := range containers {
		if containers[i].Name == name {
			return containers[i].RestartPolicy != nil
		}
	}
	return false
}

// addresses checks status.podIPs and hostIPs: at most one of each family, and in agreement with the single fields.
func addresses(e *validate.Errors, pod, old *corev1.Pod, p *field.Path) {
	known := func(list []string) func(string, *field.Path) {
		return func(ip string, p *field.Path) { e.Add(validation.IsValidIPForLegacyField(p, ip, false, list)) }
	}
	var ips, oldIPs, hosts, oldHosts []string
	for _, ip := range pod.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	for _, ip := range old.Status.PodIPs {
		oldIPs = append(oldIPs, ip.IP)
	}
	for _, ip := range pod.Status.HostIPs {
		hosts = append(hosts, ip.IP)
	}
	for _, ip := range old.Status.HostIPs {
		oldHosts = append(oldHosts, ip.IP)
	}
	family(e, ips, p.Child("podIPs"), known(oldIPs), "may specify no more than one IP for each IP family")
	if len(hosts) > 0 && hosts[0] != pod.Status.HostIP {
		e.Invalid(p.Child("hostIPs").Index(0).Child("ip"), hosts[0], "must be equal to `hostIP`")
	}
	family(e, hosts, p.Child("hostIPs"), known(oldHosts), "may specify no more than one IP for each IP family")
}

func family(e *validate.Errors, ips []string, p *field.Path, check func(string, *field.Path), text string) {
	seen := sets.New[string]()
	for i, ip := range ips {
		check(ip, p.Index(i))
		if seen.Has(ip) {
			e.Duplicate(p.Index(i), ip)
		}
		seen.Insert(ip)
	}
	if len(ips) > 2 || len(ips) == 2 && netutils.IsIPv6String(ips[0]) == netutils.IsIPv6String(ips[1]) {
		e.Invalid(p, ips, text)
	}
}
