package podspec

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

// ValidateEphemeralUpdate returns every mistake of a change through pods/ephemeralcontainers: they can be added,
// never changed or removed.
func ValidateEphemeralUpdate(pod, old *corev1.Pod) field.ErrorList {
	e := &validate.Errors{}
	p := field.NewPath("spec", "ephemeralContainers")
	if _, static := old.Annotations[corev1.MirrorPodAnnotationKey]; static {
		e.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers")
		return e.List
	}
	e.Add(ValidateEphemeralContainers(&pod.Spec, p, Options{}))
	for _, before := range old.Spec.EphemeralContainers {
		i := slices.IndexFunc(pod.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return c.Name == before.Name })
		switch {
		case i < 0:
			e.Forbidden(p, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", before.Name))
		case !equality.Semantic.DeepEqual(before, pod.Spec.EphemeralContainers[i]):
			e.Forbidden(p, fmt.Sprintf("existing ephemeral containers %q may not be changed\n%v", before.Name, diff.Diff(pod.Spec.EphemeralContainers[i], before)))
		}
	}
	return e.List
}

// ValidateResize returns every mistake of a change through pods/resize: requests and limits of cpu and memory
// only, and none that would make the pod one of another class of service.
func ValidateResize(pod, old *corev1.Pod) field.ErrorList {
	e := &validate.Errors{}
	spec := field.NewPath("spec")
	if _, static := old.Annotations[corev1.MirrorPodAnnotationKey]; static {
		e.Forbidden(field.NewPath(""), "static pods cannot be resized")
		return e.List
	}
	if old.Spec.OS != nil && old.Spec.OS.Name == corev1.Windows {
		e.Forbidden(field.NewPath(""), "windows pods cannot be resized")
		return e.List
	}
	e.Add(Validate(&pod.Spec, pod.Name, spec, Options{isPod: true}))
	before := old.Status.QOSClass
	if before == "" {
		before = QOSClass(old)
	}
	if QOSClass(pod) != before {
		e.Invalid(spec, pod.Status.QOSClass, "Pod QOS Class may not change as a result of resizing")
	}
	if !resizeSupported(old) {
		e.Forbidden(spec, "Pod running on node without support for resize")
	}
	rest := pod.Spec.DeepCopy()
	podLevelResize(e, rest, &old.Spec, spec)
	if len(old.Status.NodeAllocatableResourceClaimStatuses) > 0 {
		e.Forbidden(spec, "pods with node allocatable resource claims cannot be resized")
	}
	if !sameContainers(e, rest.Containers, old.Spec.Containers, "containers", spec) || !sameContainers(e, rest.InitContainers, old.Spec.InitContainers, "initContainers", spec) {
		return e.List
	}
	for i := range rest.InitContainers {
		removedForbidden(e, "", rest.InitContainers[i].Resources, old.Spec.InitContainers[i].Resources, spec.Child("initContainers").Index(i).Child("resources"))
	}
	for i := range rest.Containers {
		removedForbidden(e, "", rest.Containers[i].Resources, old.Spec.Containers[i].Resources, spec.Child("containers").Index(i).Child("resources"))
	}
	const mutable = "only cpu and memory resources are mutable"
	for i := range rest.Containers {
		c, was := &rest.Containers[i], &old.Spec.Containers[i]
		putBack(&c.Resources, &was.Resources)
		if !equality.Semantic.DeepEqual(c, was) {
			e.Forbidden(spec, mutable)
		}
	}
	for i := range rest.InitContainers {
		c, was, p := &rest.InitContainers[i], &old.Spec.InitContainers[i], spec.Child("initContainers").Index(i)
		resized := !equality.Semantic.DeepEqual(c, was)
		putBack(&c.Resources, &was.Resources)
		if !equality.Semantic.DeepEqual(c, was) {
			e.Forbidden(p, "only cpu and memory resources for init or sidecar containers are mutable")
		}
		sidecar := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		if resized && !sidecar && slices.ContainsFunc(c.ResizePolicy, func(r corev1.ContainerResizePolicy) bool { return r.RestartPolicy == corev1.RestartContainer }) {
			e.Forbidden(p, "non-sidecar init containers with a resize policy of RestartContainer cannot be resized")
		}
	}
	if len(e.List) == 0 && !Same(rest, &old.Spec) {
		e.Forbidden(spec, fmt.Sprintf("%s\n%v", mutable, diff.Diff(*rest, old.Spec)))
	}
	return e.List
}

