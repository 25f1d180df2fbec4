package resourcequota

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	podresource "k8s.io/component-helpers/resource"

	"github.com/keelson/keelson/controller/internal/pods"
)

func one() resource.Quantity { return *resource.NewQuantity(1, resource.DecimalSI) }

func add(to corev1.ResourceList, name corev1.ResourceName, q resource.Quantity) {
	sum := to[name]
	sum.Add(q)
	to[name] = sum
}

// ofPod is what a pod uses. One that has finished uses but its place.
func ofPod(p *corev1.Pod) corev1.ResourceList {
	out := corev1.ResourceList{"count/pods": one()}
	if pods.IsFinished(p) {
		return out
	}
	out[corev1.ResourcePods] = one()
	for name, q := range podresource.PodRequests(p, podresource.PodResourcesOptions{UseStatusResources: true}) {
		switch {
		case name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage:
			add(out, name, q)
			add(out, "requests."+name, q)
		case strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix):
			add(out, name, q)
			add(out, "requests."+name, q)
		case strings.Contains(string(name), "/"):
			add(out, "requests."+name, q)
		}
	}
	for name, q := range podresource.PodLimits(p, podresource.PodResourcesOptions{UseStatusResources: true}) {
		if name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage {
			add(out, "limits."+name, q)
		}
	}
	return out
}

func ofService(s *corev1.Service) corev1.ResourceList {
	out := corev1.ResourceList{"count/services": one(), corev1.ResourceServices: one()}
	ports := *resource.NewQuantity(int64(len(s.Spec.Ports)), resource.DecimalSI)
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		out[corev1.ResourceServicesNodePorts] = ports
	case corev1.ServiceTypeLoadBalancer:
		out[corev1.ResourceServicesLoadBalancers] = one()
		if a := s.Spec.AllocateLoadBalancerNodePorts; a == nil || *a {
			out[corev1.ResourceServicesNodePorts] = ports
		} else {
			n := int64(0)
			for _, p := range s.Spec.Ports {
				if p.NodePort != 0 {
					n++
				}
			}
			out[corev1.ResourceServicesNodePorts] = *resource.NewQuantity(n, resource.DecimalSI)
		}
	}
	return out
}

const storageClassInfix = ".storageclass.storage.k8s.io/"

func ofClaim(c *corev1.PersistentVolumeClaim) corev1.ResourceList {
	out := corev1.ResourceList{"count/persistentvolumeclaims": one(), corev1.ResourcePersistentVolumeClaims: one()}
	class := c.Annotations[corev1.BetaStorageClassAnnotation]
	if class == "" && c.Spec.StorageClassName != nil {
		class = *c.Spec.StorageClassName
	}
	size := c.Spec.Resources.Requests[corev1.ResourceStorage]
	// A claim being shrunk still holds what was allocated.
	if a, ok := c.Status.AllocatedResources[corev1.ResourceStorage]; ok && a.Cmp(size) > 0 {
		size = a
	}
	add(out, corev1.ResourceRequestsStorage, size)
	if class != "" {
		add(out, corev1.ResourceName(class+storageClassInfix+"requests.storage"), size)
		add(out, corev1.ResourceName(class+storageClassInfix+"persistentvolumeclaims"), one())
	}
	return out
}

// measured are the names that pods, services and claims account for.
func measured(name corev1.ResourceName) string {
	s := string(name)
	switch {
	case s == "pods" || s == "count/pods" || s == "cpu" || s == "memory" || s == "ephemeral-storage",
		strings.HasPrefix(s, "limits."), strings.HasPrefix(s, corev1.ResourceHugePagesPrefix):
		return "pods"
	case strings.HasPrefix(s, "requests.") && s != "requests.storage":
		return "pods"
	case s == "services" || s == "count/services" || strings.HasPrefix(s, "services."):
		return "services"
	case s == "persistentvolumeclaims" || s == "count/persistentvolumeclaims" || s == "requests.storage" || strings.Contains(s, storageClassInfix):
		return "persistentvolumeclaims"
	}
	return ""
}

