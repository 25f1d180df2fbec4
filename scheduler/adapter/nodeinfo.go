package adapter

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	ndf "k8s.io/component-helpers/nodedeclaredfeatures"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/keelson/keelson/scheduler"
)

// nodeInfo implements fwk.NodeInfo over a node of the engine. Pods are listed when they are asked for. It is of one decision, and changed only
// by plugins that try things out on a Snapshot of it.
type nodeInfo struct {
	node                            *corev1.Node
	from                            *scheduler.Node // until it is changed
	list                            []fwk.PodInfo
	listed                          bool
	requested, nonZero, allocatable *resources
	images                          func(string) int
	generation                      int64
}

var _ fwk.NodeInfo = (*nodeInfo)(nil)

func newNodeInfo(n *scheduler.Node, images func(string) int) *nodeInfo {
	return &nodeInfo{node: n.Object, from: n, images: images}
}

func (n *nodeInfo) Node() *corev1.Node { return n.node }

// GetPods are in the order of their names, so that decisions can be repeated.
func (n *nodeInfo) GetPods() []fwk.PodInfo {
	if !n.listed {
		n.listed = true
		n.from.Pods(func(p *scheduler.Pod) bool {
			n.list = append(n.list, &podInfo{pod: p})
			return true
		})
		slices.SortFunc(n.list, func(a, b fwk.PodInfo) int { return strings.Compare(fullName(a.GetPod()), fullName(b.GetPod())) })
	}
	return n.list
}

func fullName(p *corev1.Pod) string { return p.Namespace + "/" + p.Name + "/" + string(p.UID) }

func (n *nodeInfo) having(has func(fwk.PodInfo) bool) (out []fwk.PodInfo) {
	for _, p := range n.GetPods() {
		if has(p) {
			out = append(out, p)
		}
	}
	return out
}

func (n *nodeInfo) GetPodsWithAffinity() []fwk.PodInfo {
	return n.having(func(p fwk.PodInfo) bool {
		a := p.GetPod().Spec.Affinity
		return a != nil && (a.PodAffinity != nil || a.PodAntiAffinity != nil)
	})
}

func (n *nodeInfo) GetPodsWithRequiredAntiAffinity() []fwk.PodInfo {
	return n.having(func(p fwk.PodInfo) bool { return len(p.GetRequiredAntiAffinityTerms()) > 0 })
}

func (n *nodeInfo) GetPodsWithRequiredNonHostScopedAntiAffinity() []fwk.PodInfo {
	return n.having(func(p fwk.PodInfo) bool {
		return slices.ContainsFunc(p.GetRequiredAntiAffinityTerms(), func(t fwk.AffinityTerm) bool { return t.TopologyKey != corev1.LabelHostname })
	})
}

func (n *nodeInfo) GetUsedPorts() fwk.HostPortInfo {
	ports := fwk.HostPortInfo{}
	for _, p := range n.GetPods() {
		for _, hp := range hostPorts(p) {
			ports.Add(hp.IP, string(hp.Protocol), hp.Port)
		}
	}
	return ports
}

func hostPorts(p fwk.PodInfo) []scheduler.HostPort {
	if own, ok := p.(*podInfo); ok {
		return own.pod.HostPorts
	}
	return scheduler.NewPod(p.GetPod()).HostPorts
}

// sums are computed once.
func (n *nodeInfo) sums() {
	if n.requested != nil {
		return
	}
	n.requested, n.nonZero, n.allocatable = &resources{}, &resources{}, &resources{}
	if n.from != nil && !n.listed {
		n.requested.add(&n.from.Requested)
		n.nonZero.add(&n.from.Scored)
	} else {
		for _, p := range n.list {
			n.count(p, 1)
		}
	}
	if n.from != nil {
		n.allocatable.add(&n.from.Allocatable)
	} else if n.node != nil {
		n.allocatable.SetMaxResource(n.node.Status.Allocatable)
	}
}

