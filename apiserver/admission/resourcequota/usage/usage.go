package usage

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	resourcehelper "k8s.io/component-helpers/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Pods that are to be gone are counted for so long beyond their grace period.
const stuckAfter = time.Minute

var one = *resource.NewQuantity(1, resource.DecimalSI)

func countName(gr schema.GroupResource) corev1.ResourceName {
	if gr.Group == "" {
		return corev1.ResourceName("count/" + gr.Resource)
	}
	return corev1.ResourceName("count/" + gr.Resource + "." + gr.Group)
}

// legacyCounts are resources whose number has had a name before count/ came.
func legacyCount(gr schema.GroupResource) (corev1.ResourceName, bool) {
	if gr.Group != "" {
		return "", false
	}
	switch gr.Resource {
	case "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps", "persistentvolumeclaims", "pods":
		return corev1.ResourceName(gr.Resource), true
	}
	return "", false
}

// Of is what one object uses at a time, by every name that quotas can have for it.
func Of(gr schema.GroupResource, obj any, now time.Time) corev1.ResourceList {
	use := corev1.ResourceList{countName(gr): one}
	legacy, hasLegacy := legacyCount(gr)
	switch o := obj.(type) {
	case *corev1.Pod:
		if Finished(o, now) {
			return use
		}
		use["pods"] = one
		addCompute(use, o)
	case *corev1.Service:
		use["services"] = one
		addService(use, o)
	case *corev1.PersistentVolumeClaim:
		use["persistentvolumeclaims"] = one
		addClaim(use, o)
	default:
		if hasLegacy {
			use[legacy] = one
		}
	}
	return use
}

// Finished tells pods that hold no resources any more.
func Finished(pod *corev1.Pod, now time.Time) bool {
	if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		return true
	}
	if pod.DeletionTimestamp != nil && pod.DeletionGracePeriodSeconds != nil {
		// A pod that is stuck long after its grace period is not counted.
		return pod.DeletionTimestamp.Add(stuckAfter).Before(now)
	}
	return false
}

func addCompute(use corev1.ResourceList, pod *corev1.Pod) {
	opts := resourcehelper.PodResourcesOptions{UseStatusResources: true}
	for name, q := range resourcehelper.PodRequests(pod, opts) {
		switch {
		case name == corev1.ResourceCPU, name == corev1.ResourceMemory, name == corev1.ResourceEphemeralStorage:
			use[name] = q
			use["requests."+name] = q
		case strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix):
			use[name] = q
			use["requests."+name] = q
		case isExtended(name):
			use["requests."+name] = q
		}
	}
	for name, q := range resourcehelper.PodLimits(pod, opts) {
		switch name {
		case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
			use["limits."+name] = q
		}
	}
}

func isExtended(name corev1.ResourceName) bool {
	domain, _, ok := strings.Cut(string(name), "/")
	return ok && domain != "kubernetes.io" && !strings.HasSuffix(domain, ".kubernetes.io") && !strings.HasPrefix(string(name), "requests.")
}

func addService(use corev1.ResourceList, s *corev1.Service) {
	ports := int64(len(s.Spec.Ports))
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		use[corev1.ResourceServicesNodePorts] = *resource.NewQuantity(ports, resource.DecimalSI)
		use[corev1.ResourceServicesLoadBalancers] = *resource.NewQuantity(0, resource.DecimalSI)
	case corev1.ServiceTypeLoadBalancer:
		if s.Spec.AllocateLoadBalancerNodePorts != nil && !*s.Spec.AllocateLoadBalancerNodePorts {
			ports = 0
			for _, p := range s.Spec.Ports {
				if p.NodePort != 0 {
					ports++
				}
			}
		}
		use[corev1.ResourceServicesNodePorts] = *resource.NewQuantity(ports, resource.DecimalSI)
		use[corev1.ResourceServicesLoadBalancers] = one
	}
}

func addClaim(use corev1.ResourceList, c *corev1.PersistentVolumeClaim) {
	class := c.Annotations[corev1.BetaStorageClassAnnotation]
	if class == "" && c.Spec.StorageClassName != nil {
		class = *c.Spec.StorageClassName
	}
	size, sized := c.Spec.Resources.Requests[corev1.ResourceStorage]
	if allocated, ok := c.Status.AllocatedResources[corev1.ResourceStorage]; ok && sized && allocated.Cmp(size) > 0 {
		size = allocated
	}
	if sized {
		use[corev1.ResourceRequestsStorage] = size
	}
	if class != "" {
		suffix := corev1.ResourceName(class + ".storageclass.storage.k8s.io/")
		use[suffix+"persistentvolumeclaims"] = one
		if sized {
			use[suffix+corev1.ResourceRequestsStorage] = size
		}
	}
}

