package plugins

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/keelson/keelson/scheduler"
)

// NodeAffinityOptions are the arguments of NodeAffinity.
type NodeAffinityOptions struct {
	// AddedAffinity holds for all pods, beside their own.
	AddedAffinity *corev1.NodeAffinity
}

// Validate reports what is wrong, in kube-scheduler's words: fields are named as in a KubeSchedulerConfiguration, below path.
func (o NodeAffinityOptions) Validate(path *field.Path) error {
	_, err := o.parse(path)
	return err
}

func (o NodeAffinityOptions) parse(path *field.Path) (*addedAffinity, error) {
	if o.AddedAffinity == nil {
		return nil, nil
	}
	var a addedAffinity
	var errs []error
	var err error
	if must := o.AddedAffinity.RequiredDuringSchedulingIgnoredDuringExecution; must != nil {
		if a.required, err = nodeaffinity.NewNodeSelector(must, field.WithPath(path.Child("addedAffinity", "requiredDuringSchedulingIgnoredDuringExecution"))); err != nil {
			errs = append(errs, err)
		}
	}
	if should := o.AddedAffinity.PreferredDuringSchedulingIgnoredDuringExecution; len(should) > 0 {
		if a.preferred, err = nodeaffinity.NewPreferredSchedulingTerms(should, field.WithPath(path.Child("addedAffinity", "preferredDuringSchedulingIgnoredDuringExecution"))); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, utilerrors.Flatten(utilerrors.NewAggregate(errs))
	}
	return &a, nil
}

// addedAffinity is never changed; either may be nil.
type addedAffinity struct {
	required  *nodeaffinity.NodeSelector
	preferred *nodeaffinity.PreferredSchedulingTerms
}

// NodeAffinity keeps a pod to the nodes that its node selector and required node affinity match, and prefers those that its preferred
// node affinity matches. The zero value has the default options.
type NodeAffinity struct {
	added *addedAffinity
}

// NewNodeAffinity returns the rule with options of your own.
func NewNodeAffinity(opts NodeAffinityOptions) (NodeAffinity, error) {
	added, err := opts.parse(nil)
	if err != nil {
		return NodeAffinity{}, fmt.Errorf("plugins: NodeAffinity: %w", err)
	}
	return NodeAffinity{added}, nil
}

// Name implements scheduler.Plugin.
func (NodeAffinity) Name() string { return "NodeAffinity" }

// Scope implements scheduler.Scoped.
func (NodeAffinity) Scope() scheduler.Scope { return scheduler.ScopeNode }

// Sign implements scheduler.Signer.
func (NodeAffinity) Sign(pod *scheduler.Pod, to []byte) []byte {
	spec := &pod.Object.Spec
	to = appendMap(to, spec.NodeSelector)
	if spec.Affinity != nil && spec.Affinity.NodeAffinity != nil {
		if b, err := spec.Affinity.NodeAffinity.Marshal(); err == nil { // deterministic: the type has no maps
			to = append(to, b...)
		}
	}
	return to
}

// PickNodes implements scheduler.NodePicker: it picks those that the pod's required terms name, if each of them does.
func (NodeAffinity) PickNodes(pod *scheduler.Pod) ([]string, bool) { return namedNodes(pod.Object) }

// PreFilter rejects pods each of whose required terms names nodes that exclude one another.
func (NodeAffinity) PreFilter(pod *scheduler.Pod) *scheduler.Rejection {
	if names, named := namedNodes(pod.Object); named && len(names) == 0 {
		return scheduler.Reject("pod affinity terms conflict")
	}
	return nil
}

// namedNodes are those that the pod's required terms name; named is false if a term names none.
func namedNodes(pod *corev1.Pod) (names []string, named bool) {
	a := pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil, false
	}
	terms := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	for i := range terms {
		var of []string
		named = false
		for _, r := range terms[i].MatchFields {
			switch {
			case r.Key != metav1.ObjectNameField || r.Operator != corev1.NodeSelectorOpIn:
			case named:
				of = slices.DeleteFunc(slices.Clone(of), func(n string) bool { return !slices.Contains(r.Values, n) })
			default:
				of, named = r.Values, true
			}
		}
		if !named {
			return nil, false
		}
		if len(terms) == 1 {
			return of, true // as nearly all pods of DaemonSets have it: nothing to be allocated
		}
		names = append(names, of...)
	}
	return names, named
}

// Filter implements scheduler.FilterPlugin.
func (p NodeAffinity) Filter(pod *scheduler.Pod, node *scheduler.Node) *scheduler.Rejection {
	if p.added != nil && p.added.required != nil && !p.added.required.Match(node.Object) {
		return scheduler.Reject("node(s) didn't match scheduler-enforced node affinity")
	}
	if pod.Affinity == nil {
		return nil
	}
	if ok, err := pod.Affinity.Match(node.Object); err != nil || !ok {
		return scheduler.Reject("node(s) didn't match Pod's node affinity/selector")
	}
	return nil
}

// Score adds up the weights of the preferred terms that match.
func (p NodeAffinity) Score(pod *scheduler.Pod, node *scheduler.Node) (sum int64) {
	if p.added != nil && p.added.preferred != nil {
		sum = p.added.preferred.Score(node.Object)
	}
	if pod.Preferred != nil {
		sum += pod.Preferred.Score(node.Object)
	}
	return sum
}

// Normalize implements scheduler.Normalizer.
func (NodeAffinity) Normalize(score, _, greatest int64) int64 {
	if greatest == 0 {
		return 0
	}
	return scheduler.MaxScore * score / greatest
}

// Indifferent implements scheduler.Normalizer.
func (p NodeAffinity) Indifferent(pod *scheduler.Pod) bool {
	return pod.Preferred == nil && (p.added == nil || p.added.preferred == nil)
}

// Hint implements scheduler.Hinter.
func (p NodeAffinity) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) bool {
	return c.Node != nil && p.Filter(pod, c.Node) == nil
}
