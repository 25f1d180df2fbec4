package trace

import (
	"cmp"
	"container/heap"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/keelson/keelson/scheduler/sim"
)

// ChurnOptions say how often nodes fail and are drained.
type ChurnOptions struct {
	// Seed makes other failures. Default 1.
	Seed uint64
	// Length is the time in which that happens. Default 24 hours.
	Length time.Duration
	// Between is the mean time between a node's failures. Default 30 days. Down is the mean time until it is back. Default 30 minutes.
	Between, Down time.Duration
	// Drains is the part of all failures that are announced: the node is drained, not lost.
	Drains float64
}

// Churn adds failures of its nodes to a workload: those that it has at its beginning.
func Churn(w sim.Workload, o ChurnOptions) (sim.Workload, error) {
	o.Seed = cmp.Or(o.Seed, 1)
	o.Length = cmp.Or(o.Length, 24*time.Hour)
	o.Between = cmp.Or(o.Between, 30*24*time.Hour)
	o.Down = cmp.Or(o.Down, 30*time.Minute)
	if o.Length < 0 || o.Between < 0 || o.Down < 0 || o.Drains < 0 || o.Drains > 1 {
		return sim.Workload{}, fmt.Errorf("trace: ChurnOptions %+v: want nothing negative, and drains of at most 1", o)
	}
	var names []string
	for e, err := range w.Events() {
		if err != nil {
			return sim.Workload{}, err
		}
		if e.At > 0 {
			break
		}
		if e.Kind == sim.AddNode {
			names = append(names, e.Node.Name)
		}
	}
	churn := sim.Workload{Events: func() iter.Seq2[sim.Event, error] {
		return func(yield func(sim.Event, error) bool) { o.play(names, yield) }
	}}
	return sim.Merge(w.Name, w, churn), nil
}

// outage is when a node fails next, or comes back.
type outage struct {
	at   time.Duration
	node int
	down bool // now
}

type outages []outage

func (h outages) Len() int { return len(h) }
func (h outages) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].node < h[j].node
}
func (h outages) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *outages) Push(x any)   { *h = append(*h, x.(outage)) }
func (h *outages) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func (o ChurnOptions) play(names []string, yield func(sim.Event, error) bool) {
	r := rand.New(rand.NewPCG(o.Seed, 4))
	after := func(mean time.Duration) time.Duration {
		return max(seconds(mean.Seconds()*r.ExpFloat64()).Round(time.Millisecond), time.Millisecond)
	}
	var h outages
	for i := range names {
		h = append(h, outage{at: after(o.Between), node: i})
	}
	heap.Init(&h)
	for len(h) > 0 && h[0].at <= o.Length {
		x := &h[0]
		e := sim.Event{At: x.at, Kind: sim.RecoverNode, Name: names[x.node]}
		next := after(o.Between)
		if !x.down {
			e.Kind, next = sim.FailNode, after(o.Down)
			if r.Float64() < o.Drains {
				e.Kind = sim.DrainNode
			}
		}
		if !yield(e, nil) {
			return
		}
		x.at, x.down = x.at+next, !x.down
		heap.Fix(&h, 0)
	}
}