func (n *nodeInfo) count(p fwk.PodInfo, sign int64) {
	r := p.CalculateResource()
	n.requested.plus(r.Resource, sign)
	n.nonZero.MilliCPU += sign * r.Non0CPU
	n.nonZero.Memory += sign * r.Non0Mem
}

func (n *nodeInfo) GetRequested() fwk.Resource        { n.sums(); return n.requested }
func (n *nodeInfo) GetNonZeroRequested() fwk.Resource { n.sums(); return n.nonZero }
func (n *nodeInfo) GetAllocatable() fwk.Resource      { n.sums(); return n.allocatable }

func (n *nodeInfo) GetImageStates() map[string]*fwk.ImageStateSummary {
	out := map[string]*fwk.ImageStateSummary{}
	for _, image := range n.node.Status.Images {
		for _, name := range image.Names {
			s := &fwk.ImageStateSummary{Size: image.SizeBytes, NumNodes: 1, Nodes: sets.New(n.node.Name)}
			if n.images != nil {
				s.NumNodes = n.images(name)
			}
			out[name] = s
		}
	}
	return out
}

func (n *nodeInfo) GetPVCRefCounts() map[string]int {
	out := map[string]int{}
	for _, p := range n.GetPods() {
		obj := p.GetPod()
		for i := range obj.Spec.Volumes {
			if c := obj.Spec.Volumes[i].PersistentVolumeClaim; c != nil {
				out[obj.Namespace+"/"+c.ClaimName]++
			}
		}
	}
	return out
}

// GetGeneration counts the changes made to this copy; between decisions nothing can be told from it.
func (n *nodeInfo) GetGeneration() int64 { return n.generation }

func (n *nodeInfo) GetNodeDeclaredFeatures() ndf.FeatureSet {
	return ndf.DefaultFramework.TryMap(n.node.Status.DeclaredFeatures)
}

func (n *nodeInfo) Snapshot() fwk.NodeInfo {
	n.sums()
	c := &nodeInfo{node: n.node, from: n.from, list: slices.Clone(n.GetPods()), listed: true, images: n.images, generation: n.generation}
	c.requested, c.nonZero, c.allocatable = n.requested.clone(), n.nonZero.clone(), n.allocatable.clone()
	return c
}

func (n *nodeInfo) String() string {
	name := "<none>"
	if n.node != nil {
		name = n.node.Name
	}
	return fmt.Sprintf("node %s with %d pods", name, len(n.GetPods()))
}

func (n *nodeInfo) AddPodInfo(p fwk.PodInfo) {
	n.GetPods()
	n.sums()
	n.list = append(n.list, p)
	n.count(p, 1)
	n.generation++
}

func (n *nodeInfo) RemovePod(_ klog.Logger, pod *corev1.Pod) error {
	i := slices.IndexFunc(n.GetPods(), func(p fwk.PodInfo) bool { return p.GetPod().UID == pod.UID })
	if i < 0 {
		return fmt.Errorf("adapter: pod %s/%s is not on node %s", pod.Namespace, pod.Name, n.node.Name)
	}
	n.sums()
	n.count(n.list[i], -1)
	n.list = slices.Delete(slices.Clone(n.list), i, i+1)
	n.generation++
	return nil
}

func (n *nodeInfo) SetNode(node *corev1.Node) {
	n.sums()
	n.node, n.allocatable = node, &resources{}
	n.allocatable.SetMaxResource(node.Status.Allocatable)
	n.generation++
}

// resources implements fwk.Resource.
type resources struct {
	MilliCPU, Memory, EphemeralStorage, Pods int64
	Scalar                                   map[corev1.ResourceName]int64
}

var _ fwk.Resource = (*resources)(nil)

func (r *resources) GetMilliCPU() int64                                { return r.MilliCPU }
func (r *resources) GetMemory() int64                                  { return r.Memory }
func (r *resources) GetEphemeralStorage() int64                        { return r.EphemeralStorage }
func (r *resources) GetAllowedPodNumber() int                          { return int(r.Pods) }
func (r *resources) GetScalarResources() map[corev1.ResourceName]int64 { return r.Scalar }

