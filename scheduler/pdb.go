package scheduler

import (
	"cmp"
	"maps"
	"slices"

	policyv1 "k8s.io/api/policy/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// pdb is a PodDisruptionBudget with its selector.
type pdb struct {
	*policyv1.PodDisruptionBudget
	selector labels.Selector
	// nodes are those, by slot, on which pods of it were found when victims were looked for, and most how many on one of them.
	nodes bitset
	most  int32
	// While pods are counted: in which round, how many more may go, and how many were seen.
	round      uint64
	left, here int32
}

// budgets are the PodDisruptionBudgets.
type budgets struct {
	byName map[string]*pdb
	order  []*pdb            // by namespace and name; nil if it must be made anew
	in     map[string][]*pdb // the same by namespace
	round  uint64
	log    budgetLog
}

func newBudgets() budgets { return budgets{byName: map[string]*pdb{}} }

// clone has not found any pods of them yet.
func (b *budgets) clone() budgets {
	c := newBudgets()
	for name, p := range b.byName {
		c.byName[name] = &pdb{PodDisruptionBudget: p.PodDisruptionBudget, selector: p.selector}
	}
	return c
}

// budgetLog remembers which budgets changed so that the victims on some nodes may be others; nil stands for all nodes.
type budgetLog struct {
	first   int
	entries []*pdb
}

const maxBudgetLog = 1 << 10

func (l *budgetLog) add(p *pdb) {
	if len(l.entries) >= maxBudgetLog {
		half := len(l.entries) / 2
		l.first += half
		l.entries = append(l.entries[:0], l.entries[half:]...)
	}
	l.entries = append(l.entries, p)
}

func (l *budgetLog) end() int { return l.first + len(l.entries) }

// since calls f for the nodes on which victims may be others, some of them more than once; it returns false if that can be all nodes.
func (l *budgetLog) since(pos int, f func(slot int32)) bool {
	if pos < l.first {
		return false
	}
	changed := l.entries[pos-l.first:]
	if slices.Contains(changed, nil) {
		return false
	}
	for _, p := range changed {
		for slot := range p.nodes.all() {
			f(slot)
		}
	}
	return true
}

// SetPDB adds or replaces a PodDisruptionBudget.
func (e *Engine) SetPDB(obj *policyv1.PodDisruptionBudget) {
	b := &e.view.budgets
	old := b.byName[obj.Namespace+"/"+obj.Name]
	if old == nil || !apiequality.Semantic.DeepEqual(old.Spec.Selector, obj.Spec.Selector) {
		b.byName[obj.Namespace+"/"+obj.Name] = &pdb{PodDisruptionBudget: obj, selector: selector(obj.Spec.Selector)}
		b.order, b.in = nil, nil
		b.log.add(nil)
		return
	}
	was := old.PodDisruptionBudget
	old.PodDisruptionBudget = obj
	// Which pods can go is another matter only where there are more of them than there may go at once.
	sameGone := maps.EqualFunc(was.Status.DisruptedPods, obj.Status.DisruptedPods, func(_, _ metav1.Time) bool { return true })
	if allowed := was.Status.DisruptionsAllowed; !sameGone || allowed != obj.Status.DisruptionsAllowed && min(allowed, obj.Status.DisruptionsAllowed) < old.most {
		b.log.add(old)
	}
}

// DeletePDB forgets a PodDisruptionBudget.
func (e *Engine) DeletePDB(namespace, name string) {
	b := &e.view.budgets
	delete(b.byName, namespace+"/"+name)
	b.order, b.in = nil, nil
	b.log.add(nil)
}

// PDBs returns the PodDisruptionBudgets, by namespace and name. They must not be modified.
func (v *View) PDBs() []*policyv1.PodDisruptionBudget {
	var out []*policyv1.PodDisruptionBudget
	for _, p := range v.budgets.all() {
		out = append(out, p.PodDisruptionBudget)
	}
	return out
}

func (b *budgets) all() []*pdb {
	if b.order == nil && len(b.byName) > 0 {
		b.in = map[string][]*pdb{}
		b.order = slices.SortedFunc(maps.Values(b.byName), func(x, y *pdb) int {
			return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
		})
		for _, p := range b.order {
			b.in[p.Namespace] = append(b.in[p.Namespace], p)
		}
	}
	return b.order
}

// violating tells which of the pods, in this order, can't be removed without violating a budget. If they are all on one node, that is its slot, else it is -1:
// then nothing may be kept of the answer.
func (b *budgets) violating(pods []*Pod, slot int) (out map[*Pod]bool) {
	if len(b.all()) == 0 {
		return nil
	}
	b.round++
	for _, p := range pods {
		if len(p.Object.Labels) == 0 {
			continue
		}
		for _, budget := range b.in[p.Object.Namespace] {
			if budget.selector.Empty() || !budget.selector.Matches(labels.Set(p.Object.Labels)) {
				continue
			}
			if budget.round != b.round {
				budget.round, budget.left, budget.here = b.round, budget.Status.DisruptionsAllowed, 0
			}
			if slot >= 0 {
				budget.here++
				budget.nodes = budget.nodes.grown(slot + 1)
				budget.nodes.set(int32(slot))
				budget.most = max(budget.most, budget.here)
			}
			if _, known := budget.Status.DisruptedPods[p.Object.Name]; known {
				continue // it is being removed already, and has been counted
			}
			if budget.left--; budget.left < 0 {
				if out == nil {
					out = map[*Pod]bool{}
				}
				out[p] = true
				break
			}
		}
	}
	return out
}
