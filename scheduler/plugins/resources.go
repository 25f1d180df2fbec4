package plugins

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/scheduler"
)

// NodeResourcesFitOptions are the arguments of NodeResourcesFit.
type NodeResourcesFitOptions struct {
	// IgnoredResources are extended resources that somebody else looks after: nodes are not rejected for lack of them.
	IgnoredResources []string
	// IgnoredResourceGroups are the parts before the slash of extended resources that are ignored, too.
	IgnoredResourceGroups []string
	// Scoring says which nodes are preferred. The zero value: those with most cpu and memory left.
	Scoring ScoringStrategy
}

// Validate reports what is wrong, in kube-scheduler's words: fields are named as in a KubeSchedulerConfiguration, below path.
func (o NodeResourcesFitOptions) Validate(path *field.Path) error {
	var errs field.ErrorList
	for i, name := range o.IgnoredResources {
		errs = append(errs, validation.ValidateLabelName(name, path.Child("ignoredResources").Index(i))...)
	}
	for i, group := range o.IgnoredResourceGroups {
		p := path.Child("ignoredResourceGroups").Index(i)
		if strings.Contains(group, "/") {
			errs = append(errs, field.Invalid(p, group, "resource group name can't contain '/'"))
		}
		errs = append(errs, validation.ValidateLabelName(group, p)...)
	}
	return append(errs, o.Scoring.validate(path.Child("scoringStrategy"))...).ToAggregate()
}

// NodeResourcesFit rejects nodes without room for a pod's requests and scores the others by how full they would be. The zero value has the default options.
type NodeResourcesFit struct {
	args *fitArgs
}

type fitArgs struct {
	ignored, ignoredGroups map[string]bool
	scorer                 scorer
}

var defaultFit = &fitArgs{scorer: newScorer(ScoringStrategy{})}

// NewNodeResourcesFit returns the rule with options of your own.
func NewNodeResourcesFit(opts NodeResourcesFitOptions) (NodeResourcesFit, error) {
	if err := opts.Validate(nil); err != nil {
		return NodeResourcesFit{}, fmt.Errorf("plugins: NodeResourcesFit: %w", err)
	}
	return NodeResourcesFit{&fitArgs{ignored: setOf(opts.IgnoredResources), ignoredGroups: setOf(opts.IgnoredResourceGroups), scorer: newScorer(opts.Scoring)}}, nil
}

func (p NodeResourcesFit) options() *fitArgs {
	if p.args == nil {
		return defaultFit
	}
	return p.args
}

// Name implements scheduler.Plugin.
func (NodeResourcesFit) Name() string { return "NodeResourcesFit" }

// Scope implements scheduler.Scoped.
func (NodeResourcesFit) Scope() scheduler.Scope { return scheduler.ScopeNodePods }

// Sign implements scheduler.Signer.
func (NodeResourcesFit) Sign(pod *scheduler.Pod, to []byte) []byte {
	to = appendResources(to, &pod.Requests)
	for name := range pod.Requests.All() {
		to = binary.AppendVarint(to, pod.ScoreRequest(name))
	}
	return binary.AppendVarint(binary.AppendVarint(to, pod.ScoreRequest(corev1.ResourceCPU)), pod.ScoreRequest(corev1.ResourceMemory))
}

// Filter implements scheduler.FilterPlugin.
func (p NodeResourcesFit) Filter(pod *scheduler.Pod, node *scheduler.Node) *scheduler.Rejection {
	full := int64(node.Len()) >= node.Allocatable.Pods
	if !full && pod.Requests.FitIn(&node.Allocatable, &node.Requested) {
		return nil
	}
	var short []string
	never := false
	if full {
		short = append(short, "Too many pods")
	}
	for name, want := range pod.Requests.All() {
		total := node.Allocatable.Of(name)
		if want > total-node.Requested.Of(name) && !p.ignores(name) {
			short = append(short, "Insufficient "+string(name))
			never = never || want > total
		}
	}
	if len(short) == 0 {
		return nil
	}
	if len(short) == 1 {
		if r := usualLack[lack{short[0], never}]; r != nil {
			return r
		}
	}
	slices.Sort(short)
	return &scheduler.Rejection{Reasons: short, Unresolvable: never}
}

// usualLack are the usual rejections, which thousands of nodes then share.
var usualLack = func() map[lack]*scheduler.Rejection {
	m := map[lack]*scheduler.Rejection{}
	for _, reason := range []string{"Too many pods", "Insufficient cpu", "Insufficient memory"} {
		for _, never := range []bool{false, true} {
			m[lack{reason, never}] = &scheduler.Rejection{Reasons: []string{reason}, Unresolvable: never, Plugin: NodeResourcesFit{}.Name()}
		}
	}
	return m
}()

type lack struct {
	reason string
	never  bool
}

// MayFit implements scheduler.RoomPlugin.
func (p NodeResourcesFit) MayFit(pod *scheduler.Pod, node *scheduler.Node, freed *scheduler.Resources, pods int) bool {
	if int64(node.Len()-pods) >= node.Allocatable.Pods {
		return false
	}
	for name, want := range pod.Requests.All() {
		if want > node.Allocatable.Of(name)-node.Requested.Of(name)+freed.Of(name) && !p.ignores(name) {
			return false
		}
	}
	return true
}

func (p NodeResourcesFit) ignores(name corev1.ResourceName) bool {
	args := p.options()
	if len(args.ignored)+len(args.ignoredGroups) == 0 || !extended(name) {
		return false
	}
	group, _, _ := strings.Cut(string(name), "/")
	return args.ignored[string(name)] || args.ignoredGroups[group]
}

// extended resources are those of neither the core nor the quota's namespace.
func extended(name corev1.ResourceName) bool {
	s := string(name)
	return strings.Contains(s, "/") && !strings.Contains(s, corev1.ResourceDefaultNamespacePrefix) && !strings.HasPrefix(s, corev1.DefaultResourceRequestsPrefix)
}

// Score implements scheduler.ScorePlugin.
func (p NodeResourcesFit) Score(pod *scheduler.Pod, node *scheduler.Node) int64 {
	return p.options().scorer(pod, node)
}

// Hint implements scheduler.Hinter.
func (p NodeResourcesFit) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) bool {
	switch {
	case c.Node != nil:
		if c.OldNode != nil && c.Node.Allocatable.Equal(&c.OldNode.Allocatable) {
			return false
		}
		return p.Filter(pod, c.Node) == nil
	case c.FreedPod != nil:
		return true
	}
	return false
}
