package connect

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// containerOf checks the container named, or chooses the only one.
func containerOf(pod *corev1.Pod, name string) (string, error) {
	spec := &pod.Spec
	if name == "" {
		switch len(spec.Containers) {
		case 1:
			return spec.Containers[0].Name, nil
		case 0:
			return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s", pod.Name))
		}
		msg := fmt.Sprintf("a container name must be specified for pod %s, choose one of: [%s]", pod.Name, names(spec.Containers))
		if len(spec.InitContainers) > 0 {
			msg += fmt.Sprintf(" or one of the init containers: [%s]", names(spec.InitContainers))
		}
		if len(spec.EphemeralContainers) > 0 {
			var l []string
			for _, c := range spec.EphemeralContainers {
				l = append(l, c.Name)
			}
			msg += fmt.Sprintf(" or one of the ephemeral containers: [%s]", strings.Join(l, " "))
		}
		return "", apierrors.NewBadRequest(msg)
	}
	for _, l := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for _, c := range l {
			if c.Name == name {
				return name, nil
			}
		}
	}
	for _, c := range spec.EphemeralContainers {
		if c.Name == name {
			return name, nil
		}
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
}

func names(l []corev1.Container) string {
	out := make([]string, len(l))
	for i := range l {
		out[i] = l[i].Name
	}
	return strings.Join(out, " ")
}
