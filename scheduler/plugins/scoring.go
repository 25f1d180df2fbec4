package plugins

import (
	"fmt"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/scheduler"
)

// ScoringStrategyType says which nodes NodeResourcesFit prefers.
type ScoringStrategyType string

// The strategies.
const (
	// LeastAllocated prefers nodes with more left. The default.
	LeastAllocated ScoringStrategyType = "LeastAllocated"
	// MostAllocated prefers nodes with less left.
	MostAllocated ScoringStrategyType = "MostAllocated"
	// RequestedToCapacityRatio maps the used part to a score by points of your own.
	RequestedToCapacityRatio ScoringStrategyType = "RequestedToCapacityRatio"
)

// ScoringStrategy turns the used part of a node's resources into its score.
type ScoringStrategy struct {
	// Type is LeastAllocated by default.
	Type ScoringStrategyType
	// Resources that count. Default: cpu and memory, the same.
	Resources []ResourceWeight
	// Shape of RequestedToCapacityRatio: points between which the score is interpolated, by rising utilization.
	Shape []ShapePoint
}

// ResourceWeight is a resource and how much it counts.
type ResourceWeight struct {
	Name corev1.ResourceName
	// Weight is 1 to 100; 0 means 1.
	Weight int64
}

// ShapePoint maps a utilization of 0 to 100 to a score of 0 to 10.
type ShapePoint struct {
	Utilization, Score int32
}

const maxShapeScore = 10

func (s ScoringStrategy) validate(path *field.Path) (errs field.ErrorList) {
	types := []ScoringStrategyType{LeastAllocated, MostAllocated, RequestedToCapacityRatio}
	if s.Type != "" && !slices.Contains(types, s.Type) {
		errs = append(errs, field.NotSupported(path.Child("type"), s.Type, types))
	}
	for i, r := range s.Resources {
		if r.Weight < 0 || r.Weight > 100 {
			errs = append(errs, field.Invalid(path.Child("resources").Index(i).Child("weight"), r.Weight, fmt.Sprintf("resource weight of %v not in valid range (0, 100]", r.Name)))
		}
	}
	shape := path.Child("requestedToCapacityRatio")
	switch {
	case s.Type == RequestedToCapacityRatio:
		errs = append(errs, validateShape(s.Shape, shape.Child("shape"))...)
	case s.Shape != nil:
		errs = append(errs, field.Forbidden(shape, "must be nil when type is not RequestedToCapacityRatio"))
	}
	return errs
}

func validateShape(shape []ShapePoint, path *field.Path) (errs field.ErrorList) {
	if len(shape) == 0 {
		return field.ErrorList{field.Required(path, "at least one point must be specified")}
	}
	for i := 1; i < len(shape); i++ {
		if shape[i-1].Utilization >= shape[i].Utilization {
			errs = append(errs, field.Invalid(path.Index(i).Child("utilization"), shape[i].Utilization, "values must be sorted in increasing order"))
			break
		}
	}
	for i, p := range shape {
		if p.Utilization < 0 || p.Utilization > 100 {
			errs = append(errs, field.Invalid(path.Index(i).Child("utilization"), p.Utilization, "not in valid range [0, 100]"))
		}
		if p.Score < 0 || p.Score > maxShapeScore {
			errs = append(errs, field.Invalid(path.Index(i).Child("score"), p.Score, fmt.Sprintf("not in valid range [0, %d]", maxShapeScore)))
		}
	}
	return errs
}

// shapeScore interpolates between the points, in whole numbers of 0 to 100.
func shapeScore(shape []ShapePoint, utilization int64) int64 {
	const scale = scheduler.MaxScore / maxShapeScore
	for i, p := range shape {
		to := int64(p.Utilization)
		if utilization > to {
			continue
		}
		score := int64(p.Score) * scale
		if i == 0 {
			return score
		}
		from, before := int64(shape[i-1].Utilization), int64(shape[i-1].Score)*scale
		return before + (score-before)*(utilization-from)/(to-from)
	}
	return int64(shape[len(shape)-1].Score) * scale
}

// scorer scores a node, 0 to scheduler.MaxScore.
type scorer func(pod *scheduler.Pod, node *scheduler.Node) int64

func newScorer(s ScoringStrategy) scorer {
	resources := weighted(s.Resources)
	var value func(used, total int64) (score int64, counts bool)
	round := func(sum, weights int64) int64 { return sum / weights }
	switch s.Type {
	case MostAllocated:
		value = func(used, total int64) (int64, bool) { return min(used, total) * scheduler.MaxScore / total, true }
	case RequestedToCapacityRatio:
		shape := slices.Clone(s.Shape)
		value = func(used, total int64) (int64, bool) {
			score := shapeScore(shape, min(used, total)*100/total)
			return score, score > 0 // Kubernetes leaves a resource out of the average that scores nothing
		}
		round = func(sum, weights int64) int64 { return int64(math.Round(float64(sum) / float64(weights))) }
	default:
		value = func(used, total int64) (int64, bool) {
			return (total - min(used, total)) * scheduler.MaxScore / total, true
		}
	}
	return func(pod *scheduler.Pod, node *scheduler.Node) int64 {
		var sum, weights int64
		for _, r := range resources {
			used, total, ok := utilization(pod, node, r.Name, true)
			if !ok {
				continue
			}
			if v, counts := value(used, total); counts {
				sum += v * r.Weight
				weights += r.Weight
			}
		}
		if weights == 0 {
			return 0
		}
		return round(sum, weights)
	}
}

