package scheduler

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// images counts the nodes that have an image, by each of its names.
type images struct {
	nodes map[string]int
	on    [][]corev1.ContainerImage // by slot, as counted
	lent  bool
}

func (i *images) fork() images {
	i.lent = true
	return *i
}

func (i *images) nodeSet(slot int, n *Node) {
	var now []corev1.ContainerImage
	if n != nil {
		now = n.Object.Status.Images
	}
	var was []corev1.ContainerImage
	if slot < len(i.on) {
		was = i.on[slot]
	}
	if len(was) == len(now) && (len(was) == 0 || &was[0] == &now[0]) {
		return
	}
	if i.lent {
		i.nodes, i.on, i.lent = maps.Clone(i.nodes), slices.Clone(i.on), false
	}
	for len(i.on) <= slot {
		i.on = append(i.on, nil)
	}
	i.count(was, -1)
	i.count(now, 1)
	i.on[slot] = now
}

func (i *images) count(list []corev1.ContainerImage, sign int) {
	for k := range list {
		for _, name := range list[k].Names {
			if i.nodes[name] += sign; i.nodes[name] == 0 {
				delete(i.nodes, name)
			}
		}
	}
}

// ImageNodes is the number of nodes that have an image under that name.
func (v *View) ImageNodes(name string) int { return v.images.nodes[name] }

// Len is the number of nodes.
func (v *View) Len() int { return v.engine.count }
