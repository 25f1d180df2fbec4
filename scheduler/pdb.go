package scheduler

import (
	"cmp"
	"slices"

	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// pdb is a PodDisruptionBudget with its selector.
type pdb struct {
	*policyv1.PodDisruptionBudget
	selector labels.Selector
}

// SetPDB adds or replaces a PodDisruptionBudget.
func (e *Engine) SetPDB(obj *policyv1.PodDisruptionBudget) {
	e.view.pdbs[obj.Namespace+"/"+obj.Name] = &pdb{obj, selector(obj.Spec.Selector)}
	e.view.pdbChanged()
}

// DeletePDB forgets a PodDisruptionBudget.
func (e *Engine) DeletePDB(namespace, name string) {
	delete(e.view.pdbs, namespace+"/"+name)
	e.view.pdbChanged()
}

func (v *View) pdbChanged() {
	v.pdbOrder = nil
	v.pdbVersion++
}

// PDBs returns the PodDisruptionBudgets, by namespace and name. They must not be modified.
func (v *View) PDBs() []*policyv1.PodDisruptionBudget {
	var out []*policyv1.PodDisruptionBudget
	for _, p := range v.budgets() {
		out = append(out, p.PodDisruptionBudget)
	}
	return out
}

func (v *View) budgets() []*pdb {
	if v.pdbOrder == nil && len(v.pdbs) > 0 {
		for _, p := range v.pdbs {
			v.pdbOrder = append(v.pdbOrder, p)
		}
		slices.SortFunc(v.pdbOrder, func(a, b *pdb) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
		})
	}
	return v.pdbOrder
}

// violating tells which of the pods, in this order, can't be removed without violating a budget.
func (v *View) violating(pods []*Pod) map[*Pod]bool {
	budgets := v.budgets()
	if len(budgets) == 0 {
		return nil
	}
	out := map[*Pod]bool{}
	left := make([]int32, len(budgets))
	for i, b := range budgets {
		left[i] = b.Status.DisruptionsAllowed
	}
	for _, p := range pods {
		if len(p.Object.Labels) == 0 {
			continue
		}
		for i, b := range budgets {
			if b.Namespace != p.Object.Namespace || b.selector.Empty() || !b.selector.Matches(labels.Set(p.Object.Labels)) {
				continue
			}
			if _, known := b.Status.DisruptedPods[p.Object.Name]; known {
				continue // it is being removed already, and has been counted
			}
			if left[i]--; left[i] < 0 {
				out[p] = true
				break
			}
		}
	}
	return out
}
