package sim

import (
	"iter"
	"math"
	"slices"
	"time"

	"github.com/keelson/keelson/scheduler"
)

// Sample is the state of the cluster at one time. Slices are by resource, as Result.Resources.
type Sample struct {
	At time.Duration
	// Pending pods wait for a node, Running ones are on one.
	Pending, Running, Nodes int
	// Utilization is the requested part of what the nodes have, 0 to 1.
	Utilization []float64
	// Fragmentation is the part of what is free on nodes where a pod does not fit, on average over the workload's 16 commonest kinds of pods: 0 to 1.
	Fragmentation []float64
	// Skew is the standard deviation of the nodes' utilization.
	Skew []float64
	// ZoneSkew is the difference between the most and the least utilized zone.
	ZoneSkew []float64
	// Measures are those of Options.Measures.
	Measures []float64
	// Since the sample before: pods placed, and how long those had waited on average and at most; ends, losses with nodes or by drains, preemptions.
	Placed                       int
	MeanWait, MaxWait            time.Duration
	Finished, Evicted, Preempted int
}

// Measure is something to be measured of all nodes, beside what is always measured.
type Measure struct {
	// Name is what it is called in reports, and About explains it in a line.
	Name, About string
	// Percent: it is a part, from 0 to 1.
	Percent bool
	// Better is 1 if more is better, and -1 if less is.
	Better int
	// Of is the measure of the nodes that are up, which must not be modified and are valid until it returns. It is called for each sample.
	Of func(nodes iter.Seq[*scheduler.Node]) float64
}

// nodesUp goes through the nodes that are up, as the engine has them.
func (s *Simulation) nodesUp(yield func(*scheduler.Node) bool) {
	for _, n := range s.order {
		if !n.down && !yield(s.engine.Node(n.obj.Name)) {
			return
		}
	}
}

// metrics gathers what Result reports.
type metrics struct {
	sim *Simulation
	// Pods are pending, running, or delayed: between being lost and coming again.
	submitted, pending, running, delayed  int
	finished, failed, cancelled, ended    int
	placements, evicted, preempted        int
	decisions                             int
	up                                    int // nodes
	alloc, used                           []int64
	last                                  time.Duration // up to when the integrals go
	usedTime, allocTime                   []float64     // unit seconds
	waits                                 map[int32][]time.Duration
	samples                               []Sample
	nextSample                            time.Duration
	waitSum, waitMax                      time.Duration // since the last sample
	placedThen, finishedThen, evictedThen int           // at the last sample
	preemptedThen                         int
	fragSum                               []float64
}

func newMetrics(s *Simulation) *metrics {
	return &metrics{sim: s, waits: map[int32][]time.Duration{}, nextSample: s.opts.Interval}
}

func (m *metrics) nodeThere(n *node) {
	m.up++
	for r, v := range n.alloc {
		m.alloc = set(m.alloc, r, at(m.alloc, r)+v)
	}
}

func (m *metrics) nodeGone(n *node) {
	m.up--
	for r, v := range n.alloc {
		m.alloc[r] -= v
	}
}

func (m *metrics) placed(p *pod) {
	m.pending--
	m.running++
	m.placements++
	for r, v := range p.shape.requests {
		m.used = set(m.used, r, at(m.used, r)+v)
	}
	wait := m.sim.now - p.arrived
	m.waitSum += wait
	m.waitMax = max(m.waitMax, wait)
	m.waits[p.shape.proto.Priority] = append(m.waits[p.shape.proto.Priority], wait)
}

func (m *metrics) unplaced(p *pod) {
	m.running--
	for r, v := range p.shape.requests {
		m.used[r] -= v
	}
}

// advance brings the integrals up to t and takes the samples due by then.
func (m *metrics) advance(t time.Duration) {
	for m.nextSample <= t {
		m.integrate(m.nextSample)
		m.sample(m.nextSample)
		m.nextSample += m.sim.opts.Interval
	}
	m.integrate(t)
}

func (m *metrics) integrate(t time.Duration) {
	dt := (t - m.last).Seconds()
	m.last = t
	if dt == 0 {
		return
	}
	for r := range m.sim.resources {
		for len(m.usedTime) <= r {
			m.usedTime, m.allocTime = append(m.usedTime, 0), append(m.allocTime, 0)
		}
		m.usedTime[r] += dt * float64(at(m.used, r))
		m.allocTime[r] += dt * float64(at(m.alloc, r))
	}
}

