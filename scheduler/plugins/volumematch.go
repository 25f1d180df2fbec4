package plugins

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	volumehelper "k8s.io/component-helpers/storage/volume"

	"github.com/keelson/keelson/scheduler"
)

// nodeMatch reports whether a node matches.
type nodeMatch func(*scheduler.Node) bool

// matchNodes compiles the node affinity of a volume, which sees nothing of a node but its labels. The usual kind, where each term wants labels to
// have one of some values, is told from the view's topology domains.
func matchNodes(view *scheduler.View, sel *corev1.NodeSelector) nodeMatch {
	if terms, ok := domainTerms(view, sel); ok {
		return func(n *scheduler.Node) bool {
			return slices.ContainsFunc(terms, func(t []inDomains) bool { return inAll(t, n) })
		}
	}
	compiled, err := nodeaffinity.NewNodeSelector(sel)
	if err != nil {
		return func(*scheduler.Node) bool { return false }
	}
	seen := &corev1.Node{}
	return func(n *scheduler.Node) bool {
		seen.Labels = n.Object.Labels
		return compiled.Match(seen)
	}
}

// inDomains is a requirement for a label to have one of some values.
type inDomains struct {
	of  []int32
	ids []int32
}

func inAll(t []inDomains, n *scheduler.Node) bool {
	for i := range t {
		if !slices.Contains(t[i].ids, t[i].of[n.Index()]) {
			return false
		}
	}
	return true
}

func domainsOf(view *scheduler.View, key string, values []string) inDomains {
	d := view.Domains(key)
	in := inDomains{of: d.Of}
	for _, v := range values {
		if id, known := d.ID(v); known {
			in.ids = append(in.ids, id)
		}
	}
	return in
}

func domainTerms(view *scheduler.View, sel *corev1.NodeSelector) (terms [][]inDomains, ok bool) {
	for i := range sel.NodeSelectorTerms {
		t := &sel.NodeSelectorTerms[i]
		if len(t.MatchFields) > 0 {
			return nil, false
		}
		if len(t.MatchExpressions) == 0 {
			continue // matches nothing
		}
		var term []inDomains
		for k := range t.MatchExpressions {
			e := &t.MatchExpressions[k]
			if e.Operator != corev1.NodeSelectorOpIn {
				return nil, false
			}
			term = append(term, domainsOf(view, e.Key, e.Values))
		}
		terms = append(terms, term)
	}
	return terms, true
}

// matchesLabels reports whether a label selector matches; an invalid one doesn't.
func matchesLabels(sel *metav1.LabelSelector, set map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(sel)
	return err == nil && s.Matches(labels.Set(set))
}

// newLabels reports whether a node is new or has other labels.
func newLabels(c scheduler.ClusterChange) bool {
	return c.OldNode == nil || !maps.Equal(c.Node.Object.Labels, c.OldNode.Object.Labels)
}

// volumePool holds the volumes that a claim could have, as far as that doesn't depend on the node.
type volumePool struct {
	// prebound is the volume that is meant for the claim; then there is no other.
	prebound *pooled
	// anywhere are sorted by size, with others below, by the value of the one label that they ask of a node.
	anywhere []*pooled
	byLabel  []labelPool
}

type pooled struct {
	pv    *corev1.PersistentVolume
	match nodeMatch // nil: any node
}

// labelPool are volumes by topology domain, each list sorted by size.
type labelPool struct {
	key  string
	of   []int32
	byID map[int32][]*pooled
}

