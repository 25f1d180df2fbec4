package scheduler

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// Explanation is what each plugin says of a pod on each node. Plugins are asked plainly: no cached answer is used.
type Explanation struct {
	Pod types.NamespacedName
	// Decision is what Decide says, down to the choice among nodes of the same score.
	Decision Decision
	// Rejection is set if a plugin wants the pod on no node, before nodes are looked at: then there are no Nodes.
	Rejection *Rejection
	// Nominated: the pod goes where room was made for it. Its scores don't count then, and no other node is looked at by Decide.
	Nominated bool
	// Plugins that filter or score nodes, in the order in which they are asked.
	Plugins []ExplainedPlugin
	// Nodes are all nodes: the one that was chosen, the other feasible ones by score, the best first, then the rejected ones.
	Nodes []NodeExplanation
}

// ExplainedPlugin is a plugin in an Explanation.
type ExplainedPlugin struct {
	Name   string
	Weight int64
}

// NodeExplanation is what the plugins say of one node.
type NodeExplanation struct {
	Node     string
	Feasible bool
	// Score is the sum of the plugins' weighted scores; 0 for a node that isn't feasible.
	Score int64
	// Verdicts by plugin, as in Explanation.Plugins.
	Verdicts []Verdict
}

// Verdict is what one plugin says of one node.
type Verdict struct {
	// Rejection is nil if the plugin accepts the node. Of a node's rejections the first decides; an Explanation has all of them. Where room is being made
	// for other pods that come first, the node is asked about with them, too.
	Rejection *Rejection
	// Scored: the node is feasible and the plugin scores this pod. Raw is the plugin's own figure, Normalized is 0 to MaxScore, Weighted is what counts.
	// Of a ClusterPlugin, which normalizes by itself, Raw is the same as Normalized.
	Scored                    bool
	Raw, Normalized, Weighted int64
}

// Explain says why Decide decides for a pod as it does. It changes nothing: the next Decide of that pod makes the decision that is explained.
// It takes time in proportion to nodes and plugins.
func (e *Engine) Explain(pod *Pod) *Explanation {
	random := *e.source
	x := &Explanation{Pod: types.NamespacedName{Namespace: pod.Object.Namespace, Name: pod.Object.Name}, Decision: e.Decide(pod)}
	*e.source = random
	x.Nominated = x.Decision.Fits() && e.Nominated(pod.key()) == x.Decision.Node
	asked := e.judges(pod, x)
	if x.Rejection != nil {
		return x
	}
	var feasible []*Node
	var rows []int // of the feasible nodes in x.Nodes
	prof := e.profileOf(pod)
	for _, n := range e.nodes {
		if n == nil {
			continue
		}
		row := NodeExplanation{Node: n.Object.Name, Feasible: true, Verdicts: make([]Verdict, len(asked))}
		outside := prof.outside(pod, n.Object.Name)
		for i, j := range asked {
			if outside != nil {
				if j.p.name == outside.Plugin {
					row.Feasible, row.Verdicts[i].Rejection = false, outside
				}
				continue // they aren't asked
			}
			r := e.verdict(&j, pod, n)
			row.Verdicts[i].Rejection = r
			row.Feasible = row.Feasible && r == nil
		}
		if outside == nil && len(e.rivals(pod, n.Object.Name)) > 0 {
			row.Feasible = x.yield(&row, e.check(prof, pod, n, asked))
		}
		if row.Feasible {
			feasible, rows = append(feasible, n), append(rows, len(x.Nodes))
		}
		x.Nodes = append(x.Nodes, row)
	}
	if len(feasible) > 0 {
		raw := make([]int64, len(feasible))
		for i, j := range asked {
			x.score(i, &j, pod, feasible, raw, rows)
		}
	}
	slices.SortFunc(x.Nodes, func(a, b NodeExplanation) int {
		return cmp.Or(-cmpBool(a.Node == x.Decision.Node, b.Node == x.Decision.Node), -cmpBool(a.Feasible, b.Feasible), cmp.Compare(b.Score, a.Score), strings.Compare(a.Node, b.Node))
	})
	return x
}

// yield notes the rejection of a node for the sake of pods that are nominated for it, and reports whether there is none.
func (x *Explanation) yield(row *NodeExplanation, r *Rejection) bool {
	if r == nil {
		return true
	}
	for i := range x.Plugins {
		if x.Plugins[i].Name == r.Plugin {
			row.Verdicts[i].Rejection = r
			break
		}
		row.Verdicts[i].Rejection = nil // with those other pods it accepts
	}
	return false
}

func cmpBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// judges are the plugins that filter or score nodes, asked what they say of the pod first. One that rejects it for all nodes ends it.
func (e *Engine) judges(pod *Pod, x *Explanation) (out []judged) {
	prof := e.profileOf(pod)
	if r := e.PreEnqueue(pod); r != nil {
		x.Rejection = r
		return nil
	}
	js, by, r := e.preFilter(prof, pod, nil)
	if r != nil {
		if x.Rejection = r; by != nil {
			x.Rejection = named(r, by)
		}
		return nil
	}
	for _, p := range prof.plugins {
		j := judged{p: p}
		if len(js) > 0 && js[0].p == p {
			j.Judgement = js[0].Plain(e.view)
			js = js[1:]
		}
		if p.filter != nil || p.score != nil || p.cluster != nil {
			out = append(out, j)
			x.Plugins = append(x.Plugins, ExplainedPlugin{p.plugin.Name(), p.weight})
		}
	}
	return out
}

// named returns the rejection with the name of the plugin it is from.
func named(r *Rejection, p *pluginState) *Rejection {
	if r == nil || r.Plugin != "" {
		return r
	}
	c := *r
	c.Plugin = p.plugin.Name()
	return &c
}

func (e *Engine) verdict(j *judged, pod *Pod, n *Node) *Rejection {
	if j.p.filter != nil {
		if r := j.p.filter.Filter(pod, n); r != nil {
			return named(r, j.p)
		}
	}
	if j.Filter != nil {
		return named(j.Filter(n), j.p)
	}
	return nil
}

// score fills in one plugin's column; raw is scratch.
func (x *Explanation) score(column int, j *judged, pod *Pod, feasible []*Node, raw []int64, rows []int) {
	clear(raw)
	add := func(worth func(int64) int64) {
		for i, v := range raw {
			n := &x.Nodes[rows[i]]
			c := &n.Verdicts[column]
			normal := worth(v)
			c.Scored = true
			c.Raw, c.Normalized, c.Weighted = c.Raw+v, c.Normalized+normal, c.Weighted+j.p.weight*normal
			n.Score += j.p.weight * normal
		}
	}
	same := func(v int64) int64 { return v }
	p := j.p
	if p.score != nil && (p.normalize == nil || !p.normalize.Indifferent(pod)) {
		for i, n := range feasible {
			raw[i] = p.score.Score(pod, n)
		}
		if p.normalize == nil {
			add(same)
		} else {
			least, greatest := slices.Min(raw), slices.Max(raw)
			add(func(v int64) int64 { return p.normalize.Normalize(v, least, greatest) })
		}
	}
	if j.Scores != nil {
		clear(raw)
		j.Scores(feasible, raw)
		add(same)
	}
}

// Winner is the node that was chosen, nil if the pod fits nowhere.
func (x *Explanation) Winner() *NodeExplanation {
	if len(x.Nodes) == 0 || !x.Nodes[0].Feasible {
		return nil
	}
	return &x.Nodes[0]
}

// RunnerUp is the best of the other feasible nodes, nil if there is none.
func (x *Explanation) RunnerUp() *NodeExplanation {
	if len(x.Nodes) < 2 || !x.Nodes[1].Feasible {
		return nil
	}
	return &x.Nodes[1]
}

// Margin is by how much the winner's score is ahead of the runner-up's, which counts unless the pod was Nominated: 0 if chance decided among equals, or if there are no two feasible nodes.
func (x *Explanation) Margin() int64 {
	if r := x.RunnerUp(); r != nil {
		return x.Winner().Score - r.Score
	}
	return 0
}

// Best is the number of nodes that share the winner's score, the winner included.
func (x *Explanation) Best() (n int) {
	for i := range x.Nodes {
		if x.Nodes[i].Feasible && x.Nodes[i].Score == x.Nodes[0].Score {
			n++
		}
	}
	return n
}

// NodeClass is a set of nodes of which all plugins say the same.
type NodeClass struct {
	// Nodes in the order of Explanation.Nodes.
	Nodes []string
	// NodeExplanation of the first of them stands for all.
	NodeExplanation
}

// Classes groups the nodes by what is said of them, in the order of Explanation.Nodes.
func (x *Explanation) Classes() []NodeClass {
	var out []NodeClass
	at := map[string]int{}
	var key []byte
	for _, n := range x.Nodes {
		key = key[:0]
		for i := range n.Verdicts {
			key = n.Verdicts[i].appendTo(key)
		}
		i, ok := at[string(key)]
		if !ok {
			i = len(out)
			at[string(key)] = i
			out = append(out, NodeClass{NodeExplanation: n})
		}
		out[i].Nodes = append(out[i].Nodes, n.Node)
	}
	return out
}

func (v *Verdict) appendTo(b []byte) []byte {
	if r := v.Rejection; r != nil {
		b = append(b, 'n', byte(cmpBool(r.Unresolvable, false)))
		for _, reason := range r.Reasons {
			b = append(append(b, reason...), 1)
		}
	}
	for _, n := range []int64{v.Raw, v.Normalized, v.Weighted} {
		b = append(b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24), byte(n>>32), byte(n>>40), byte(n>>48), byte(n>>56))
	}
	return append(b, 0)
}