// Matches tells whether a quota counts an object, by its scopes.
func Matches(quota *corev1.ResourceQuota, obj client.Object) (bool, error) {
	terms := make([]corev1.ScopedResourceSelectorRequirement, 0, len(quota.Spec.Scopes))
	for _, s := range quota.Spec.Scopes {
		terms = append(terms, corev1.ScopedResourceSelectorRequirement{ScopeName: s, Operator: corev1.ScopeSelectorOpExists})
	}
	if quota.Spec.ScopeSelector != nil {
		terms = append(terms, quota.Spec.ScopeSelector.MatchExpressions...)
	}
	for _, term := range terms {
		ok, err := inScope(term, obj)
		if err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

func inScope(term corev1.ScopedResourceSelectorRequirement, obj client.Object) (bool, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		if claim, isClaim := obj.(*corev1.PersistentVolumeClaim); isClaim && term.ScopeName == corev1.ResourceQuotaScopeVolumeAttributesClass {
			value := ""
			if claim.Spec.VolumeAttributesClassName != nil {
				value = *claim.Spec.VolumeAttributesClassName
			}
			return valueInScope(term, value)
		}
		return false, nil
	}
	switch term.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return pod.Spec.ActiveDeadlineSeconds != nil && *pod.Spec.ActiveDeadlineSeconds >= 0, nil
	case corev1.ResourceQuotaScopeNotTerminating:
		return pod.Spec.ActiveDeadlineSeconds == nil || *pod.Spec.ActiveDeadlineSeconds < 0, nil
	case corev1.ResourceQuotaScopeBestEffort:
		return bestEffort(pod), nil
	case corev1.ResourceQuotaScopeNotBestEffort:
		return !bestEffort(pod), nil
	case corev1.ResourceQuotaScopePriorityClass:
		return valueInScope(term, pod.Spec.PriorityClassName)
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return crossesNamespaces(pod.Spec.Affinity), nil
	default:
		return false, nil
	}
}

// bestEffort tells pods that neither ask for CPU or memory nor bound them.
func bestEffort(pod *corev1.Pod) bool {
	sets := func(r *corev1.ResourceRequirements) bool {
		for _, list := range []corev1.ResourceList{r.Requests, r.Limits} {
			for name, q := range list {
				if (name == corev1.ResourceCPU || name == corev1.ResourceMemory) && q.Sign() > 0 {
					return true
				}
			}
		}
		return false
	}
	if pod.Spec.Resources != nil && sets(pod.Spec.Resources) {
		return false
	}
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if sets(&list[i].Resources) {
				return false
			}
		}
	}
	return true
}

func valueInScope(term corev1.ScopedResourceSelectorRequirement, value string) (bool, error) {
	if term.Operator == corev1.ScopeSelectorOpExists {
		return value != "", nil
	}
	operator := metav1.LabelSelectorOperator(term.Operator)
	selector, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: string(term.ScopeName), Operator: operator, Values: term.Values},
	}})
	if err != nil {
		return false, fmt.Errorf("failed to parse and convert selector: %w", err)
	}
	set := labels.Set{}
	if value != "" {
		set[string(term.ScopeName)] = value
	}
	return selector.Matches(set), nil
}

func crossesNamespaces(a *corev1.Affinity) bool {
	if a == nil {
		return false
	}
	term := func(t *corev1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil }
	var required []corev1.PodAffinityTerm
	var preferred []corev1.WeightedPodAffinityTerm
	if a.PodAffinity != nil {
		required = append(required, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution...)
		preferred = append(preferred, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution...)
	}
	if a.PodAntiAffinity != nil {
		required = append(required, a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution...)
		preferred = append(preferred, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution...)
	}
	for i := range required {
		if term(&required[i]) {
			return true
		}
	}
	for i := range preferred {
		if term(&preferred[i].PodAffinityTerm) {
			return true
		}
	}
	return false
}

// Missing names the compute resources that a quota bounds and that containers of a pod do not specify.
func Missing(pod *corev1.Pod, hard corev1.ResourceList) error {
	var required []corev1.ResourceName
	for name := range hard {
		switch name {
		case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory:
			required = append(required, name)
		}
	}
	slices.Sort(required)
	var parts []string
	for _, name := range required {
		var lacking []string
		for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
			for i := range list {
				if !specifies(&list[i].Resources, name) && !(pod.Spec.Resources != nil && specifies(pod.Spec.Resources, name)) {
					lacking = append(lacking, list[i].Name)
				}
			}
		}
		if len(lacking) > 0 {
			slices.Sort(lacking)
			parts = append(parts, fmt.Sprintf("%s for: %s", name, strings.Join(lacking, ",")))
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return fmt.Errorf("must specify %s", strings.Join(parts, "; "))
}

func specifies(r *corev1.ResourceRequirements, name corev1.ResourceName) bool {
	list := r.Requests
	if rest, ok := strings.CutPrefix(string(name), "limits."); ok {
		list, name = r.Limits, corev1.ResourceName(rest)
	}
	_, ok := list[corev1.ResourceName(strings.TrimPrefix(string(name), "requests."))]
	return ok
}
