package scheduler

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// MaxScore is the best score a plugin gives a node; 0 is the worst.
const MaxScore = 100

// Plugin is a rule. What it does is decided by which of the other interfaces it has. Its methods are called by one goroutine, keep nothing of what
// they are given, change none of it, and return the same for the same arguments.
type Plugin interface {
	// Name identifies the plugin in a profile, in explanations and in metrics.
	Name() string
}

// PreEnqueuePlugin keeps pods out of the active queue: they aren't tried, and nothing is reported of them.
type PreEnqueuePlugin interface {
	Plugin
	// PreEnqueue returns nil if the pod may be tried. It is asked when the pod comes or changes, whenever it would be tried again, and on each
	// change that Hint lets through.
	PreEnqueue(pod *Pod) *Rejection
}

// PreFilterPlugin rejects pods that no node can take, before nodes are looked at.
type PreFilterPlugin interface {
	Plugin
	// PreFilter returns nil if nodes are to be looked at.
	PreFilter(pod *Pod) *Rejection
}

// NodePicker is implemented by plugins that confine pods to nodes by name: no other is looked at, and no other plugin is asked about them.
type NodePicker interface {
	Plugin
	// PickNodes returns the names of those nodes, or ok false if the pod may go to any. What it says may depend on nothing but the pod and, where the plugin
	// is a Signer, on nothing but what it signs.
	PickNodes(pod *Pod) (names []string, ok bool)
}

// FilterPlugin rejects nodes.
type FilterPlugin interface {
	Plugin
	// Filter returns nil if the pod can run on the node, as far as this rule goes.
	Filter(pod *Pod, node *Node) *Rejection
}

