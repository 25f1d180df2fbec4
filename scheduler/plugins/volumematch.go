package plugins

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/keelson/keelson/scheduler"
)

// reach says from which nodes a volume can be reached.
type reach struct {
	sel  *corev1.NodeSelector
	from func(*scheduler.Node) bool
}

// reachOf compiles the node affinity of a volume, which sees nothing of a node but its labels. The usual kind, where each term wants labels to
// have one of some values, is told from the view's topology domains.
func reachOf(view *scheduler.View, sel *corev1.NodeSelector) reach {
	if terms, ok := domainTerms(view, sel); ok {
		return reach{sel, func(n *scheduler.Node) bool {
			return slices.ContainsFunc(terms, func(t []inDomains) bool { return inAll(t, n) })
		}}
	}
	compiled, err := nodeaffinity.NewNodeSelector(sel)
	if err != nil {
		return reach{sel, func(*scheduler.Node) bool { return false }}
	}
	seen := &corev1.Node{}
	return reach{sel, func(n *scheduler.Node) bool {
		seen.Labels = n.Object.Labels
		return compiled.Match(seen)
	}}
}

// only returns the nodes of which alone it can be reached, if those are found by labels of which few nodes have the same value.
func (r reach) only(view *scheduler.View) (nodes []*scheduler.Node, ok bool) {
	nodes = []*scheduler.Node{}
	for i := range r.sel.NodeSelectorTerms {
		t := &r.sel.NodeSelectorTerms[i]
		if len(t.MatchExpressions)+len(t.MatchFields) == 0 {
			continue // matches nothing
		}
		k := slices.IndexFunc(t.MatchExpressions, func(e corev1.NodeSelectorRequirement) bool {
			return e.Operator == corev1.NodeSelectorOpIn && !view.Coarse(e.Key)
		})
		if k < 0 {
			return nil, false
		}
		for _, value := range t.MatchExpressions[k].Values {
			nodes = append(nodes, view.NodesWith(t.MatchExpressions[k].Key, value)...)
		}
	}
	slices.SortFunc(nodes, func(a, b *scheduler.Node) int { return cmp.Compare(a.Index(), b.Index()) })
	return slices.Compact(nodes), true
}

// labels are those that it depends on.
func (r reach) labels() (keys []string) {
	for i := range r.sel.NodeSelectorTerms {
		for _, e := range r.sel.NodeSelectorTerms[i].MatchExpressions {
			keys = append(keys, e.Key)
		}
	}
	return keys
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

// newLabels reports whether a node is new or has other labels.
func newLabels(c scheduler.ClusterChange) bool {
	return c.OldNode == nil || !maps.Equal(c.Node.Object.Labels, c.OldNode.Object.Labels)
}
