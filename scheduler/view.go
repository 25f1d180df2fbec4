package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// ClusterPlugin judges a node by what is on others, too. It is an alternative to FilterPlugin and ScorePlugin.
type ClusterPlugin interface {
	Plugin
	// Prepare is called once for each decision, before nodes are looked at. The view is valid until the decision is made. A rejection says that
	// no node can take the pod.
	Prepare(pod *Pod, view *View) (Judgement, *Rejection)
}

// Judgement is what a ClusterPlugin has to say of one pod in one decision: the zero value is nothing.
type Judgement struct {
	// Filter returns nil if the node can take the pod, as FilterPlugin's does.
	Filter func(node *Node) *Rejection
	// Scores sets the scores of all feasible nodes, each 0 to MaxScore. They are 0 when it is called.
	Scores func(feasible []*Node, scores []int64)
	// Only, unless it is nil, has all nodes that Filter may accept: others aren't looked at, unless it is to be explained why no node fits.
	Only []*Node
	// Domains says the same of topology domains, which is much faster where there are many nodes.
	Domains *DomainJudgement
}

// View is the cluster as the engine knows it, in columns by Node.Index: what is counted here is kept up to date with every change, so that
// nobody has to go through all pods. Slices belong to the view and must not be modified.
type View struct {
	nodes      []*Node
	namespaces map[string]labels.Set
	storage    storage
	attached   attached
	groups     groups
	images     images
	owners     owners
	domains    map[string]*Domains
	fine       map[string]bool // labels that aren't Coarse
	counters   map[string]countUse
	terms      [termKinds]map[string]*termCount
	unused     int // terms that no pod has any more
	clock      uint64
	budgets    budgets
	engine     *Engine
	own        *owner // of what isn't shared with a fork
}

// maxCounters bounds how many selectors are counted at any time.
const maxCounters = 2048

// maxUnused bounds how many terms are remembered that no pod has.
const maxUnused = 256

// Domains are the topology domains of one key.
type Domains struct {
	// Of is each node's domain, by Node.Index: below Len, or -1 for a node without the label.
	Of []int32
	// Len is greater than all domains. Not every number below it has a node.
	Len int

	own   *owner
	since *owner // the same for those that have the same numbers for the same values
	ids   map[string]int32
	// head, next and prev link the nodes of each domain, once they have been asked for.
	head, next, prev []int32
	linked           bool
}

// countUse is a counter and when it was last asked for.
type countUse struct {
	*counter
	used uint64
}

type counter struct {
	own *owner
	all []PodSelector
	on  Counts
}

type termCount struct {
	own   *owner
	term  PodTerm
	on    Counts
	total int
	seen  bool // it had pods before
}

func newView() *View {
	v := &View{
		namespaces: map[string]labels.Set{}, storage: newStorage(), attached: attached{drivers: map[string]*DriverNodes{}}, groups: newGroups(), images: images{nodes: map[string]int{}}, owners: newOwners(), own: &owner{},
		domains: map[string]*Domains{}, fine: map[string]bool{}, counters: map[string]countUse{}, budgets: newBudgets(),
	}
	for k := range v.terms {
		v.terms[k] = map[string]*termCount{}
	}
	return v
}

// fork is the view of an engine's fork, which has its nodes already.
func (v *View) fork(e *Engine) *View {
	f := newView()
	f.engine, f.nodes, f.clock = e, e.nodes, v.clock
	v.own = &owner{}
	f.namespaces, f.storage = maps.Clone(v.namespaces), v.storage.fork()
	f.attached, f.groups, f.images, f.owners = v.attached.fork(), v.groups.clone(), v.images.fork(), v.owners.fork()
	f.domains, f.fine, f.counters, f.unused = maps.Clone(v.domains), maps.Clone(v.fine), maps.Clone(v.counters), v.unused
	for k := range v.terms {
		f.terms[k] = maps.Clone(v.terms[k])
	}
	f.budgets = v.budgets.clone()
	return f
}

// Nodes returns all nodes by Node.Index, with nil where there is none.
func (v *View) Nodes() []*Node { return v.nodes }

// Node returns a node by its name, nil if there is none.
func (v *View) Node(name string) *Node { return v.engine.Node(name) }

// NamespaceLabels returns the labels of a namespace; none if it is not known.
func (v *View) NamespaceLabels(name string) labels.Set { return v.namespaces[name] }

// Domains returns the domains of a topology key.
func (v *View) Domains(key string) *Domains {
	d := v.domains[key]
	if d == nil || d.Len > 2*len(v.nodes)+1024 {
		d = &Domains{own: v.own, since: &owner{}, ids: map[string]int32{}}
		v.domains[key] = d
		for slot := range v.nodes {
			d.set(key, slot, v.nodes[slot])
		}
	}
	return d
}

// myDomains are Domains that may be changed.
func (v *View) myDomains(key string) *Domains {
	d := v.Domains(key)
	if d.own == v.own {
		return d
	}
	c := *d
	c.own, c.Of, c.ids = v.own, slices.Clone(d.Of), maps.Clone(d.ids)
	c.head, c.next, c.prev = slices.Clone(d.head), slices.Clone(d.next), slices.Clone(d.prev)
	v.domains[key] = &c
	return &c
}

