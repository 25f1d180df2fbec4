package scheduler

import (
	"fmt"
	"slices"
)

// Reserve tells the ReservePlugins that a decision is taken: the pod was assigned to the node. When one fails, those that were told are told to
// Unreserve.
func (e *Engine) Reserve(pod *Pod, node string) error {
	prof, n := e.profileOf(pod), e.Node(node)
	if prof == nil || n == nil {
		return nil
	}
	told := prof.at(AtReserve)
	for i, p := range told {
		if err := p.reserve.Reserve(pod, n, e.view); err != nil {
			for ; i >= 0; i-- {
				told[i].reserve.Unreserve(pod, node, e.view)
			}
			return fmt.Errorf("running Reserve plugin %q: %w", p.name, err)
		}
	}
	return nil
}

// Unreserve tells the ReservePlugins, the last first, that a pod will not be bound after all.
func (e *Engine) Unreserve(pod *Pod, node string) {
	prof := e.profileOf(pod)
	if prof == nil {
		return
	}
	for _, p := range slices.Backward(prof.at(AtReserve)) {
		p.reserve.Unreserve(pod, node, e.view)
	}
}
