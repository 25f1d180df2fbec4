package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

// check carries what the checks of one pod spec need to know of its other parts.
type check struct {
	validate.Errors
	spec *corev1.PodSpec
	opts Options
	// volumes are the valid volumes by name, claims the names of the resource claims.
	volumes map[string]*corev1.VolumeSource
	claims  sets.Set[string]
}

// Validate returns every mistake of a pod's spec. name is the pod's, or "" in a template: generic ephemeral volumes
// make claims whose names contain it.
func Validate(spec *corev1.PodSpec, podName string, path *field.Path, opts Options) field.ErrorList {
	c := &check{spec: spec, opts: opts}
	c.podVolumes(podName, path.Child("volumes"))
	c.resourceClaims(spec.ResourceClaims, path.Child("resourceClaims"))
	c.containers(path.Child("containers"))
	c.initContainers(path.Child("initContainers"))
	c.ephemeralContainers(spec.EphemeralContainers, path.Child("ephemeralContainers"))
	c.hostNetworkPorts(path)
	c.policies(path)
	c.podSecurity(path)
	c.affinity(spec.Affinity, path.Child("affinity"))
	c.dnsConfig(path.Child("dnsConfig"))
	c.readinessGates(path.Child("readinessGates"))
	c.schedulingGates(path.Child("schedulingGates"))
	c.schedulingGroup(path.Child("schedulingGroup", "podGroupName"))
	c.topologySpread(path.Child("topologySpreadConstraints"))
	c.windowsHostProcess(path)
	c.hostUsers(path)
	c.scalars(path)
	c.operatingSystem(path)
	c.podLevelResources(path.Child("resources"))
	return c.List
}

// each calls f for every container of the spec, init containers first, ephemeral ones last.
func each(spec *corev1.PodSpec, path *field.Path, f func(c *corev1.Container, p *field.Path)) {
	for i := range spec.InitContainers {
		f(&spec.InitContainers[i], path.Child("initContainers").Index(i))
	}
	for i := range spec.Containers {
		f(&spec.Containers[i], path.Child("containers").Index(i))
	}
	for i := range spec.EphemeralContainers {
		f((*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon), path.Child("ephemeralContainers").Index(i))
	}
}
