package scheduler

import (
	"fmt"
	"slices"
)

// picking are the names of the plugins that confine a pod to nodes by name.
func (p *profile) picking(pod *Pod) (names []string) {
	for _, s := range p.pickers {
		if _, ok := s.picker.PickNodes(pod); ok {
			names = append(names, s.name)
		}
	}
	slices.Sort(names)
	return names
}

// addPicking counts those plugins among the ones that kept a pod off all nodes, though it was others that rejected the nodes it is confined to.
func (p *profile) addPicking(d *Decision, pod *Pod) {
	by := p.picking(pod)
	if len(by) == 0 {
		return
	}
	d.Plugins = append(d.Plugins, by...)
	slices.Sort(d.Plugins)
	d.Plugins = slices.Compact(d.Plugins)
}

// outside rejects a node to which the pod is not confined.
func (p *profile) outside(pod *Pod, node string) *Rejection {
	for _, s := range p.pickers {
		if names, ok := s.picker.PickNodes(pod); ok && !slices.Contains(names, node) {
			return &Rejection{Plugin: s.name, Reasons: []string{fmt.Sprintf("node(s) didn't satisfy plugin(s) %v", p.picking(pod))}, Unresolvable: true}
		}
	}
	return nil
}

// nowhere rejects a pod that is confined to nodes that exclude one another, by the plugins up to the one that is asked now.
func (p *profile) nowhere(pod *Pod, now *pluginState) *Rejection {
	var left, by []string
	for _, s := range p.pickers[:slices.Index(p.pickers, now)+1] {
		names, ok := s.picker.PickNodes(pod)
		if !ok {
			continue
		}
		if by = append(by, s.name); len(by) == 1 {
			left = slices.Clone(names)
		} else {
			left = slices.DeleteFunc(left, func(n string) bool { return !slices.Contains(names, n) })
		}
	}
	if len(by) == 0 || len(left) > 0 {
		return nil
	}
	slices.Sort(by)
	why := fmt.Sprintf("node(s) didn't satisfy plugin(s) %v simultaneously", by)
	if len(by) == 1 {
		why = "node(s) didn't satisfy plugin " + by[0]
	}
	r := Reject(why)
	r.Plugin = by[0]
	return r
}
