package config

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	configv1 "k8s.io/kube-scheduler/config/v1"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// withArgs makes those of Kubernetes' plugins that take arguments. ok is false for others.
func withArgs(args runtime.Object, ignored []string, path *field.Path) (p scheduler.Plugin, ok bool, err error) {
	switch a := args.(type) {
	case *configv1.NodeResourcesFitArgs:
		p, err = makeFit(a, ignored, path)
	case *configv1.NodeResourcesBalancedAllocationArgs:
		opts := plugins.NodeResourcesBalancedAllocationOptions{Resources: weights(a.Resources)}
		p, err = checked(opts.Validate(path), plugins.NewNodeResourcesBalancedAllocation, opts)
	case *configv1.NodeAffinityArgs:
		opts := plugins.NodeAffinityOptions{AddedAffinity: a.AddedAffinity}
		p, err = checked(opts.Validate(path), plugins.NewNodeAffinity, opts)
	case *configv1.InterPodAffinityArgs:
		opts := plugins.InterPodAffinityOptions{HardPodAffinityWeight: a.HardPodAffinityWeight, IgnorePreferredTermsOfExistingPods: a.IgnorePreferredTermsOfExistingPods}
		p, err = checked(opts.Validate(path), plugins.NewInterPodAffinity, opts)
	case *configv1.PodTopologySpreadArgs:
		opts := plugins.PodTopologySpreadOptions{DefaultingType: plugins.SpreadDefaulting(a.DefaultingType), DefaultConstraints: a.DefaultConstraints}
		p, err = checked(opts.Validate(path), plugins.NewPodTopologySpread, opts)
	case *configv1.VolumeBindingArgs:
		opts := plugins.VolumeBindingOptions{Shape: shape(a.Shape)}
		if s := a.BindTimeoutSeconds; s != nil {
			d := time.Duration(*s) * time.Second
			opts.BindTimeout = &d
		}
		p, err = checked(opts.Validate(path), plugins.NewVolumeBinding, opts)
	default:
		return nil, false, nil
	}
	return p, true, err
}

func checked[O any, P scheduler.Plugin](invalid error, make func(O) (P, error), opts O) (scheduler.Plugin, error) {
	if invalid != nil {
		return nil, invalid
	}
	return make(opts)
}

func makeFit(a *configv1.NodeResourcesFitArgs, ignored []string, path *field.Path) (scheduler.Plugin, error) {
	opts := plugins.NodeResourcesFitOptions{
		IgnoredResources: a.IgnoredResources, IgnoredResourceGroups: a.IgnoredResourceGroups,
		Scoring: plugins.ScoringStrategy{Type: plugins.ScoringStrategyType(a.ScoringStrategy.Type), Resources: weights(a.ScoringStrategy.Resources)},
	}
	var errs []error
	strategy := path.Child("scoringStrategy")
	byRatio := opts.Scoring.Type == plugins.RequestedToCapacityRatio
	switch r := a.ScoringStrategy.RequestedToCapacityRatio; {
	case opts.Scoring.Type == "":
		types := []plugins.ScoringStrategyType{plugins.LeastAllocated, plugins.MostAllocated, plugins.RequestedToCapacityRatio}
		errs = append(errs, field.NotSupported(strategy.Child("type"), opts.Scoring.Type, types))
	case r != nil && byRatio:
		opts.Scoring.Shape = shape(r.Shape)
	case r != nil:
		errs = append(errs, field.Forbidden(strategy.Child("requestedToCapacityRatio"), "must be nil when type is not RequestedToCapacityRatio"))
	case byRatio:
		errs = append(errs, field.Required(strategy.Child("requestedToCapacityRatio"), "must be specified when type is RequestedToCapacityRatio"))
		opts.Scoring.Shape = []plugins.ShapePoint{{}} // said already
	}
	if len(ignored) > 0 {
		opts.IgnoredResources = ignored // what extenders look after comes before the plugin's own list, as in kube-scheduler
	}
	if err := opts.Validate(path); err != nil {
		errs = append(errs, err)
	}
	return checked(utilerrors.NewAggregate(errs), plugins.NewNodeResourcesFit, opts)
}

func weights(from []configv1.ResourceSpec) (out []plugins.ResourceWeight) {
	for _, r := range from {
		out = append(out, plugins.ResourceWeight{Name: corev1.ResourceName(r.Name), Weight: r.Weight})
	}
	return out
}

func shape(from []configv1.UtilizationShapePoint) (out []plugins.ShapePoint) {
	for _, p := range from {
		out = append(out, plugins.ShapePoint{Utilization: p.Utilization, Score: p.Score})
	}
	return out
}

// checkUnused validates the arguments of a plugin that takes none here.
func checkUnused(args runtime.Object, path *field.Path) error {
	var errs field.ErrorList
	switch a := args.(type) {
	case *configv1.DefaultPreemptionArgs:
		percentage, absolute := path.Child("minCandidateNodesPercentage"), path.Child("minCandidateNodesAbsolute")
		p, n := *a.MinCandidateNodesPercentage, *a.MinCandidateNodesAbsolute
		if p < 0 || p > 100 {
			errs = append(errs, field.Invalid(percentage, p, "not in valid range [0, 100]"))
		}
		if n < 0 {
			errs = append(errs, field.Invalid(absolute, n, "not in valid range [0, inf)"))
		}
		if p == 0 && n == 0 {
			errs = append(errs,
				field.Invalid(percentage, p, "cannot be zero at the same time as minCandidateNodesAbsolute"),
				field.Invalid(absolute, n, "cannot be zero at the same time as minCandidateNodesPercentage"))
		}
	case *configv1.DynamicResourcesArgs:
		if t := a.FilterTimeout; t != nil && t.Duration < 0 {
			errs = append(errs, field.Invalid(path.Child("filterTimeout"), t, "must be zero or positive"))
		}
		if t := a.BindingTimeout; t != nil && t.Duration < time.Second {
			errs = append(errs, field.Invalid(path.Child("bindingTimeout"), t, "must be at least 1 second"))
		}
	}
	return errs.ToAggregate()
}

// takesArgs reports whether withArgs knows what to do with them.
func takesArgs(args runtime.Object) bool {
	switch args.(type) {
	case nil, *configv1.DefaultPreemptionArgs, *configv1.DynamicResourcesArgs:
		return false
	}
	return true
}
