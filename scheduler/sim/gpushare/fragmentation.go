package gpushare

import (
	"iter"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/sim"
)

// wasted is how much of what is free on a node's GPUs the workload's pods can't use, in thousandths: of a kind that doesn't fit on the node at all, everything; of others
// what is free on devices too full for it. It is the mean over the kinds.
func (p *Plugin) wasted(free []int64, cpu, memory int64) float64 {
	sum, weights := 0.0, 0.0
	for i := range p.opts.Pods {
		k := &p.opts.Pods[i]
		weights += k.Weight
		sum += k.Weight * float64(wastedFor(k, free, cpu, memory))
	}
	if weights == 0 {
		return 0
	}
	return sum / weights
}

func wastedFor(k *Kind, free []int64, cpu, memory int64) (n int64) {
	fits := k.CPU <= cpu && k.Memory <= memory && k.Milli > 0 && choose(free, k.Milli) != nil
	for _, f := range free {
		if !fits || f < min(k.Milli, whole) {
			n += f
		}
	}
	return n
}

// left is what a node has besides GPUs.
func left(node *scheduler.Node) (cpu, memory int64) {
	return node.Allocatable.MilliCPU - node.Requested.MilliCPU, node.Allocatable.Memory - node.Requested.Memory
}

// harm is by how much a pod would raise what is wasted on a node.
func (p *Plugin) harm(pod *scheduler.Pod, node *scheduler.Node) int64 {
	free, _, _ := p.look(node, nil)
	if len(free) == 0 {
		return 0
	}
	cpu, memory := left(node)
	before := p.wasted(free, cpu, memory)
	cpu, memory = cpu-pod.Requests.MilliCPU, memory-pod.Requests.Memory
	milli := p.asks(pod)
	d := choose(free, milli)
	if d == nil {
		return int64(len(free)) * whole
	}
	take(free, d, milli)
	return int64(p.wasted(free, cpu, memory) - before)
}

// Measures are the part of free GPUs that the workload's pods can't use, how many devices are shared, and how full those are, for sim.Options.
func (p *Plugin) Measures() []sim.Measure {
	return []sim.Measure{
		{Name: "GPU fragmentation", About: "The part of free GPUs that the workload's pods can't use, device by device", Percent: true, Better: -1, Of: p.Fragmentation},
		{Name: "GPUs in use", About: "The part of all GPUs on which there is a pod", Percent: true, Of: func(nodes iter.Seq[*scheduler.Node]) float64 {
			return p.part(nodes, func(free int64) (float64, float64) { return one(free < whole), 1 })
		}},
		{Name: "filling of GPUs in use", About: "The requested part of the GPUs on which there is a pod", Percent: true, Better: 1, Of: func(nodes iter.Seq[*scheduler.Node]) float64 {
			return p.part(nodes, func(free int64) (float64, float64) {
				return one(free < whole) * float64(whole-free), one(free < whole) * whole
			})
		}},
	}
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// Fragmentation is the part of what is free on GPUs that the workload's pods can't use, 0 to 1.
func (p *Plugin) Fragmentation(nodes iter.Seq[*scheduler.Node]) float64 {
	wasted, all := 0.0, int64(0)
	for n := range nodes {
		free, _, _ := p.look(n, nil)
		if len(free) == 0 {
			continue
		}
		cpu, memory := left(n)
		wasted += p.wasted(free, cpu, memory)
		for _, f := range free {
			all += f
		}
	}
	if all == 0 {
		return 0
	}
	return wasted / float64(all)
}

// part sums up parts and wholes over all devices.
func (p *Plugin) part(nodes iter.Seq[*scheduler.Node], of func(free int64) (part, all float64)) float64 {
	part, all := 0.0, 0.0
	for n := range nodes {
		free, _, _ := p.look(n, nil)
		for _, f := range free {
			a, b := of(f)
			part, all = part+a, all+b
		}
	}
	if all == 0 {
		return 0
	}
	return part / all
}
