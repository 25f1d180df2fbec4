package podspec

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

const (
	deletionCost = "controller.kubernetes.io/pod-deletion-cost"
	appArmor     = corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix
	seccompPod   = "seccomp.security.alpha.kubernetes.io/pod"
	seccompCtr   = "container.seccomp.security.alpha.kubernetes.io/"
)

// annotations checks those that mean something to Kubernetes.
func annotations(e *validate.Errors, given map[string]string, spec *corev1.PodSpec, p *field.Path) {
	if value, mirror := given[corev1.MirrorPodAnnotationKey]; mirror && spec.NodeName == "" {
		e.Invalid(p.Key(corev1.MirrorPodAnnotationKey), value, "must set spec.nodeName if mirror pod annotation is set")
	}
	if value := given[corev1.TolerationsAnnotationKey]; value != "" {
		var tolerations []corev1.Toleration
		if err := json.Unmarshal([]byte(value), &tolerations); err != nil {
			e.Invalid(p, corev1.TolerationsAnnotationKey, err.Error())
		} else {
			e.Add(ValidateTolerations(tolerations, p.Child(corev1.TolerationsAnnotationKey)))
		}
	}
	names := make([]string, 0, len(given))
	for name := range given {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		value := given[name]
		switch container, isAppArmor := strings.CutPrefix(name, appArmor); {
		case isAppArmor:
			if !hasContainer(spec, container) {
				e.Invalid(p.Key(name), container, "container not found")
			}
			if value != "" && value != "runtime/default" && value != "unconfined" && !strings.HasPrefix(value, "localhost/") {
				e.Invalid(p.Key(name), value, "invalid AppArmor profile name: \""+value+"\"")
			}
		case name == seccompPod || strings.HasPrefix(name, seccompCtr):
			local, isLocal := strings.CutPrefix(value, "localhost/")
			switch {
			case isLocal:
				e.LocalDescendingPath(local, p.Child(name))
			case value != "docker/default" && value != "unconfined" && value != "runtime/default":
				e.Invalid(p.Child(name), value, "must be a valid seccomp profile")
			}
		case name == deletionCost:
			if _, err := strconv.ParseInt(value, 10, 32); err != nil || (len(value) > 1 && (value[0] == '+' || value[0] == '0')) {
				e.Invalid(p.Key(name), value, "must be a 32bit integer")
			}
		}
	}
}

func hasContainer(spec *corev1.PodSpec, name string) bool {
	found := false
	each(spec, nil, func(c *corev1.Container, _ *field.Path) { found = found || c.Name == name })
	return found
}

// annotationChanges refuses changes of annotations that are fixed at creation, and checks the others.
func annotationChanges(e *validate.Errors, pod, old *corev1.Pod, p *field.Path) {
	fixed := func(name string) bool {
		return name == corev1.MirrorPodAnnotationKey || strings.HasPrefix(name, appArmor)
	}
	what := func(name string) string {
		if name == corev1.MirrorPodAnnotationKey {
			return "mirror pod annotation"
		}
		return "AppArmor annotations"
	}
	for name, before := range old.Annotations {
		now, still := pod.Annotations[name]
		// An AppArmor annotation of a container may go: the field says the same.
		if fixed(name) && (now != before || !still) && !(strings.HasPrefix(name, appArmor) && !still) {
			e.Forbidden(p.Key(name), "may not remove or update "+what(name))
		}
	}
	for name := range pod.Annotations {
		if _, had := old.Annotations[name]; fixed(name) && !had {
			e.Forbidden(p.Key(name), "may not add "+what(name))
		}
	}
	annotations(e, pod.Annotations, &pod.Spec, p)
}

// PrepareAppArmor gives containers the profiles that the deprecated annotations name, where the field that replaced
// them says nothing.
func PrepareAppArmor(pod *corev1.Pod) {
	each(&pod.Spec, nil, func(c *corev1.Container, _ *field.Path) {
		value, set := pod.Annotations[appArmor+c.Name]
		if !set || c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
			return
		}
		profile := &corev1.AppArmorProfile{}
		local, isLocal := strings.CutPrefix(value, "localhost/")
		switch {
		case isLocal:
			profile.Type, profile.LocalhostProfile = corev1.AppArmorProfileTypeLocalhost, &local
		case value == "runtime/default" || value == "":
			profile.Type = corev1.AppArmorProfileTypeRuntimeDefault
		case value == "unconfined":
			profile.Type = corev1.AppArmorProfileTypeUnconfined
		default:
			return // an invalid name, which validation tells
		}
		if c.SecurityContext == nil {
			c.SecurityContext = &corev1.SecurityContext{}
		}
		c.SecurityContext.AppArmorProfile = profile
	})
}