func (r *resources) change(name corev1.ResourceName, f func(*int64)) {
	switch name {
	case corev1.ResourceCPU:
		f(&r.MilliCPU)
	case corev1.ResourceMemory:
		f(&r.Memory)
	case corev1.ResourceEphemeralStorage:
		f(&r.EphemeralStorage)
	case corev1.ResourcePods:
		f(&r.Pods)
	default:
		v := r.Scalar[name]
		f(&v)
		if r.Scalar == nil {
			r.Scalar = map[corev1.ResourceName]int64{}
		}
		r.Scalar[name] = v
	}
}

func (r *resources) add(from *scheduler.Resources) {
	for name, v := range from.All() {
		r.change(name, func(to *int64) { *to += v })
	}
}

func (r *resources) plus(o fwk.Resource, sign int64) {
	r.MilliCPU += sign * o.GetMilliCPU()
	r.Memory += sign * o.GetMemory()
	r.EphemeralStorage += sign * o.GetEphemeralStorage()
	for name, v := range o.GetScalarResources() {
		r.change(name, func(to *int64) { *to += sign * v })
	}
}

func (r *resources) clone() *resources {
	c := *r
	c.Scalar = maps.Clone(r.Scalar)
	return &c
}

func (r *resources) SetMaxResource(list corev1.ResourceList) {
	for name, q := range list {
		v := q.Value()
		if name == corev1.ResourceCPU {
			v = q.MilliValue()
		}
		r.change(name, func(to *int64) { *to = max(*to, v) })
	}
}

// podInfo implements fwk.PodInfo.
type podInfo struct {
	pod *scheduler.Pod
}

var _ fwk.PodInfo = (*podInfo)(nil)

func (p *podInfo) GetPod() *corev1.Pod { return p.pod.Object }

// affinity calls f with the pod's own rules about others, if it has any.
func (p *podInfo) affinity() (near *corev1.PodAffinity, away *corev1.PodAntiAffinity) {
	near, away = &corev1.PodAffinity{}, &corev1.PodAntiAffinity{}
	if a := p.pod.Object.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			near = a.PodAffinity
		}
		if a.PodAntiAffinity != nil {
			away = a.PodAntiAffinity
		}
	}
	return near, away
}

// The errors are of selectors that no API server lets through.

func (p *podInfo) GetRequiredAffinityTerms() []fwk.AffinityTerm {
	near, _ := p.affinity()
	terms, _ := fwk.GetAffinityTerms(p.pod.Object, near.RequiredDuringSchedulingIgnoredDuringExecution)
	return terms
}

func (p *podInfo) GetRequiredAntiAffinityTerms() []fwk.AffinityTerm {
	_, away := p.affinity()
	terms, _ := fwk.GetAffinityTerms(p.pod.Object, away.RequiredDuringSchedulingIgnoredDuringExecution)
	return terms
}

func (p *podInfo) GetPreferredAffinityTerms() []fwk.WeightedAffinityTerm {
	near, _ := p.affinity()
	terms, _ := fwk.GetWeightedAffinityTerms(p.pod.Object, near.PreferredDuringSchedulingIgnoredDuringExecution)
	return terms
}

func (p *podInfo) GetPreferredAntiAffinityTerms() []fwk.WeightedAffinityTerm {
	_, away := p.affinity()
	terms, _ := fwk.GetWeightedAffinityTerms(p.pod.Object, away.PreferredDuringSchedulingIgnoredDuringExecution)
	return terms
}

func (p *podInfo) CalculateResource() fwk.PodResource {
	r := &resources{}
	r.add(&p.pod.Requests)
	return fwk.PodResource{Resource: r, Non0CPU: p.pod.Scored.MilliCPU, Non0Mem: p.pod.Scored.Memory}
}