// RoomPlugin is a FilterPlugin that can say, without looking, that removing pods from a node would not be enough. It makes preemption faster: nodes are
// looked at in the order of the fewest and least important victims that there would have to be.
type RoomPlugin interface {
	FilterPlugin
	// MayFit returns false only if Filter would reject the node, too, were as many pods gone from it that ask for no more than freed in all. A node whose
	// Index is negative stands for many: it has no labels, taints or pods, and as much of everything is allocatable as is left on that of them with most.
	MayFit(pod *Pod, node *Node, freed *Resources, pods int) bool
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

	scopes = iota
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

// SelfHinter says whether a change of a pod itself could make it fit that the plugin rejected; without it every change could, but of its status.
type SelfHinter interface {
	Plugin
	// HintSelf reports whether it could help the pod that it is no longer what it was.
	HintSelf(was, now *Pod) bool
}

// ClusterChange is what happened in the cluster, for Hinter: what is set belongs to one change.
type ClusterChange struct {
	// Node was added or changed; OldNode is what it was, nil for a new one. OldNode alone is a node that is gone.
	Node, OldNode *Node
	// Parted: the changed node left a domain, or is in another one, of required anti-affinity of pods that have their places.
	Parted bool
	// FreedPod left its node or asks less of it; it is the pod as it was.
	FreedPod *Pod
	// AssignedPod was put on a node, or changed there; OldPod is what it was, nil for a new one.
	AssignedPod, OldPod *Pod
	// Namespace was added or has new labels.
	Namespace *corev1.Namespace
	// One of these was added or changed; the old one is what it was, nil for a new one.
	Claim, OldClaim                     *corev1.PersistentVolumeClaim
	Volume, OldVolume                   *corev1.PersistentVolume
	StorageClass, OldStorageClass       *storagev1.StorageClass
	CSINode, OldCSINode                 *storagev1.CSINode
	StorageCapacity, OldStorageCapacity *storagev1.CSIStorageCapacity
	// CSIDriver was added or changed; OldCSIDriver alone is one that is gone.
	CSIDriver, OldCSIDriver *storagev1.CSIDriver
	// PodGroup was added or changed.
	PodGroup, OldPodGroup *schedulingv1beta1.PodGroup
	// GoneAttachment was deleted.
	GoneAttachment *storagev1.VolumeAttachment
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

// PostFilterPlugin may make room for a pod that fits nowhere.
type PostFilterPlugin interface {
	Plugin
	// PostFilter is given the decision that failed. It does no I/O and changes nothing: what it proposes is carried out by who asked. It returns nil
	// if it can't help, and the proposal with an empty Node if the pod's nomination, if any, is to be given up. The message, if any, is appended
	// to the failed decision's. The plugins of a profile are asked in order until one proposes a node.
	PostFilter(pod *Pod, view *View, failed *Decision) (*Preemption, string)
}

// Preemption is a proposal to remove pods from a node in favour of another.
type Preemption struct {
	// Node is where the pod is to go, "" for nowhere.
	Node string
	// Victims are to be removed, the most important first.
	Victims []*Pod
	// PDBViolations is how many of them no PodDisruptionBudget lets go.
	PDBViolations int
	// Plugin is filled in by the engine.
	Plugin string
}

// ReservePlugin keeps accounts of its own of what pods take. Both methods are called under the engine's lock: they are quick and do no I/O.
type ReservePlugin interface {
	Plugin
	// Reserve is called when a decision is taken, after the pod was assigned to the node and before it is bound. If it fails, the plugins before it
	// in the profile, and this one, are told to Unreserve, and the pod is tried again later.
	Reserve(pod *Pod, node *Node, view *View) error
	// Unreserve is called for a pod that will not be bound after all. It must not fail and bear with being called without Reserve.
	Unreserve(pod *Pod, node string, view *View)
}

// PermitPlugin has the last word before a pod is bound.
type PermitPlugin interface {
	Plugin
	// Permit is called after Reserve, under the engine's lock.
	Permit(pod *Pod, node string) Permission
}

// Permission is a PermitPlugin's answer; the zero value lets the pod go ahead.
type Permission struct {
	// Wait keeps the pod, with its place reserved, until WaitingPods.Allow or Reject is called for it by the plugin; when this time has passed it is rejected.
	Wait time.Duration
	// Reject refuses the pod.
	Reject *Rejection
}

// PreBindPlugin does what must be done before a pod is bound, such as binding its volumes.
type PreBindPlugin interface {
	Plugin
	// PreBind may do I/O; it is called by a goroutine of the pod's own, several at once. When it fails the pod is tried again later.
	PreBind(ctx context.Context, pod *Pod, node string) error
}

// BindPlugin binds pods in place of the API's binding subresource.
type BindPlugin interface {
	Plugin
	// Bind reports whether it handled the pod; else the next plugin is asked, and last the API. Called as PreBind is.
	Bind(ctx context.Context, pod *Pod, node string) (handled bool, err error)
}

// PostBindPlugin is told of pods that were bound.
type PostBindPlugin interface {
	Plugin
	// PostBind is called as PreBind is.
	PostBind(ctx context.Context, pod *Pod, node string)
}

// Attacher is implemented by plugins that do I/O or let waiting pods go. A Scheduler calls Attach once, from New; an Engine never does.
type Attacher interface {
	Plugin
	Attach(h Handle) error
}

// Handle is what a Scheduler lends to its plugins.
type Handle struct {
	Client   client.Client
	Cache    cache.Cache
	Recorder record.EventRecorder
	Clock    clock.Clock
	// Waiting are the pods that PermitPlugins told to wait.
	Waiting WaitingPods
	// Activate has a pod tried now that was put aside. It may be called at any time, by any plugin's method.
	Activate func(uid types.UID)
}

// WaitingPods are those that PermitPlugins told to wait. Safe for concurrent use, but not from within a plugin's Reserve or Permit.
type WaitingPods interface {
	// Allow lets a pod go ahead, as far as the named plugin goes, and Reject sends it back to the queue. They report whether it waited for that.
	Allow(uid types.UID, plugin string) bool
	Reject(uid types.UID, plugin, message string) bool
	// Each calls f for each pod that waits, with the plugins it waits for, in no order, until it returns false.
	Each(f func(pod *Pod, node string, plugins []string) bool)
}

// Weighted is a plugin in a profile.
type Weighted struct {
	Plugin Plugin
	// Weight multiplies the plugin's scores; 0 means 1.
	Weight int64
	// Except are points at which the plugin is not asked, though it could be.
	Except Points
}

// Profile is a set of plugins in the order in which they are asked.
type Profile []Weighted

// NamedProfile decides for the pods whose spec.schedulerName is Name.
type NamedProfile struct {
	Name    string
	Plugins Profile
	// Order says in which order plugins are asked at single points, by name, where that isn't the order of Plugins. Those it leaves out come last.
	Order map[Points][]string
}