func (m *metrics) sample(t time.Duration) {
	s := Sample{
		At: t, Pending: m.pending, Running: m.running, Nodes: m.up, Utilization: make([]float64, len(m.sim.resources)),
		Placed: m.placements - m.placedThen, MaxWait: m.waitMax, Finished: m.finished - m.finishedThen, Evicted: m.evicted - m.evictedThen, Preempted: m.preempted - m.preemptedThen,
	}
	if s.Placed > 0 {
		s.MeanWait = m.waitSum / time.Duration(s.Placed)
	}
	for r := range s.Utilization {
		s.Utilization[r] = part(float64(at(m.used, r)), float64(at(m.alloc, r)))
	}
	s.Fragmentation = m.sim.fragmentation(len(s.Utilization))
	s.Skew, s.ZoneSkew = m.sim.skew(len(s.Utilization))
	for _, measure := range m.sim.opts.Measures {
		s.Measures = append(s.Measures, measure.Of(m.sim.nodesUp))
	}
	m.samples = append(m.samples, s)
	for r, v := range s.Fragmentation {
		for len(m.fragSum) <= r {
			m.fragSum = append(m.fragSum, 0)
		}
		m.fragSum[r] += v
	}
	m.waitSum, m.waitMax = 0, 0
	m.placedThen, m.finishedThen, m.evictedThen, m.preemptedThen = m.placements, m.finished, m.evicted, m.preempted
	if f := m.sim.opts.Progress; f != nil {
		f(Progress{Now: t, Submitted: m.submitted, Pending: m.pending, Running: m.running, Finished: m.ended, Decisions: m.decisions})
	}
}

func part(of, all float64) float64 {
	if all == 0 {
		return 0
	}
	return of / all
}

// commonShapes is how many kinds of pods measure fragmentation.
const commonShapes = 16

// fragmentation is, by resource, the part of the free amount that the workload's common pods can't use: what is free on nodes where such a pod doesn't fit.
func (s *Simulation) fragmentation(resources int) []float64 {
	out := make([]float64, resources)
	common := slices.Clone(s.common)
	slices.SortStableFunc(common, func(a, b *shape) int { return b.seen - a.seen })
	common = common[:min(len(common), commonShapes)]
	total := 0
	for _, sh := range common {
		total += sh.seen
	}
	if total == 0 {
		return out
	}
	free := make([]float64, resources)
	for _, n := range s.order {
		if n.down {
			continue
		}
		unfit := 0
		for _, sh := range common {
			if !n.room(sh.requests) {
				unfit += sh.seen
			}
		}
		for r := range out {
			f := float64(at(n.alloc, r) - at(n.used, r))
			free[r] += f
			out[r] += f * float64(unfit) / float64(total)
		}
	}
	for r := range out {
		out[r] = part(out[r], free[r])
	}
	return out
}

func (n *node) room(requests []int64) bool {
	for r, v := range requests {
		if v > at(n.alloc, r)-at(n.used, r) {
			return false
		}
	}
	return true
}

func (s *Simulation) skew(resources int) (nodes, zones []float64) {
	nodes, zones = make([]float64, resources), make([]float64, resources)
	type zone struct{ used, alloc float64 }
	for r := range nodes {
		var sum, squares, count float64
		byZone := map[string]*zone{}
		for _, n := range s.order {
			alloc := float64(at(n.alloc, r))
			if n.down || alloc == 0 {
				continue
			}
			used := float64(at(n.used, r))
			u := used / alloc
			sum, squares, count = sum+u, squares+u*u, count+1
			if n.zone != "" {
				z := byZone[n.zone]
				if z == nil {
					z = &zone{}
					byZone[n.zone] = z
				}
				z.used, z.alloc = z.used+used, z.alloc+alloc
			}
		}
		if count > 0 {
			mean := sum / count
			nodes[r] = math.Sqrt(max(squares/count-mean*mean, 0))
		}
		least, most := math.Inf(1), 0.0
		for _, z := range byZone {
			least, most = min(least, z.used/z.alloc), max(most, z.used/z.alloc)
		}
		if len(byZone) > 1 {
			zones[r] = most - least
		}
	}
	return nodes, zones
}
