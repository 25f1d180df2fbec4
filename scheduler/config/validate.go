package config

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	componentv1 "k8s.io/component-base/config/v1alpha1"
	configv1 "k8s.io/kube-scheduler/config/v1"
)

func validate(c *configv1.KubeSchedulerConfiguration) error {
	var errs field.ErrorList
	if c.ClientConnection.Burst < 0 {
		errs = append(errs, field.Invalid(field.NewPath("clientConnection", "burst"), c.ClientConnection.Burst, "must be non-negative"))
	}
	errs = append(errs, validateLeaderElection(&c.LeaderElection, field.NewPath("leaderElection"))...)
	if *c.Parallelism <= 0 {
		errs = append(errs, field.Invalid(field.NewPath("parallelism"), *c.Parallelism, "should be an integer value greater than zero"))
	}
	profiles := field.NewPath("profiles")
	for i := range c.Profiles {
		p, path := &c.Profiles[i], profiles.Index(i)
		if *p.SchedulerName == "" {
			errs = append(errs, field.Required(path.Child("schedulerName"), ""))
		}
		errs = append(errs, validatePercentage(path, p.PercentageOfNodesToScore)...)
		errs = append(errs, validatePlugins(path, p)...)
		if first := slices.IndexFunc(c.Profiles, func(o configv1.KubeSchedulerProfile) bool { return *o.SchedulerName == *p.SchedulerName }); first < i {
			errs = append(errs, field.Duplicate(path.Child("schedulerName"), profiles.Index(first).Child("schedulerName")))
		}
		if i > 0 && !apiequality.Semantic.DeepEqual(c.Profiles[0].Plugins.QueueSort, p.Plugins.QueueSort) {
			errs = append(errs, field.Invalid(path.Child("plugins", "queueSort"), p.Plugins.QueueSort, "must be the same for all profiles"))
		}
	}
	if n := len(c.Profiles[0].Plugins.QueueSort.Enabled); n > 1 {
		errs = append(errs, field.Invalid(profiles.Index(0).Child("plugins", "queueSort", "Enabled"), n, "only one queue sort plugin can be enabled"))
	}
	errs = append(errs, validatePercentage(nil, c.PercentageOfNodesToScore)...)
	if n := *c.PodInitialBackoffSeconds; n <= 0 {
		errs = append(errs, field.Invalid(field.NewPath("podInitialBackoffSeconds"), n, "must be greater than 0"))
	}
	if n := *c.PodMaxBackoffSeconds; n < *c.PodInitialBackoffSeconds {
		errs = append(errs, field.Invalid(field.NewPath("podMaxBackoffSeconds"), n, "must be greater than or equal to PodInitialBackoffSeconds"))
	}
	return append(errs, validateExtenders(c.Extenders, field.NewPath("extenders"))...).ToAggregate()
}

func validateLeaderElection(le *componentv1.LeaderElectionConfiguration, path *field.Path) (errs field.ErrorList) {
	if !*le.LeaderElect {
		return nil
	}
	if le.LeaseDuration.Duration <= 0 {
		errs = append(errs, field.Invalid(path.Child("leaseDuration"), le.LeaseDuration, "must be greater than zero"))
	}
	if le.RenewDeadline.Duration <= 0 {
		errs = append(errs, field.Invalid(path.Child("renewDeadline"), le.RenewDeadline, "must be greater than zero"))
	}
	if le.RetryPeriod.Duration <= 0 {
		errs = append(errs, field.Invalid(path.Child("retryPeriod"), le.RetryPeriod, "must be greater than zero"))
	}
	if le.LeaseDuration.Duration <= le.RenewDeadline.Duration {
		errs = append(errs, field.Invalid(path.Child("leaseDuration"), le.RenewDeadline, "must be greater than `RenewDeadline`"))
	}
	if le.ResourceLock != "leases" {
		errs = append(errs, field.Invalid(path.Child("resourceLock"), le.ResourceLock, `resourceLock value must be "leases"`))
	}
	return errs
}

func validatePercentage(path *field.Path, p *int32) field.ErrorList {
	if p != nil && (*p < 0 || *p > 100) {
		return field.ErrorList{field.Invalid(path.Child("percentageOfNodesToScore"), *p, "not in valid range [0-100]")}
	}
	return nil
}

// removedPlugins were taken out of Kubernetes.
var removedPlugins = []string{"AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits"}

func validatePlugins(path *field.Path, p *configv1.KubeSchedulerProfile) (errs field.ErrorList) {
	removed := func(path *field.Path, name string) {
		if slices.Contains(removedPlugins, name) {
			version := configv1.SchemeGroupVersion.String()
			errs = append(errs, field.Invalid(path, name, fmt.Sprintf("was invalid in version %q (KubeSchedulerConfiguration is version %q)", version, version)))
		}
	}
	for _, at := range pointsOf(p.Plugins) {
		for i, e := range at.set.Enabled {
			removed(path.Child("plugins", at.name, "enabled").Index(i), e.Name)
		}
	}
	seen := map[string]bool{}
	for i := range p.PluginConfig {
		name, at := p.PluginConfig[i].Name, path.Child("pluginConfig").Index(i)
		if seen[name] {
			errs = append(errs, field.Duplicate(at, name))
		}
		seen[name] = true
		removed(at, name)
	}
	return errs
}

func validateExtenders(extenders []configv1.Extender, path *field.Path) (errs field.ErrorList) {
	binders := 0
	managed := map[string]bool{}
	for i := range extenders {
		x, at := &extenders[i], path.Index(i)
		if x.PrioritizeVerb != "" && x.Weight <= 0 {
			errs = append(errs, field.Invalid(at.Child("weight"), x.Weight, "must have a positive weight applied to it"))
		}
		if x.BindVerb != "" {
			binders++
		}
		for j, r := range x.ManagedResources {
			p := at.Child("managedResources").Index(j).Child("name")
			errs = append(errs, validateExtendedResource(p, r.Name)...)
			if managed[r.Name] {
				errs = append(errs, field.Invalid(p, r.Name, "duplicate extender managed resource name"))
			}
			managed[r.Name] = true
		}
	}
	if binders > 1 {
		errs = append(errs, field.Invalid(path, fmt.Sprintf("found %d extenders implementing bind", binders), "only one extender can implement bind"))
	}
	return errs
}

func validateExtendedResource(path *field.Path, name string) (errs field.ErrorList) {
	for _, msg := range validation.IsQualifiedName(name) {
		errs = append(errs, field.Invalid(path, name, msg))
	}
	if len(errs) > 0 {
		return errs
	}
	native := !strings.Contains(name, "/") || strings.Contains(name, corev1.ResourceDefaultNamespacePrefix)
	if native || strings.HasPrefix(name, corev1.DefaultResourceRequestsPrefix) || len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+name)) > 0 {
		errs = append(errs, field.Invalid(path, name, "is an invalid extended resource name"))
	}
	return errs
}