// counted is the group and resource whose objects a name counts.
func counted(name corev1.ResourceName) string {
	if rest, ok := strings.CutPrefix(string(name), "count/"); ok {
		return rest
	}
	return string(name) // configmaps, secrets, replicationcontrollers, resourcequotas
}

// selects says whether a quota is about a pod, by its scopes.
func selects(q *corev1.ResourceQuota, p *corev1.Pod) (bool, error) {
	reqs := []corev1.ScopedResourceSelectorRequirement{}
	for _, s := range q.Spec.Scopes {
		reqs = append(reqs, corev1.ScopedResourceSelectorRequirement{ScopeName: s, Operator: corev1.ScopeSelectorOpExists})
	}
	if q.Spec.ScopeSelector != nil {
		reqs = append(reqs, q.Spec.ScopeSelector.MatchExpressions...)
	}
	for _, r := range reqs {
		ok, err := inScope(r, p)
		if err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

func inScope(r corev1.ScopedResourceSelectorRequirement, p *corev1.Pod) (bool, error) {
	terminating := p.Spec.ActiveDeadlineSeconds != nil && *p.Spec.ActiveDeadlineSeconds >= 0
	switch r.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return terminating, nil
	case corev1.ResourceQuotaScopeNotTerminating:
		return !terminating, nil
	case corev1.ResourceQuotaScopeBestEffort:
		return bestEffort(p), nil
	case corev1.ResourceQuotaScopeNotBestEffort:
		return !bestEffort(p), nil
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return crossNamespace(p), nil
	case corev1.ResourceQuotaScopePriorityClass:
		if r.Operator == corev1.ScopeSelectorOpExists {
			return p.Spec.PriorityClassName != "", nil
		}
		return matchValues(r, p.Spec.PriorityClassName)
	}
	return false, nil
}

func matchValues(r corev1.ScopedResourceSelectorRequirement, value string) (bool, error) {
	op := map[corev1.ScopeSelectorOperator]selection.Operator{
		corev1.ScopeSelectorOpIn: selection.In, corev1.ScopeSelectorOpNotIn: selection.NotIn, corev1.ScopeSelectorOpDoesNotExist: selection.DoesNotExist,
	}[r.Operator]
	req, err := labels.NewRequirement(string(r.ScopeName), op, r.Values)
	if err != nil {
		return false, fmt.Errorf("scope %s: %w", r.ScopeName, err)
	}
	set := labels.Set{}
	if value != "" {
		set[string(r.ScopeName)] = value
	}
	return req.Matches(set), nil
}

func bestEffort(p *corev1.Pod) bool {
	for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
		for _, list := range []corev1.ResourceList{c.Resources.Requests, c.Resources.Limits} {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				if q := list[name]; !q.IsZero() {
					return false
				}
			}
		}
	}
	return true
}

func crossNamespace(p *corev1.Pod) bool {
	a := p.Spec.Affinity
	if a == nil {
		return false
	}
	across := func(t corev1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil }
	weighted := func(t corev1.WeightedPodAffinityTerm) bool { return across(t.PodAffinityTerm) }
	if pa := a.PodAffinity; pa != nil && (slices.ContainsFunc(pa.RequiredDuringSchedulingIgnoredDuringExecution, across) ||
		slices.ContainsFunc(pa.PreferredDuringSchedulingIgnoredDuringExecution, weighted)) {
		return true
	}
	pa := a.PodAntiAffinity
	return pa != nil && (slices.ContainsFunc(pa.RequiredDuringSchedulingIgnoredDuringExecution, across) ||
		slices.ContainsFunc(pa.PreferredDuringSchedulingIgnoredDuringExecution, weighted))
}

// scoped says whether a quota is restricted to some pods; then it counts
// nothing else.
func scoped(q *corev1.ResourceQuota) bool {
	return len(q.Spec.Scopes) > 0 || q.Spec.ScopeSelector != nil
}
