package trace_test

import (
	"testing"
	"time"

	"github.com/keelson/keelson/scheduler/sim"
	"github.com/keelson/keelson/scheduler/sim/trace"
)

var generators = map[string]func(trace.Options) (sim.Workload, error){"borg": trace.Borg, "alibaba": trace.Alibaba, "gpu": trace.GPU, "azure": trace.Azure}

// TestGenerators: as many pods as asked for, about the load that was asked for, heavy tails and tides; the same each time, another by another seed.
func TestGenerators(t *testing.T) {
	for name, f := range generators {
		o := trace.Options{Nodes: 60, Pods: 6000, Load: 0.5}
		if name == "alibaba" {
			o.Load = 0.05 // its pods are short
		}
		w, err := f(o)
		if err != nil {
			t.Fatal(err)
		}
		pods, largest, nodes := 0, 0, 0
		var capacity, demand, longest, runs float64
		var byHour [24]int
		for e, err := range w.Events() {
			if err != nil {
				t.Fatal(err)
			}
			if e.Kind == sim.AddNode {
				nodes++
				capacity += e.Node.Status.Allocatable.Cpu().AsApproximateFloat64() * 24 * 3600
			}
			for _, p := range e.Pods {
				run := p.Run.Seconds()
				runs += run
				longest = max(longest, run)
				demand += p.Template.Spec.Containers[0].Resources.Requests.Cpu().AsApproximateFloat64() * max(min(run, (24*time.Hour-e.At).Seconds()), 0)
				byHour[min(int(e.At.Hours()), 23)]++
			}
			pods += len(e.Pods)
			largest = max(largest, len(e.Pods))
		}
		night, noon := byHour[0]+byHour[1]+byHour[2]+byHour[22], byHour[10]+byHour[11]+byHour[12]+byHour[13]
		t.Logf("%s: load %.2f, largest job %d, longest run %.0f times the mean, %d at noon and %d at night", name, demand/capacity, largest, longest/(runs/float64(pods)), noon, night)
		if pods != 6000 || nodes != 60 || demand/capacity < 0.5*o.Load || demand/capacity > 2*o.Load || largest < 8 || longest < 5*runs/float64(pods) || noon < night {
			t.Errorf("%s: %d pods, %d nodes", name, pods, nodes)
		}
		again, _ := f(o)
		o.Seed = 2
		other, _ := f(o)
		first := text(t, w)
		if first != text(t, w) || first != text(t, again) || first == text(t, other) {
			t.Errorf("%s is not decided by its options", name)
		}
	}
}

// TestGeneratedPlay: what is generated, with failures, keeps all invariants.
func TestGeneratedPlay(t *testing.T) {
	for name, f := range generators {
		w, err := f(trace.Options{Nodes: 12, Pods: 200, Length: 6 * time.Hour, Load: 0.8})
		if err != nil {
			t.Fatal(err)
		}
		w, err = trace.Churn(w, trace.ChurnOptions{Length: 6 * time.Hour, Between: 12 * time.Hour, Drains: 0.5})
		if err != nil {
			t.Fatal(err)
		}
		r := plays(t, w)
		t.Logf("%s: %+v", name, r.Summary)
		if r.Summary.Submitted != 200 || r.Summary.Evicted == 0 || r.Summary.Ended < 100 || r.Summary.Utilization[0] < 0.1 {
			t.Errorf("%s: %+v", name, r.Summary)
		}
	}
}
