package scheduler

import (
	"maps"
	"slices"
)

// Counts are numbers of pods by node. They belong to a View and are kept up to date.
type Counts struct {
	// few has those other than 0, by Node.Index, until they are so many that a column takes less.
	few  map[int32]int32
	many column
}

// mapPlace is about as much as a number takes in a map, in bytes.
const mapPlace = 16

// On is the number for one node.
func (c *Counts) On(n *Node) int64 {
	if slot := int32(n.slot); c.many.n > 0 {
		if int(slot) < c.many.n {
			return c.many.at(slot)
		}
		return 0
	}
	return int64(c.few[int32(n.slot)])
}

// anyOn reports whether any of the pods is on a node that f accepts, by its Index.
func (c *Counts) anyOn(f func(slot int32) bool) bool {
	for slot := range c.few {
		if f(slot) {
			return true
		}
	}
	for slot := range int32(c.many.n) {
		if c.many.at(slot) != 0 && f(slot) {
			return true
		}
	}
	return false
}

// clone returns a copy that shares nothing.
func (c *Counts) clone() Counts {
	out := Counts{few: maps.Clone(c.few), many: c.many}
	out.many.b = slices.Clone(c.many.b)
	return out
}

// add counts pods on one of that many nodes.
func (c *Counts) add(slot, pods int32, nodes int) {
	if c.many.n > 0 {
		c.many.grow(max(nodes, int(slot)+1))
		c.many.set(slot, c.many.at(slot)+int64(pods))
		return
	}
	if c.few == nil {
		c.few = map[int32]int32{}
	}
	if c.few[slot] += pods; c.few[slot] == 0 {
		delete(c.few, slot)
	}
	if len(c.few)*mapPlace <= nodes {
		return
	}
	c.many.grow(nodes)
	for slot, n := range c.few {
		c.many.grow(int(slot) + 1)
		c.many.set(slot, int64(n))
	}
	c.few = nil
}
