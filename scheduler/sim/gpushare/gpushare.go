package gpushare

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
)

// Resource is what pods ask for and nodes have by default, in thousandths of a GPU.
const Resource corev1.ResourceName = "alibabacloud.com/gpu-milli"

// maxDevices of a node: more is a mistake.
const maxDevices = 1024

// Scoring is how nodes are preferred.
type Scoring string

const (
	// Packing prefers nodes, and on each the device, with the least left. It is the default.
	Packing Scoring = "Packing"
	// Spreading prefers nodes with the most left.
	Spreading Scoring = "Spreading"
	// LeastFragmentation prefers the node where the pod makes the least of what is free useless for Options.Pods: the gradient descent of "Beware of Fragmentation"
	// (USENIX ATC 2023), which came with the trace.
	LeastFragmentation Scoring = "LeastFragmentation"
)

// Options of New.
type Options struct {
	// Resource defaults to the constant of that name.
	Resource corev1.ResourceName
	// Scoring defaults to Packing.
	Scoring Scoring
	// Pods are what the workload mostly asks for. LeastFragmentation and the measure of fragmentation are about them. Default: parts of 250 and 500, one device, two, and eight,
	// each as often.
	Pods []Kind
}

// Kind is a kind of pods of a workload.
type Kind struct {
	// Milli is what they ask for of GPUs, in thousandths; CPU in thousandths of a core, Memory in bytes; 0 for none.
	Milli, CPU, Memory int64
	// Weight is how many of all are of this kind. Default 1.
	Weight float64
}

// Plugin filters nodes by their devices, and scores them. It is for one engine, and not safe for concurrent use.
type Plugin struct {
	opts Options
	book map[types.UID]seat
	on   map[string][]types.UID // booked, by node
	// Scratch.
	free     []int64
	unbooked []placement
}

// seat is where a pod is.
type seat struct {
	node    string
	devices []int
}

func (s seat) fit(devices int) bool { return slices.Max(s.devices) < devices }

var (
	_ scheduler.FilterPlugin  = (*Plugin)(nil)
	_ scheduler.Normalizer    = (*Plugin)(nil)
	_ scheduler.Signer        = (*Plugin)(nil)
	_ scheduler.Hinter        = (*Plugin)(nil)
	_ scheduler.ReservePlugin = (*Plugin)(nil)
)

// New returns a plugin that knows of no pod yet.
func New(opts Options) (*Plugin, error) {
	opts.Resource = cmp.Or(opts.Resource, Resource)
	opts.Scoring = cmp.Or(opts.Scoring, Packing)
	if !slices.Contains([]Scoring{Packing, Spreading, LeastFragmentation}, opts.Scoring) {
		return nil, fmt.Errorf("gpushare: Options.Scoring: %q: want %s, %s or %s", opts.Scoring, Packing, Spreading, LeastFragmentation)
	}
	if opts.Pods == nil {
		opts.Pods = []Kind{{Milli: 250}, {Milli: 500}, {Milli: 1000}, {Milli: 2000}, {Milli: 8000}}
	}
	opts.Pods = slices.Clone(opts.Pods)
	for i := range opts.Pods {
		k := &opts.Pods[i]
		k.Weight = cmp.Or(k.Weight, 1)
		if k.Milli < 0 || !valid(k.Milli) || k.CPU < 0 || k.Memory < 0 || k.Weight < 0 {
			return nil, fmt.Errorf("gpushare: Options.Pods[%d]: %+v: want a part of 1000 or a multiple of it, and nothing negative", i, *k)
		}
	}
	return &Plugin{opts: opts, book: map[types.UID]seat{}, on: map[string][]types.UID{}}, nil
}

// Name implements scheduler.Plugin.
func (*Plugin) Name() string { return "GPUShare" }

// Scope implements scheduler.Scoped.
func (*Plugin) Scope() scheduler.Scope { return scheduler.ScopeNodePods }

// Sign implements scheduler.Signer: pods that ask for the same get the same answers, where fragmentation counts also by cpu and memory.
func (p *Plugin) Sign(pod *scheduler.Pod, to []byte) []byte {
	to = binary.AppendVarint(to, p.asks(pod))
	if p.opts.Scoring == LeastFragmentation {
		to = binary.AppendVarint(to, pod.Requests.MilliCPU)
		to = binary.AppendVarint(to, pod.Requests.Memory)
	}
	return to
}

