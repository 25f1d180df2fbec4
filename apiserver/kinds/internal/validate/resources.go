package validate

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var (
	containerResources = sets.New(corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage)
	countedResources   = sets.New(
		corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers,
		corev1.ResourceSecrets, corev1.ResourceConfigMaps, corev1.ResourcePersistentVolumeClaims,
		corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers,
	)
	quotaResources = sets.New(
		corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsStorage, corev1.ResourceRequestsEphemeralStorage,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage,
	).Union(countedResources)
	standardResources = quotaResources.Union(sets.New(corev1.ResourceStorage))
)

// IsHugePages says whether a resource is pages of some size.
func IsHugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// IsNativeResource says whether a resource is in Kubernetes' own namespace: unprefixed or *kubernetes.io/.
func IsNativeResource(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// IsExtendedResource says whether a resource is one that devices and clusters add.
func IsExtendedResource(name corev1.ResourceName) bool {
	if IsNativeResource(name) || strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) {
		return false
	}
	// Its quota is named with this prefix.
	return len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+string(name))) == 0
}

// OvercommitAllowed says whether limits of a resource may exceed its requests.
func OvercommitAllowed(name corev1.ResourceName) bool {
	return IsNativeResource(name) && !IsHugePages(name)
}

// IsStandardContainerResource says whether containers can ask for a resource that has no prefix.
func IsStandardContainerResource(name corev1.ResourceName) bool {
	return containerResources.Has(name) || IsHugePages(name)
}

func isQuotaHugePages(name corev1.ResourceName) bool {
	return IsHugePages(name) || strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix)
}

// IsStandardQuotaResource says whether a quota can count an unprefixed resource.
func IsStandardQuotaResource(name corev1.ResourceName) bool {
	return quotaResources.Has(name) || isQuotaHugePages(name)
}

// IsInteger says whether a resource comes in whole numbers.
func IsInteger(name corev1.ResourceName) bool {
	return countedResources.Has(name) || IsExtendedResource(name)
}

// ResourceName checks a resource's name wherever one stands.
func (e *Errors) ResourceName(name corev1.ResourceName, p *field.Path) {
	if messages := validation.IsQualifiedName(string(name)); len(messages) > 0 {
		e.InvalidEach(p, name, messages)
		return
	}
	if !strings.Contains(string(name), "/") && !standardResources.Has(name) && !isQuotaHugePages(name) {
		e.Invalid(p, name, "must be a standard resource type or fully qualified")
	}
}

// ContainerResourceName checks the name of a resource that a container asks for.
func (e *Errors) ContainerResourceName(name corev1.ResourceName, p *field.Path) {
	e.ResourceName(name, p)
	if !strings.Contains(string(name), "/") {
		if !IsStandardContainerResource(name) {
			e.Invalid(p, name, "must be a standard resource for containers")
		}
	} else if !IsNativeResource(name) && !IsExtendedResource(name) {
		e.Invalid(p, name, "doesn't follow extended resource name standard")
	}
}

// QuotaResourceName checks the name of a resource that a quota bounds.
func (e *Errors) QuotaResourceName(name corev1.ResourceName, p *field.Path) {
	e.ResourceName(name, p)
	if !strings.Contains(string(name), "/") && !IsStandardQuotaResource(name) {
		e.Invalid(p, name, "must be a standard resource for quota")
	}
}

// ResourceQuantity checks the amount of a resource.
func (e *Errors) ResourceQuantity(name corev1.ResourceName, q resource.Quantity, p *field.Path) {
	e.NonNegativeQuantity(q, p)
	if IsInteger(name) && q.MilliValue()%1000 != 0 {
		e.Invalid(p, q, NotInteger)
	}
}

// HugePagesQuantity checks that an amount of huge pages is a whole number of them.
func (e *Errors) HugePagesQuantity(name corev1.ResourceName, q resource.Quantity, p *field.Path) {
	if !IsHugePages(name) {
		return
	}
	size, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
	if err != nil || size.Sign() <= 0 || q.Value()%size.Value() != 0 {
		e.Invalid(p, q.String(), fmt.Sprintf("%s is not positive integer multiple of %s", q.String(), name))
	}
}

// IsQualifiedWithPrefix says whether a name has a prefix, as everything has that is not Kubernetes' own.
func IsQualifiedWithPrefix(name string) bool { return strings.Contains(name, "/") }