// resizeSupported: a node that can resize reports the resources of running containers.
func resizeSupported(pod *corev1.Pod) bool {
	for _, status := range pod.Status.ContainerStatuses {
		if status.State.Running != nil {
			return status.Resources != nil
		}
	}
	return true
}

// podLevelResize checks the resources of the pod as a whole, and sets what may be resized to the old values in rest.
func podLevelResize(e *validate.Errors, rest, old *corev1.PodSpec, spec *field.Path) {
	p := spec.Child("resources")
	switch {
	case rest.Resources == nil && old.Resources == nil:
		return
	case rest.Resources == nil:
		e.Forbidden(p, "pod-level resources cannot be removed")
		return
	case old.Resources == nil:
		putBack(rest.Resources, &corev1.ResourceRequirements{})
		if r := rest.Resources; len(r.Requests) == 0 && len(r.Limits) == 0 && len(r.Claims) == 0 {
			rest.Resources = nil
		}
	default:
		removedForbidden(e, "pod-level ", *rest.Resources, *old.Resources, p)
		putBack(rest.Resources, old.Resources)
	}
	if !equality.Semantic.DeepEqual(rest.Resources, old.Resources) {
		e.Forbidden(spec, "only cpu and memory resources are mutable at pod-level")
	}
}

// sameContainers refuses other containers than there were, or in another order.
func sameContainers(e *validate.Errors, containers, old []corev1.Container, name string, spec *field.Path) bool {
	if len(containers) != len(old) {
		e.Forbidden(spec.Child(name), name+" may not be added or removed on resize")
		return false
	}
	same := true
	for i := range old {
		if containers[i].Name != old[i].Name {
			e.Forbidden(spec.Child(name).Index(i).Child("name"), name+" may not be renamed or reordered on resize")
			same = false
		}
	}
	return same
}

var resizable = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

// putBack sets what may be resized to the old values.
func putBack(now, before *corev1.ResourceRequirements) {
	restore := func(now *corev1.ResourceList, before corev1.ResourceList) {
		for _, name := range resizable {
			quantity, had := before[name]
			switch {
			case had && *now == nil:
				*now = corev1.ResourceList{name: quantity}
			case had:
				(*now)[name] = quantity
			default:
				delete(*now, name)
			}
		}
	}
	restore(&now.Requests, before.Requests)
	restore(&now.Limits, before.Limits)
}

func removedForbidden(e *validate.Errors, what string, now, before corev1.ResourceRequirements, p *field.Path) {
	lost := func(now, before corev1.ResourceList) bool {
		for name := range before {
			if _, has := now[name]; !has {
				return true
			}
		}
		return false
	}
	if lost(now.Requests, before.Requests) {
		e.Forbidden(p.Child("requests"), what+"resource requests cannot be removed")
	}
	if lost(now.Limits, before.Limits) {
		e.Forbidden(p.Child("limits"), what+"resource limits cannot be removed")
	}
}

// QOSClass computes a pod's class of service from its resources.
func QOSClass(pod *corev1.Pod) corev1.PodQOSClass {
	requests, limits := map[corev1.ResourceName]bool{}, map[corev1.ResourceName]bool{}
	equal := true
	add := func(r corev1.ResourceRequirements) (limited bool) {
		limited = true
		for _, name := range resizable {
			request, limit := r.Requests[name], r.Limits[name]
			if request.Sign() > 0 {
				requests[name] = true
			}
			if limit.Sign() > 0 {
				limits[name] = true
			} else {
				limited = false
			}
			equal = equal && request.Cmp(limit) == 0
		}
		return limited
	}
	guaranteed := true
	if r := pod.Spec.Resources; r != nil && (len(r.Requests) > 0 || len(r.Limits) > 0) {
		guaranteed = add(*r)
	} else {
		each(&corev1.PodSpec{InitContainers: pod.Spec.InitContainers, Containers: pod.Spec.Containers}, nil,
			func(c *corev1.Container, _ *field.Path) { guaranteed = add(c.Resources) && guaranteed })
	}
	switch {
	case len(requests) == 0 && len(limits) == 0:
		return corev1.PodQOSBestEffort
	case guaranteed && equal && len(requests) == len(limits):
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}
