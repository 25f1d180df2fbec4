package trace_test

import (
	"fmt"
	"testing"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
	"github.com/keelson/keelson/scheduler/sim"
	"github.com/keelson/keelson/scheduler/sim/trace"
)

// BenchmarkSimulate plays a generated day in the shape of the Borg traces: with room to spare, and overloaded at noon.
func BenchmarkSimulate(b *testing.B) {
	for _, load := range []float64{0.6, 1} {
		b.Run(fmt.Sprintf("nodes=200/pods=20000/load=%v", load), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w, err := trace.Borg(trace.Options{Nodes: 200, Pods: 20_000, Load: load})
				if err != nil {
					b.Fatal(err)
				}
				s, err := sim.New(w, sim.Options{Engine: scheduler.EngineOptions{Profile: plugins.Default()}})
				if err != nil {
					b.Fatal(err)
				}
				r, err := s.Run(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(r.Summary.Decisions), "decisions/op")
			}
		})
	}
}
