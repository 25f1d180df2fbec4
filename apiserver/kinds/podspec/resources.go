package podspec

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

// overcommitAllowed says whether limits of a resource may exceed its requests.
func overcommitAllowed(name corev1.ResourceName) bool { return validate.OvercommitAllowed(name) }

func (c *check) containerResources(r *corev1.ResourceRequirements, p *field.Path) {
	c.requirements(r, c.claims, p, c.ContainerResourceName)
}

// requirements checks limits and requests and their relation. claims may be nil where none can be named.
func (c *check) requirements(r *corev1.ResourceRequirements, claims sets.Set[string], p *field.Path, name func(corev1.ResourceName, *field.Path)) {
	limits, requests := p.Child("limits"), p.Child("requests")
	var computes, hugepages bool
	note := func(n corev1.ResourceName) {
		hugepages = hugepages || validate.IsHugePages(n)
		computes = computes || n == corev1.ResourceCPU || n == corev1.ResourceMemory
	}
	for _, n := range sortedNames(r.Limits) {
		quantity, key := r.Limits[n], limits.Key(string(n))
		name(n, key)
		c.ResourceQuantity(n, quantity, key)
		c.HugePagesQuantity(n, quantity, key)
		note(n)
	}
	for _, n := range sortedNames(r.Requests) {
		quantity, key := r.Requests[n], requests.Key(string(n))
		name(n, key)
		c.ResourceQuantity(n, quantity, key)
		limit, limited := r.Limits[n]
		switch allowed := overcommitAllowed(n); {
		case limited && !allowed && quantity.Cmp(limit) != 0:
			c.Invalid(requests, quantity.String(), fmt.Sprintf("must be equal to %s limit of %s", n, limit.String()))
		case limited && allowed && quantity.Cmp(limit) > 0:
			c.Invalid(requests, quantity.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", n, limit.String()))
		case !limited && !allowed:
			c.Required(limits, "Limit must be set for non overcommitable resources")
		}
		c.HugePagesQuantity(n, quantity, key)
		note(n)
	}
	if hugepages && !computes {
		c.Forbidden(p, "HugePages require cpu or memory")
	}
	c.claimReferences(r.Claims, claims, p.Child("claims"))
}

func sortedNames(list corev1.ResourceList) []corev1.ResourceName {
	names := make([]corev1.ResourceName, 0, len(list))
	for name := range list {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (c *check) claimReferences(references []corev1.ResourceClaim, claims sets.Set[string], path *field.Path) {
	seen := sets.New[corev1.ResourceClaim]()
	for i, reference := range references {
		p := path.Index(i)
		if reference.Name == "" {
			c.Required(p, "")
			continue
		}
		whole := corev1.ResourceClaim{Name: reference.Name}
		switch {
		case seen.Has(reference):
			c.Duplicate(p, reference.Name)
		case seen.Has(whole), reference.Request == "" && slices.ContainsFunc(references[:i], func(r corev1.ResourceClaim) bool { return r.Name == reference.Name }):
			c.Duplicate(p, reference.Name)
		}
		seen.Insert(reference)
		if reference.Request != "" {
			for _, part := range strings.Split(reference.Request, "/") {
				c.DNSLabel(part, p.Child("request"))
			}
		}
		if !claims.Has(reference.Name) {
			detail := "must be one of the names in pod.spec.resourceClaims"
			if claims.Len() == 0 {
				detail += " which is empty"
			} else {
				detail += ": " + strings.Join(sets.List(claims), ", ")
			}
			err := field.NotFound(p, reference.Name)
			err.Detail = detail
			c.List = append(c.List, err)
		}
	}
}

func (c *check) resourceClaims(claims []corev1.PodResourceClaim, path *field.Path) {
	c.claims = sets.New[string]()
	for i, claim := range claims {
		p := path.Index(i)
		if c.claims.Has(claim.Name) {
			c.Duplicate(p.Child("name"), claim.Name)
		}
		if claim.Name == "" {
			c.Required(p.Child("name"), "")
		} else {
			c.DNSLabel(claim.Name, p.Child("name"))
			c.claims.Insert(claim.Name)
		}
		switch {
		case claim.ResourceClaimName != nil && claim.ResourceClaimTemplateName != nil:
			c.Invalid(p, claim, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified")
		case claim.ResourceClaimName == nil && claim.ResourceClaimTemplateName == nil:
			c.Invalid(p, claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`")
		}
		if claim.ResourceClaimName != nil {
			c.DNSSubdomain(*claim.ResourceClaimName, p.Child("resourceClaimName"))
		}
		if claim.ResourceClaimTemplateName != nil {
			c.DNSSubdomain(*claim.ResourceClaimTemplateName, p.Child("resourceClaimTemplateName"))
		}
	}
}

func (c *check) resizePolicy(policies []corev1.ContainerResizePolicy, path *field.Path) {
	seen := sets.New[corev1.ResourceName]()
	for i, policy := range policies {
		p := path.Index(i)
		if seen.Has(policy.ResourceName) {
			c.Duplicate(p, policy.ResourceName)
		}
		seen.Insert(policy.ResourceName)
		validate.OneOf(&c.Errors, p.Child("resourceName"), policy.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)
		validate.OneOf(&c.Errors, p.Child("restartPolicy"), policy.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)
		if c.spec.RestartPolicy == corev1.RestartPolicyNever && policy.RestartPolicy != corev1.NotRequired && policy.RestartPolicy != "" {
			c.Invalid(p.Child("restartPolicy"), policy.RestartPolicy, "must be 'NotRequired' when `restartPolicy` is 'Never'")
		}
	}
}

// podLevelResources checks the resources of the pod as a whole, which bound those of its containers.
func (c *check) podLevelResources(p *field.Path) {
	r := c.spec.Resources
	if r == nil {
		return
	}
	if c.spec.OS != nil && c.spec.OS.Name == corev1.Windows {
		c.Forbidden(p, "may not be set for a windows pod")
		return
	}
	if len(r.Claims) > 0 {
		c.Forbidden(p.Child("claims"), "claims cannot be set for Resources at pod-level")
	}
	c.requirements(&corev1.ResourceRequirements{Limits: r.Limits, Requests: r.Requests}, nil, p, func(n corev1.ResourceName, key *field.Path) {
		before := len(c.List)
		if c.ResourceName(n, key); len(c.List) > before {
			return
		}
		if !resourcehelper.IsSupportedPodLevelResource(n) {
			validate.NotSupported(&c.Errors, key, n, sets.List(resourcehelper.SupportedPodLevelResources())...)
		}
	})
	pod := &corev1.Pod{Spec: *c.spec}
	aggregated := resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{})
	for _, n := range sortedNames(aggregated) {
		limit, limited := r.Requests[n]
		if total := aggregated[n]; limited && resourcehelper.IsSupportedPodLevelResource(n) && total.Cmp(limit) > 0 {
			c.Invalid(p.Child("requests").Key(string(n)), limit.String(),
				fmt.Sprintf("must be greater than or equal to aggregate container requests of %s", total.String()))
		}
	}
	aggregated = resourcehelper.AggregateContainerLimits(pod, resourcehelper.PodResourcesOptions{})
	for _, n := range sortedNames(aggregated) {
		limit, limited := r.Limits[n]
		if total := aggregated[n]; limited && validate.IsHugePages(n) && total.Cmp(limit) > 0 {
			c.Invalid(p.Child("limits").Key(string(n)), limit.String(),
				fmt.Sprintf("must be greater than or equal to aggregate container limits of %s", total.String()))
		}
	}
	for i := range c.spec.Containers {
		limits := c.spec.Containers[i].Resources.Limits
		for _, n := range sortedNames(limits) {
			limit := limits[n]
			if podLimit, set := r.Limits[n]; set && limit.Cmp(podLimit) > 0 {
				// The path is Kubernetes', odd as it is.
				c.Invalid(p.Child("containers").Index(i).Key(string(n)).Child("limits"), limit.String(),
					fmt.Sprintf("must be less than or equal to pod limits of %s", podLimit.String()))
			}
		}
	}
}