// ID returns the domain of a value, and whether a node has or had it.
func (d *Domains) ID(value string) (int32, bool) {
	id, ok := d.ids[value]
	return id, ok
}

func (d *Domains) set(key string, slot int, n *Node) {
	for len(d.Of) <= slot {
		d.Of = append(d.Of, -1)
	}
	id := int32(-1)
	if n != nil {
		if value, ok := n.Object.Labels[key]; ok {
			id = d.id(value)
		}
	}
	if d.linked && d.Of[slot] != id {
		d.unlink(int32(slot))
		d.Of[slot] = id
		d.link(int32(slot))
	}
	d.Of[slot] = id
}

// is reports whether a node's domain is known already.
func (d *Domains) is(key string, slot int, n *Node) bool {
	if slot >= len(d.Of) {
		return false
	}
	value, ok := "", false
	if n != nil {
		value, ok = n.Object.Labels[key]
	}
	if !ok {
		return d.Of[slot] < 0
	}
	id, known := d.ids[value]
	return known && d.Of[slot] == id
}

func (d *Domains) id(value string) int32 {
	id, ok := d.ids[value]
	if !ok {
		id = int32(d.Len)
		d.ids[value] = id
		d.Len++
	}
	return id
}

func (d *Domains) link(slot int32) {
	for len(d.next) < len(d.Of) {
		d.next, d.prev = append(d.next, -1), append(d.prev, -1)
	}
	for len(d.head) < d.Len {
		d.head = append(d.head, -1)
	}
	id := d.Of[slot]
	if id < 0 {
		return
	}
	d.prev[slot], d.next[slot] = -1, d.head[id]
	if h := d.head[id]; h >= 0 {
		d.prev[h] = slot
	}
	d.head[id] = slot
}

func (d *Domains) unlink(slot int32) {
	id := d.Of[slot]
	if id < 0 {
		return
	}
	if p := d.prev[slot]; p >= 0 {
		d.next[p] = d.next[slot]
	} else {
		d.head[id] = d.next[slot]
	}
	if n := d.next[slot]; n >= 0 {
		d.prev[n] = d.prev[slot]
	}
}

// NodesWith are the nodes whose label of that key has the value, in no order. It takes time in proportion to how many they are.
func (v *View) NodesWith(key, value string) (nodes []*Node) {
	d := v.Domains(key)
	if !d.linked {
		d = v.myDomains(key)
		d.linked = true
		for slot := range d.Of {
			d.link(int32(slot))
		}
	}
	id, ok := d.ID(value)
	if !ok {
		return nil
	}
	for slot := d.head[id]; slot >= 0; slot = d.next[slot] {
		nodes = append(nodes, v.nodes[slot])
	}
	return nodes
}

// Coarse reports whether a label has few values among the nodes, so that it is worth while to tell nodes apart by it. What was not so once never is.
func (v *View) Coarse(key string) bool {
	if key == corev1.LabelHostname || v.fine[key] {
		return false
	}
	if values := v.Domains(key).Len; values <= 16 || values*values <= 4*len(v.nodes) {
		return true
	}
	v.fine[key] = true
	v.engine.forgetSums() // they don't know of the changes that few nodes see
	return false
}

// Counts returns how many pods that are in all of the sets each node has.
func (v *View) Counts(all ...PodSelector) *Counts {
	var key string
	if len(all) == 1 {
		key = all[0].id
	} else {
		ids := make([]string, len(all))
		for i := range all {
			ids[i] = all[i].id
		}
		key = strings.Join(ids, "\x01")
	}
	v.clock++
	c := v.counters[key].counter
	if c == nil {
		v.evict()
		c = &counter{own: v.own, all: all}
		for slot, n := range v.nodes {
			if n != nil {
				for _, p := range n.pods {
					if c.matches(v, p) {
						c.on.add(int32(slot), 1, len(v.nodes))
					}
				}
			}
		}
	}
	v.counters[key] = countUse{c, v.clock}
	return &c.on
}

func (v *View) evict() {
	if len(v.counters) < maxCounters {
		return
	}
	oldest, least := "", ^uint64(0)
	for k, c := range v.counters {
		if c.used < least {
			oldest, least = k, c.used
		}
	}
	delete(v.counters, oldest)
}

func (c *counter) matches(v *View, p *Pod) bool {
	for i := range c.all {
		if !c.all[i].Matches(p, v) {
			return false
		}
	}
	return true
}

// of is the counter, or a copy if it is the view's no longer alone.
func (c *counter) of(v *View) *counter {
	if c.own == v.own {
		return c
	}
	return &counter{own: v.own, all: c.all, on: c.on.clone()}
}

// Terms calls f for each different term of a kind that pods on nodes have, in no order, with the number of those pods on each node.
func (v *View) Terms(kind TermKind, f func(term *PodTerm, on *Counts)) {
	for _, t := range v.terms[kind] {
		if t.total > 0 {
			f(&t.term, &t.on)
		}
	}
}