func weighted(resources []ResourceWeight) []ResourceWeight {
	if len(resources) == 0 {
		return []ResourceWeight{{corev1.ResourceCPU, 1}, {corev1.ResourceMemory, 1}}
	}
	resources = slices.Clone(resources)
	for i := range resources {
		resources[i].Weight = max(resources[i].Weight, 1)
	}
	return resources
}

// utilization is how much of a resource is used once the pod is there, and of how much; ok is false if it doesn't count: the node has none,
// or it is neither a core resource nor one that the pod asks for. With generous, containers that ask for nothing count a little.
func utilization(pod *scheduler.Pod, node *scheduler.Node, name corev1.ResourceName, generous bool) (used, total int64, ok bool) {
	total = node.Allocatable.Of(name)
	if total == 0 {
		return 0, 0, false
	}
	want, there := pod.Requests.Of(name), &node.Requested
	if generous {
		want = pod.ScoreRequest(name)
		if name == corev1.ResourceCPU || name == corev1.ResourceMemory {
			there = &node.Scored
		}
	}
	if want == 0 && scalar(name) {
		return 0, 0, false
	}
	return there.Of(name) + want, total, true
}

// scalar resources are all but cpu, memory and ephemeral storage.
func scalar(name corev1.ResourceName) bool {
	return strings.Contains(string(name), "/") || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) || strings.HasPrefix(string(name), corev1.ResourceAttachableVolumesPrefix)
}

// NodeResourcesBalancedAllocationOptions are the arguments of NodeResourcesBalancedAllocation.
type NodeResourcesBalancedAllocationOptions struct {
	// Resources that are compared. Default: cpu and memory. Their weights must be 1 (or 0).
	Resources []ResourceWeight
}

// Validate reports what is wrong, in kube-scheduler's words: fields are named as in a KubeSchedulerConfiguration, below path.
func (o NodeResourcesBalancedAllocationOptions) Validate(path *field.Path) error {
	var errs field.ErrorList
	seen := map[corev1.ResourceName]bool{}
	for i, r := range o.Resources {
		p := path.Child("resources").Index(i)
		if seen[r.Name] {
			errs = append(errs, field.Duplicate(p.Child("name"), r.Name))
		}
		seen[r.Name] = true
		if r.Weight != 0 && r.Weight != 1 {
			errs = append(errs, field.Invalid(p.Child("weight"), r.Weight, "must be 1"))
		}
	}
	return errs.ToAggregate()
}

// NodeResourcesBalancedAllocation prefers nodes whose resources the pod makes used to more similar degrees. The zero value has the default options.
type NodeResourcesBalancedAllocation struct {
	resources *[]ResourceWeight
}

// NewNodeResourcesBalancedAllocation returns the rule with options of your own.
func NewNodeResourcesBalancedAllocation(opts NodeResourcesBalancedAllocationOptions) (NodeResourcesBalancedAllocation, error) {
	if err := opts.Validate(nil); err != nil {
		return NodeResourcesBalancedAllocation{}, fmt.Errorf("plugins: NodeResourcesBalancedAllocation: %w", err)
	}
	resources := weighted(opts.Resources)
	return NodeResourcesBalancedAllocation{&resources}, nil
}

var defaultBalanced = weighted(nil)

// Name implements scheduler.Plugin.
func (NodeResourcesBalancedAllocation) Name() string { return "NodeResourcesBalancedAllocation" }

// Scope implements scheduler.Scoped.
func (NodeResourcesBalancedAllocation) Scope() scheduler.Scope { return scheduler.ScopeNodePods }

// Sign implements scheduler.Signer.
func (NodeResourcesBalancedAllocation) Sign(pod *scheduler.Pod, to []byte) []byte {
	return appendResources(to, &pod.Requests)
}

// Score compares the spread of the used parts with the pod and without it: 75 if it stays the same, up to 100 if the pod evens it out, down to 50
// if it does the opposite. Pods that ask for none of the resources don't care.
func (p NodeResourcesBalancedAllocation) Score(pod *scheduler.Pod, node *scheduler.Node) int64 {
	resources := defaultBalanced
	if p.resources != nil {
		resources = *p.resources
	}
	var buf [8]float64
	with, without := buf[:0:4], buf[4:4]
	asks := false
	for _, r := range resources {
		want := pod.Requests.Of(r.Name)
		asks = asks || want != 0
		used, total, ok := utilization(pod, node, r.Name, false)
		if !ok {
			continue
		}
		with = append(with, min(float64(used)/float64(total), 1))
		without = append(without, min(float64(used-want)/float64(total), 1))
	}
	if !asks {
		return 0
	}
	const half = scheduler.MaxScore / 2
	return half + (half+balance(with)-balance(without))/2
}

// balance is 100 less the standard deviation, in percent.
func balance(parts []float64) int64 {
	var deviation float64
	switch n := float64(len(parts)); {
	case n == 2:
		deviation = math.Abs((parts[0] - parts[1]) / 2)
	case n > 2:
		var sum, squares float64
		for _, v := range parts {
			sum += v
		}
		for _, v := range parts {
			squares += float64((v - sum/n) * (v - sum/n)) // not fused, to be the same on all machines
		}
		deviation = math.Sqrt(squares / n)
	}
	return int64((1 - deviation) * scheduler.MaxScore)
}
