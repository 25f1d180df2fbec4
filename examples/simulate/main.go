// Simulate plays a workload on the scheduling engine in virtual time, under several policies, and writes a report that compares them.
//
//	go run ./examples/simulate                                      a generated day in the shape of Google's Borg traces
//	go run ./examples/simulate -generate gpu -nodes 500             other shapes: borg, alibaba, gpu, azure
//	go run ./examples/simulate -read csv=workload.csv               your own; the columns are in package scheduler/sim/trace
//	go run ./examples/simulate -read borg=DIRECTORY -limit 100000   a public trace: borg, alibaba2018, gpu2023, azurevm, azurepacking
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/sim"
	"github.com/keelson/keelson/scheduler/sim/trace"
)

type options struct {
	source   source
	policies string
	decision time.Duration
	out      string
	logs     bool
	check    bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	o := options{source: source{Options: trace.Options{Nodes: 2000, Pods: 200_000, Load: 0.65}}}
	s := &o.source
	flag.StringVar(&s.generate, "generate", "borg", "shape of a generated workload: borg, alibaba, gpu or azure")
	flag.IntVar(&s.Nodes, "nodes", s.Nodes, "generated nodes; also of the azure traces, which tell of none")
	flag.IntVar(&s.Pods, "pods", s.Pods, "generated pods")
	flag.DurationVar(&s.Length, "length", 24*time.Hour, "time in which pods come; of a trace, the part that is read, from -from on")
	flag.Float64Var(&s.Load, "load", s.Load, "the part of all cpu that generated pods ask for")
	flag.Uint64Var(&s.Seed, "seed", 1, "of the generated workload, and of the engine's choice among equal nodes")
	flag.DurationVar(&s.churn, "churn", 30*24*time.Hour, "mean time between a generated node's failures; 0 for none")
	flag.StringVar(&s.read, "read", "", "FORMAT=PATH of a trace: csv, borg, alibaba2018, gpu2023, azurevm or azurepacking; PATH is a file, or the directory of several")
	flag.DurationVar(&s.from, "from", 0, "where in the trace to begin")
	flag.IntVar(&s.limit, "limit", 0, "read at most so many pods; 0 for all")
	flag.StringVar(&o.policies, "policies", "", "what to compare (default least,most; of GPUs gpu-spread,gpu-frag): "+strings.Join(policyNames(), ", "))
	flag.DurationVar(&o.decision, "decision", 0, "how long one scheduling attempt takes in virtual time")
	flag.StringVar(&o.out, "out", filepath.Join(os.TempDir(), "keelson-simulation"), "directory of the report")
	flag.BoolVar(&o.logs, "logs", false, "write the event logs, too")
	flag.BoolVar(&o.check, "check", false, "check all invariants after every step, which is slow")
	flag.Parse()
	if err := o.run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "simulate:", err)
		os.Exit(1)
	}
}

func (o options) run(ctx context.Context, out *os.File) error {
	gpus := o.source.read == "" && o.source.generate == "gpu" || strings.HasPrefix(o.source.read, "gpu2023=")
	if o.policies == "" {
		o.policies = "least,most"
		if gpus {
			o.policies = "gpu-spread,gpu-frag"
		}
	}
	policies, err := choose(o.policies)
	for i := 0; gpus && err == nil && i < len(policies); i++ {
		policies[i], err = policies[i].withGPUs()
	}
	if err != nil {
		return err
	}
	began := time.Now()
	w, err := o.source.workload()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %d pods, under %d policies\n", w.Name, w.Pods, len(policies))
	p := newProgress(out, w.Pods, policies)
	results := make([]*sim.Result, len(policies))
	errs := make([]error, len(policies))
	var wg sync.WaitGroup
	for i, policy := range policies {
		wg.Go(func() { results[i], errs[i] = o.simulate(ctx, w, policy, p) })
	}
	wg.Wait()
	p.end()
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("%s: %w", policies[i].name, err)
		}
	}
	fmt.Fprintf(out, "played in %.1fs\n\n", time.Since(began).Seconds())
	table(out, results)
	return o.report(out, results)
}

// simulate plays the workload under one policy.
func (o options) simulate(ctx context.Context, w sim.Workload, policy policy, p *progress) (*sim.Result, error) {
	opts := sim.Options{
		Policy: policy.name, Engine: scheduler.EngineOptions{Profile: policy.profile, Seed: o.source.Seed}, DecisionTime: o.decision, GracePeriod: 30 * time.Second,
		Measures: policy.measures, ResubmitDelay: 5 * time.Second, Until: o.source.Length, Check: o.check, Progress: func(now sim.Progress) { p.show(policy.name, now) },
	}
	if o.logs {
		log, err := os.Create(filepath.Join(o.out, policy.name+".log"))
		if err != nil {
			return nil, err
		}
		defer log.Close()
		opts.Log = log
	}
	s, err := sim.New(w, opts)
	if err != nil {
		return nil, err
	}
	return s.Run(ctx)
}

// report writes the files and says where they are.
func (o options) report(out io.Writer, results []*sim.Result) error {
	files := map[string]func(io.Writer) error{
		"report.html": func(w io.Writer) error { return sim.WriteHTML(w, results...) },
		"samples.csv": func(w io.Writer) error { return sim.WriteCSV(w, results...) },
		"waits.svg":   func(w io.Writer) error { return sim.WriteWaitsSVG(w, results...) },
	}
	for _, m := range sim.Metrics(results...) {
		name := strings.NewReplacer(" ", "-", "/", "-").Replace(m.Name) + ".svg"
		files[name] = func(w io.Writer) error { return sim.WriteSVG(w, m, results...) }
	}
	for name, write := range files {
		f, err := os.Create(filepath.Join(o.out, name))
		if err != nil {
			return err
		}
		if err := write(f); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, `
The report, with plots over time: open %s
Figures for a notebook of yours:  %s
Beside them is each plot as SVG. Other workloads: -generate gpu, or -read csv=FILE; other policies: -policies; see -h.
`, filepath.Join(o.out, "report.html"), filepath.Join(o.out, "samples.csv"))
	return nil
}