// Anywhere reports whether any of the pods that are counted is on a node with a label of that key, and so in a topology domain.
func (v *View) Anywhere(on *Counts, key string) bool {
	return on.anyOn(func(slot int32) bool {
		n := v.engine.nodes[slot]
		if n == nil {
			return false
		}
		_, ok := n.Object.Labels[key]
		return ok
	})
}

// Matching calls f for each different term of a kind, of pods on nodes, that matches a pod, in the order of their IDs.
func (v *View) Matching(pod *Pod, kind TermKind, f func(term *PodTerm, on *Counts)) {
	var found []*termCount
	for _, t := range v.terms[kind] {
		if t.total > 0 && t.term.Matches(pod, v) {
			found = append(found, t)
		}
	}
	slices.SortFunc(found, func(a, b *termCount) int { return cmp.Compare(a.term.full, b.term.full) })
	for _, t := range found {
		f(&t.term, &t.on)
	}
}

// myTerm is the term, or a copy if it is the view's no longer alone.
func (v *View) myTerm(in map[string]*termCount, t *termCount) *termCount {
	if t.own != v.own {
		c := *t
		c.own, c.on = v.own, t.on.clone()
		t = &c
		in[t.term.full] = t
	}
	return t
}

// parted reports whether a changed node is no longer in a domain that required anti-affinity of pods on nodes is about.
func (v *View) parted(was, now *corev1.Node) bool {
	if maps.Equal(was.Labels, now.Labels) {
		return false
	}
	for _, t := range v.terms[RequiredAntiAffinity] {
		old, had := was.Labels[t.term.TopologyKey]
		if value, has := now.Labels[t.term.TopologyKey]; t.total > 0 && had && (!has || value != old) {
			return true
		}
	}
	return false
}

func grown(s []int32, n int) []int32 {
	for len(s) < n {
		s = append(s, 0)
	}
	return s
}

// nodeSet is told of each change of a node object; n is nil for a node that is gone.
func (v *View) nodeSet(nodes []*Node, slot int, n *Node) {
	v.nodes = nodes
	for key, d := range v.domains {
		if !d.is(key, slot, n) {
			v.myDomains(key).set(key, slot, n)
		}
	}
	v.attached.nodeSet(v, slot, n)
	v.images.nodeSet(slot, n)
}

// put counts a pod on a node (sign 1), or no longer (-1).
func (v *View) put(p *Pod, slot int, sign int32) {
	for key, u := range v.counters {
		if !u.matches(v, p) {
			continue
		}
		c := u.of(v)
		if c != u.counter {
			v.counters[key] = countUse{c, u.used}
		}
		c.on.add(int32(slot), sign, len(v.nodes))
	}
	v.attached.put(v, p, slot, int(sign))
	if p.Terms == nil {
		return
	}
	for kind, terms := range p.Terms {
		for i := range terms {
			v.putTerm(v.terms[kind], &terms[i], slot, sign)
		}
	}
}

func (v *View) putTerm(in map[string]*termCount, term *PodTerm, slot int, sign int32) {
	t := in[term.full]
	if t == nil {
		t = &termCount{own: v.own, term: *term}
		in[term.full] = t
	}
	t = v.myTerm(in, t)
	t.on.add(int32(slot), sign, len(v.nodes))
	switch t.total += int(sign); {
	case t.total == 0:
		v.unused++
	case t.total == 1 && sign > 0 && t.seen:
		v.unused--
	}
	t.seen = true
}

// sweep forgets the terms that no pod has. They are kept for a while, for a pod may be back in a moment.
func (v *View) sweep() {
	if v.unused <= maxUnused {
		return
	}
	v.unused = 0
	for _, terms := range v.terms {
		maps.DeleteFunc(terms, func(_ string, t *termCount) bool { return t.total == 0 })
	}
}

// namespaceSet forgets what was counted by the namespace's old labels.
func (v *View) namespaceSet(name string, set labels.Set) bool {
	if old, known := v.namespaces[name]; known && maps.Equal(old, set) {
		return false
	}
	v.namespaces[name] = set
	v.forgetNamespaces()
	return true
}

func (v *View) forgetNamespaces() {
	for key, c := range v.counters {
		for i := range c.all {
			if c.all[i].NamespaceSelector != nil {
				delete(v.counters, key)
				break
			}
		}
	}
}

// SetNamespace adds or replaces a namespace and returns the change, for Hinters. Its labels count for namespace selectors.
func (e *Engine) SetNamespace(obj *corev1.Namespace) ClusterChange {
	if !e.view.namespaceSet(obj.Name, obj.Labels) {
		return ClusterChange{}
	}
	e.forgetSums() // what pods add to them depends on namespaces, where selectors do
	return ClusterChange{Namespace: obj}
}

// DeleteNamespace forgets a namespace.
func (e *Engine) DeleteNamespace(name string) {
	delete(e.view.namespaces, name)
	e.view.forgetNamespaces()
	e.forgetSums()
}
