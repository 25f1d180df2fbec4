package plugins

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/scheduler"
)

// SpreadDefaulting says where the constraints of pods come from that have none.
type SpreadDefaulting string

// Where default constraints come from.
const (
	// SystemDefaulting: Kubernetes' own, which prefer to spread pods over hosts and zones. The default.
	SystemDefaulting SpreadDefaulting = "System"
	// ListDefaulting: PodTopologySpreadOptions.DefaultConstraints.
	ListDefaulting SpreadDefaulting = "List"
)

// PodTopologySpreadOptions are the arguments of PodTopologySpread.
type PodTopologySpreadOptions struct {
	// DefaultingType is SystemDefaulting by default.
	DefaultingType SpreadDefaulting
	// DefaultConstraints, for ListDefaulting. They have no selectors: those are made of the Services and the controller that a pod belongs to.
	DefaultConstraints []corev1.TopologySpreadConstraint
}

// Validate reports what is wrong, in kube-scheduler's words: fields are named as in a KubeSchedulerConfiguration, below path.
func (o PodTopologySpreadOptions) Validate(path *field.Path) error {
	var errs field.ErrorList
	switch p := path.Child("defaultingType"); {
	case o.DefaultingType != "" && o.DefaultingType != SystemDefaulting && o.DefaultingType != ListDefaulting:
		errs = append(errs, field.NotSupported(p, o.DefaultingType, []SpreadDefaulting{SystemDefaulting, ListDefaulting}))
	case o.DefaultingType != ListDefaulting && len(o.DefaultConstraints) > 0:
		errs = append(errs, field.Invalid(p, SystemDefaulting, "when .defaultConstraints are not empty"))
	}
	for i := range o.DefaultConstraints {
		errs = append(errs, o.validateConstraint(path.Child("defaultConstraints"), i)...)
	}
	return errs.ToAggregate()
}

func (o PodTopologySpreadOptions) validateConstraint(path *field.Path, i int) (errs field.ErrorList) {
	c, p := &o.DefaultConstraints[i], path.Index(i)
	if c.MaxSkew <= 0 {
		errs = append(errs, field.Invalid(p.Child("maxSkew"), c.MaxSkew, "not in valid range (0, inf)"))
	}
	if c.TopologyKey == "" {
		errs = append(errs, field.Required(p.Child("topologyKey"), "can not be empty"))
	} else {
		errs = append(errs, validation.ValidateLabelName(c.TopologyKey, p.Child("topologyKey"))...)
	}
	actions := []corev1.UnsatisfiableConstraintAction{corev1.DoNotSchedule, corev1.ScheduleAnyway}
	switch {
	case c.WhenUnsatisfiable == "":
		errs = append(errs, field.Required(p.Child("whenUnsatisfiable"), "can not be empty"))
	case !slices.Contains(actions, c.WhenUnsatisfiable):
		errs = append(errs, field.NotSupported(p.Child("whenUnsatisfiable"), c.WhenUnsatisfiable, actions))
	}
	if c.LabelSelector != nil {
		errs = append(errs, field.Forbidden(p.Child("labelSelector"), "constraint must not define a selector, as they deduced for each pod"))
	}
	if slices.ContainsFunc(o.DefaultConstraints[:i], func(other corev1.TopologySpreadConstraint) bool {
		return other.TopologyKey == c.TopologyKey && other.WhenUnsatisfiable == c.WhenUnsatisfiable
	}) {
		errs = append(errs, field.Duplicate(p, fmt.Sprintf("{%v, %v}", c.TopologyKey, c.WhenUnsatisfiable)))
	}
	return errs
}

// NewPodTopologySpread returns the rule with options of your own.
func NewPodTopologySpread(opts PodTopologySpreadOptions) (PodTopologySpread, error) {
	if err := opts.Validate(nil); err != nil {
		return PodTopologySpread{}, fmt.Errorf("plugins: PodTopologySpread: %w", err)
	}
	if opts.DefaultingType != ListDefaulting {
		return PodTopologySpread{}, nil
	}
	// A pod with those constraints has them parsed as a pod's own are.
	like := scheduler.NewPod(&corev1.Pod{Spec: corev1.PodSpec{TopologySpreadConstraints: opts.DefaultConstraints}})
	return PodTopologySpread{&like.Spread}, nil
}

// defaultConstraints are those of a pod that has none of its own.
func (p PodTopologySpread) defaultConstraints(pod *scheduler.Pod, siblings scheduler.PodSelector) []scheduler.SpreadConstraint {
	if p.defaults == nil {
		return []scheduler.SpreadConstraint{
			{MaxSkew: 3, MinDomains: 1, TopologyKey: corev1.LabelHostname, Selector: siblings, HonorAffinity: true},
			{MaxSkew: 5, MinDomains: 1, TopologyKey: corev1.LabelTopologyZone, Selector: siblings, HonorAffinity: true},
		}
	}
	out := slices.Clone(*p.defaults)
	for i := range out {
		out[i].Selector, out[i].Self = siblings, siblings.Labels.Matches(labels.Set(pod.Object.Labels))
	}
	return out
}

// hintDefaults is Hint where the selectors aren't known: pods of other namespaces don't count, all others may.
func hintDefaults(pod *scheduler.Pod, c scheduler.ClusterChange) bool {
	switch {
	case c.FreedPod != nil:
		return c.FreedPod.Object.Namespace == pod.Object.Namespace
	case c.AssignedPod != nil:
		return c.AssignedPod.Object.Namespace == pod.Object.Namespace
	}
	return c.Node != nil || c.OldNode != nil
}