const (
	notWhole = "GPUs are shared in parts of one or taken whole"
	noRoom   = "Insufficient room on GPUs"
)

// Filter implements scheduler.FilterPlugin.
func (p *Plugin) Filter(pod *scheduler.Pod, node *scheduler.Node) *scheduler.Rejection {
	milli := p.asks(pod)
	switch {
	case milli == 0:
		return nil
	case !valid(milli):
		return scheduler.Reject(notWhole)
	case milli > int64(p.devices(node))*whole:
		return scheduler.Reject(noRoom)
	}
	if _, _, ok := p.look(node, &placement{uid: pod.Object.UID, milli: milli}); !ok {
		return scheduler.RejectFull(noRoom)
	}
	return nil
}

// Score implements scheduler.ScorePlugin.
func (p *Plugin) Score(pod *scheduler.Pod, node *scheduler.Node) int64 {
	if p.opts.Scoring == LeastFragmentation {
		return -p.harm(pod, node)
	}
	milli := p.asks(pod)
	if milli == 0 {
		return 0
	}
	free, _, _ := p.look(node, nil)
	left, device := int64(0), int64(whole)
	for _, f := range free {
		left += f
	}
	if d := choose(free, milli); d != nil && milli < whole {
		device = free[d[0]]
	}
	if p.opts.Scoring == Spreading {
		return left
	}
	// First the device that fits best, then the fullest node.
	return -(device*maxDevices + left/whole)
}

// Normalize implements scheduler.Normalizer.
func (*Plugin) Normalize(score, least, greatest int64) int64 {
	if greatest == least {
		return 0
	}
	return scheduler.MaxScore * (score - least) / (greatest - least)
}

// Indifferent implements scheduler.Normalizer.
func (p *Plugin) Indifferent(pod *scheduler.Pod) bool {
	return p.opts.Scoring != LeastFragmentation && p.asks(pod) == 0
}

// Hint implements scheduler.Hinter: a node that came or changed, and a pod with GPUs that went, may help.
func (p *Plugin) Hint(_ *scheduler.Pod, c scheduler.ClusterChange) bool {
	return c.Node != nil || c.FreedPod != nil && p.asks(c.FreedPod) > 0
}

// Reserve implements scheduler.ReservePlugin: it books devices for the pod, and for others on the node that have none.
func (p *Plugin) Reserve(_ *scheduler.Pod, node *scheduler.Node, _ *scheduler.View) error {
	p.tidy(node)
	_, unbooked, ok := p.look(node, nil)
	if !ok {
		return errors.New("gpushare: " + noRoom)
	}
	name := node.Object.Name
	for _, u := range unbooked {
		p.book[u.uid] = seat{name, u.devices}
		p.on[name] = append(p.on[name], u.uid)
	}
	return nil
}

// Unreserve implements scheduler.ReservePlugin.
func (p *Plugin) Unreserve(pod *scheduler.Pod, node string, _ *scheduler.View) {
	if s, ok := p.book[pod.Object.UID]; ok && s.node == node {
		delete(p.book, pod.Object.UID)
		p.on[node] = slices.DeleteFunc(p.on[node], func(uid types.UID) bool { return uid == pod.Object.UID })
	}
}

// tidy forgets the pods that left a node.
func (p *Plugin) tidy(node *scheduler.Node) {
	name := node.Object.Name
	there := map[types.UID]bool{}
	node.Pods(func(pod *scheduler.Pod) bool {
		there[pod.Object.UID] = true
		return true
	})
	p.on[name] = slices.DeleteFunc(p.on[name], func(uid types.UID) bool {
		if s, ok := p.book[uid]; there[uid] && ok && s.node == name {
			return false
		}
		if p.book[uid].node == name {
			delete(p.book, uid)
		}
		return true
	})
}

// Devices are those of a node on which a pod is, nil if none was booked for it.
func (p *Plugin) Devices(pod types.UID, node string) []int {
	if s, ok := p.book[pod]; ok && s.node == node {
		return slices.Clone(s.devices)
	}
	return nil
}

// Fork returns a plugin with a copy of the book, to go on with in another engine.
func (p *Plugin) Fork() *Plugin {
	f := &Plugin{opts: p.opts, book: maps.Clone(p.book), on: map[string][]types.UID{}}
	for name, uids := range p.on {
		f.on[name] = slices.Clone(uids)
	}
	return f
}
