package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// MaxScore is the best score a plugin gives a node; 0 is the worst.
const MaxScore = 100

// Plugin is a rule. What it does is decided by which of the other interfaces it has. Its methods are called by one goroutine, keep nothing of what
// they are given, change none of it, and return the same for the same arguments.
type Plugin interface {
	// Name identifies the plugin in a profile, in explanations and in metrics.
	Name() string
}

// PreFilterPlugin rejects pods that no node can take, before nodes are looked at.
type PreFilterPlugin interface {
	Plugin
	// PreFilter returns nil if nodes are to be looked at.
	PreFilter(pod *Pod) *Rejection
}

// FilterPlugin rejects nodes.
type FilterPlugin interface {
	Plugin
	// Filter returns nil if the pod can run on the node, as far as this rule goes.
	Filter(pod *Pod, node *Node) *Rejection
}

// ScorePlugin prefers nodes.
type ScorePlugin interface {
	Plugin
	// Score returns 0 to MaxScore, or, if the plugin is also a Normalizer, any number.
	Score(pod *Pod, node *Node) int64
}

// Normalizer turns a ScorePlugin's raw scores of all feasible nodes into 0 to MaxScore.
type Normalizer interface {
	ScorePlugin
	// Normalize is given the least and the greatest raw score among the feasible nodes and one score, and
	// returns what it is worth. It must be monotonic in score.
	Normalize(score, least, greatest int64) int64
	// Indifferent reports that the scores of all nodes are equal for this pod, whatever the nodes: scoring is skipped.
	Indifferent(pod *Pod) bool
}

// Scope says what a plugin's answer for one pod and one node depends on, besides the pod.
type Scope int

const (
	// ScopeCluster: on anything. The answer is never cached. Plugins that say nothing have this scope.
	ScopeCluster Scope = iota
	// ScopeNodePods: on the node object and on the pods assigned to that node.
	ScopeNodePods
	// ScopeNode: on the node object alone.
	ScopeNode
)

// Scoped is implemented by plugins whose answers can be cached. For each of the node's changes within the scope, the plugin is asked again.
// The answers are shared by pods with the same signature: see Signer.
type Scoped interface {
	Plugin
	Scope() Scope
}

// Signer is implemented by Scoped plugins. Two pods for which Sign appends the same bytes get the same answers from the plugin, on every node.
// A Scoped plugin that is no Signer has its answers cached for each pod alone.
type Signer interface {
	Scoped
	Sign(pod *Pod, to []byte) []byte
}

// Hinter says which changes could make a pod fit that the plugin rejected; without it every change could.
type Hinter interface {
	Plugin
	// Hint reports whether c could help pod.
	Hint(pod *Pod, c ClusterChange) bool
}

// ClusterChange is what happened in the cluster, for Hinter: what is set belongs to one change.
type ClusterChange struct {
	// Node was added or changed; OldNode is what it was, nil for a new one. OldNode alone is a node that is gone.
	Node, OldNode *Node
	// FreedPod left its node or asks less of it; it is the pod as it was.
	FreedPod *Pod
	// AssignedPod was put on a node, or changed there; OldPod is what it was, nil for a new one.
	AssignedPod, OldPod *Pod
	// Namespace was added or has new labels.
	Namespace *corev1.Namespace
	// Claim, Volume or StorageClass was added or changed.
	Claim        *corev1.PersistentVolumeClaim
	Volume       *corev1.PersistentVolume
	StorageClass *storagev1.StorageClass
}

// Rejection says why a pod does not fit.
type Rejection struct {
	// Reasons in Kubernetes' words ("Insufficient cpu").
	Reasons []string
	// Unresolvable: removing pods from the node would not help.
	Unresolvable bool
	// Plugin is filled in by the engine.
	Plugin string
}

// Reject returns a Rejection that removing pods would not resolve.
func Reject(reasons ...string) *Rejection { return &Rejection{Reasons: reasons, Unresolvable: true} }

// RejectFull returns a Rejection that removing pods could resolve.
func RejectFull(reasons ...string) *Rejection { return &Rejection{Reasons: reasons} }

// Weighted is a plugin in a profile.
type Weighted struct {
	Plugin Plugin
	// Weight multiplies the plugin's scores; 0 means 1.
	Weight int64
}

// Profile is a set of plugins in the order in which they are asked.
type Profile []Weighted
