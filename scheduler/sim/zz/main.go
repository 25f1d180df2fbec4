package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
	"github.com/keelson/keelson/scheduler/sim"
	"github.com/keelson/keelson/scheduler/sim/trace"
)

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func main() {
	nodes := flag.Int("nodes", 2000, "")
	pods := flag.Int("pods", 200000, "")
	load := flag.Float64("load", 0.7, "")
	gen := flag.String("gen", "borg", "")
	prof := flag.String("prof", "", "")
	lines := flag.Bool("lines", true, "")
	until := flag.Duration("until", 0, "")
	flag.Parse()
	o := trace.Options{Nodes: *nodes, Pods: *pods, Load: *load}
	f := map[string]func(trace.Options) (sim.Workload, error){"borg": trace.Borg, "alibaba": trace.Alibaba, "gpu": trace.GPU, "azure": trace.Azure}[*gen]
	w, err := f(o)
	if err != nil {
		panic(err)
	}
	if *prof != "" {
		f, _ := os.Create(*prof)
		_ = pprof.StartCPUProfile(f)
		defer pprof.StopCPUProfile()
	}
	last := time.Duration(0)
	s, err := sim.New(w, sim.Options{Engine: scheduler.EngineOptions{Profile: plugins.Default()}, NoLines: !*lines, Until: *until, GracePeriod: 30 * time.Second, Progress: func(p sim.Progress) {
		if p.Now-last >= 2*time.Hour && p.Now < 26*time.Hour {
			last = p.Now
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			fmt.Printf("%6.1fs cpu %6.0f MB heap  t=%v sub=%d pend=%d run=%d fin=%d dec=%d\n", cpu().Seconds(), float64(m.HeapAlloc)/1e6, p.Now, p.Submitted, p.Pending, p.Running, p.Finished, p.Decisions)
		}
	}})
	if err != nil {
		panic(err)
	}
	r, err := s.Run(context.Background())
	if err != nil {
		panic(err)
	}
	fmt.Printf("END %6.1fs cpu: end=%v placed=%d preempted=%d decisions=%d pending=%d p99=%v\n", cpu().Seconds(), r.Summary.End, r.Summary.Placed, r.Summary.Preempted, r.Summary.Decisions, r.Summary.Pending, r.Summary.Waits.P99)
	var ru syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	fmt.Printf("maxrss %d MB\n", ru.Maxrss/1024)
}
