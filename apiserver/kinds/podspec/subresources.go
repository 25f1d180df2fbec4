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
	if now, before := QOSClass(pod), QOSClass(old); now != before {
		e.Invalid(spec, now, "Pod QOS Class may not change as a result of resizing")
	}
	if len(pod.Spec.Containers) != len(old.Spec.Containers) || len(pod.Spec.InitContainers) != len(old.Spec.InitContainers) {
		e.Forbidden(spec.Child("containers"), "containers may not be added or removed on resize")
		return e.List
	}
	rest := pod.Spec.DeepCopy()
	resize := func(list, before []corev1.Container, path *field.Path, sidecars bool) {
		for i := range list {
			p := path.Index(i).Child("resources")
			if sidecars && (before[i].RestartPolicy == nil || *before[i].RestartPolicy != corev1.ContainerRestartPolicyAlways) {
				if !equality.Semantic.DeepEqual(list[i].Resources, before[i].Resources) {
					e.Forbidden(p, "resources for non-sidecar init containers are immutable")
				}
				continue
			}
			unsetForbidden(e, list[i].Resources, before[i].Resources, p)
			putBack(&list[i].Resources, &before[i].Resources)
		}
	}
	resize(rest.Containers, old.Spec.Containers, spec.Child("containers"), false)
	resize(rest.InitContainers, old.Spec.InitContainers, spec.Child("initContainers"), true)
	if rest.Resources != nil && old.Spec.Resources != nil {
		unsetForbidden(e, *rest.Resources, *old.Spec.Resources, spec.Child("resources"))
		putBack(rest.Resources, old.Spec.Resources)
	}
	if !equality.Semantic.DeepEqual(rest, &old.Spec) {
		e.Forbidden(spec, fmt.Sprintf("only cpu and memory resources are mutable\n%v", diff.Diff(*rest, old.Spec)))
	}
	return e.List
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

func unsetForbidden(e *validate.Errors, now, before corev1.ResourceRequirements, p *field.Path) {
	lost := func(now, before corev1.ResourceList) bool {
		return slices.ContainsFunc(resizable, func(name corev1.ResourceName) bool {
			_, had := before[name]
			_, has := now[name]
			return had && !has
		})
	}
	if lost(now.Limits, before.Limits) {
		e.Forbidden(p.Child("limits"), "resource limits cannot be removed")
	}
	if lost(now.Requests, before.Requests) {
		e.Forbidden(p.Child("requests"), "resource requests cannot be removed")
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