// newVolumePool returns why there can be none, if so.
func newVolumePool(view *scheduler.View, claim *corev1.PersistentVolumeClaim) (*volumePool, string) {
	var sel labels.Selector
	if claim.Spec.Selector != nil {
		s, err := metav1.LabelSelectorAsSelector(claim.Spec.Selector)
		if err != nil {
			return nil, "error creating internal label selector for claim: " + claim.Namespace + "/" + claim.Name + ": " + err.Error()
		}
		sel = s
	}
	pool := &volumePool{}
	size := requested(claim)
	var free []*corev1.PersistentVolume
	view.VolumesOfClass(volumehelper.GetPersistentVolumeClaimClass(claim), func(pv *corev1.PersistentVolume) {
		capacity := pv.Spec.Capacity[corev1.ResourceStorage]
		if pv.Spec.ClaimRef != nil && !volumehelper.IsVolumeBoundToClaim(pv, claim) || capacity.Cmp(*size) < 0 ||
			volumehelper.CheckVolumeModeMismatches(&claim.Spec, &pv.Spec) || pv.DeletionTimestamp != nil ||
			attributesClass(claim.Spec.VolumeAttributesClassName) != attributesClass(pv.Spec.VolumeAttributesClassName) {
			return
		}
		if pv.Spec.ClaimRef != nil {
			if pool.prebound == nil || pv.Name < pool.prebound.pv.Name {
				pool.prebound = &pooled{pv: pv}
			}
			return
		}
		if pv.Status.Phase == corev1.VolumeAvailable && (sel == nil || sel.Matches(labels.Set(pv.Labels))) && volumehelper.CheckAccessModes(claim, pv) {
			free = append(free, pv)
		}
	})
	if p := pool.prebound; p != nil {
		p.match = affinityOf(view, p.pv)
		return pool, ""
	}
	slices.SortFunc(free, bySize)
	for _, pv := range free {
		pool.add(view, pv)
	}
	return pool, ""
}

func attributesClass(name *string) string {
	if name == nil {
		return ""
	}
	return *name
}

func bySize(a, b *corev1.PersistentVolume) int {
	x, y := a.Spec.Capacity[corev1.ResourceStorage], b.Spec.Capacity[corev1.ResourceStorage]
	return cmp.Or(x.Cmp(y), strings.Compare(a.Name, b.Name))
}

func affinityOf(view *scheduler.View, pv *corev1.PersistentVolume) nodeMatch {
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return nil
	}
	return matchNodes(view, pv.Spec.NodeAffinity.Required)
}

// add puts volumes that ask for one value of one label, as local ones do, where they are found without looking at the others.
func (p *volumePool) add(view *scheduler.View, pv *corev1.PersistentVolume) {
	key, value, ok := onlyLabel(pv)
	if !ok {
		p.anywhere = append(p.anywhere, &pooled{pv, affinityOf(view, pv)})
		return
	}
	d := view.Domains(key)
	id, known := d.ID(value)
	if !known {
		return
	}
	i := slices.IndexFunc(p.byLabel, func(l labelPool) bool { return l.key == key })
	if i < 0 {
		i = len(p.byLabel)
		p.byLabel = append(p.byLabel, labelPool{key, d.Of, map[int32][]*pooled{}})
	}
	p.byLabel[i].byID[id] = append(p.byLabel[i].byID[id], &pooled{pv: pv})
}

func onlyLabel(pv *corev1.PersistentVolume) (key, value string, ok bool) {
	a := pv.Spec.NodeAffinity
	if a == nil || a.Required == nil || len(a.Required.NodeSelectorTerms) != 1 {
		return "", "", false
	}
	t := &a.Required.NodeSelectorTerms[0]
	if len(t.MatchFields) > 0 || len(t.MatchExpressions) != 1 {
		return "", "", false
	}
	e := &t.MatchExpressions[0]
	if e.Operator != corev1.NodeSelectorOpIn || len(e.Values) != 1 {
		return "", "", false
	}
	return e.Key, e.Values[0], true
}

// smallest returns the smallest volume that can be reached from the node and is not taken, nil if there is none.
func (p *volumePool) smallest(n *scheduler.Node, taken []string) (best *corev1.PersistentVolume) {
	if p.prebound != nil {
		if slices.Contains(taken, p.prebound.pv.Name) || p.prebound.match != nil && !p.prebound.match(n) {
			return nil
		}
		return p.prebound.pv
	}
	first := func(in []*pooled) {
		for _, v := range in {
			if best != nil && bySize(best, v.pv) <= 0 {
				return
			}
			if (v.match == nil || v.match(n)) && !slices.Contains(taken, v.pv.Name) {
				best = v.pv
				return
			}
		}
	}
	first(p.anywhere)
	for i := range p.byLabel {
		if id := p.byLabel[i].of[n.Index()]; id >= 0 {
			first(p.byLabel[i].byID[id])
		}
	}
	return best
}
