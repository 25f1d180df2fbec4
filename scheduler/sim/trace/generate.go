package trace

import (
	"cmp"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"sort"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler/sim"
)

// Options of generated workloads. The zero value is a small one.
type Options struct {
	// Seed makes another workload of the same shape. Default 1.
	Seed uint64
	// Nodes and Pods are how many there are. Default 100 and 10,000.
	Nodes, Pods int
	// Length is the time in which pods come. Default 24 hours.
	Length time.Duration
	// Load is the part of all cpu that pods ask for on average, if none waits; more than 1 is more than there is. Default 0.7.
	Load float64
	// Tide is how much more pods than on average come at the busiest hour of a day, and less at the quietest: 0 to 1. Default 0.4; negative for none.
	Tide float64
}

func (o Options) withDefaults() Options {
	o.Seed = cmp.Or(o.Seed, 1)
	o.Nodes = cmp.Or(o.Nodes, 100)
	o.Pods = cmp.Or(o.Pods, 10_000)
	o.Length = cmp.Or(o.Length, 24*time.Hour)
	o.Load = cmp.Or(o.Load, 0.7)
	o.Tide = max(cmp.Or(o.Tide, 0.4), 0)
	return o
}

func (o Options) validate() error {
	if o.Nodes < 0 || o.Pods < 0 || o.Length < 0 || o.Load < 0 || o.Load > 100 || o.Tide > 1 {
		return fmt.Errorf("trace: Options %+v: want nothing negative, a load of at most 100, a tide of at most 1", o)
	}
	return nil
}

// machines are a kind of node: a part of all.
type machines struct {
	part        float64
	cores, gib  float64
	gpus        int64
	model       string
	platformTag string
}

// tier is a kind of pods.
type tier struct {
	name     string
	part     float64 // of all jobs
	priority int32
	// sizes of pods, the first ones the commonest.
	sizes []size
	// jobs have one pod mostly; the greater the tail (below 1), the more have many, up to most.
	tail float64
	most int
	// run times are log-normal: half of all are below median, and sigma says how far they go. 0 for ever.
	median time.Duration
	sigma  float64
	fails  float64
	// gang is the part of the jobs with several pods that are placed all at once or not at all.
	gang float64
}

type size struct {
	weight     float64
	cores, gib float64
	gpuMilli   int64
	model      string
}

// profile is a shape of workloads.
type profile struct {
	name  string
	nodes []machines
	tiers []tier
}

// Borg generates a workload like Google's Borg cells of 2019: four tiers of priority, of which production mostly runs long, and batch in many short tasks; jobs of very
// different sizes on machines of several shapes.
func Borg(o Options) (sim.Workload, error) {
	small := []size{{weight: 40, cores: 0.5, gib: 1}, {weight: 25, cores: 1, gib: 2}, {weight: 15, cores: 1, gib: 4}, {weight: 10, cores: 2, gib: 4}, {weight: 6, cores: 4, gib: 8}, {weight: 3, cores: 8, gib: 24}, {weight: 1, cores: 16, gib: 64}}
	large := []size{{weight: 30, cores: 1, gib: 4}, {weight: 25, cores: 2, gib: 8}, {weight: 20, cores: 4, gib: 12}, {weight: 15, cores: 8, gib: 32}, {weight: 8, cores: 16, gib: 48}, {weight: 2, cores: 32, gib: 128}}
	return generate(o, profile{
		name:  "borg",
		nodes: []machines{{part: 0.55, cores: 32, gib: 128, platformTag: "a"}, {part: 0.3, cores: 48, gib: 128, platformTag: "b"}, {part: 0.15, cores: 64, gib: 256, platformTag: "c"}},
		tiers: []tier{
			{name: "free", part: 0.25, priority: 25, sizes: small, tail: 0.55, most: 400, median: 4 * time.Minute, sigma: 1.6, fails: 0.08},
			{name: "batch", part: 0.45, priority: 112, sizes: small, tail: 0.6, most: 1000, median: 6 * time.Minute, sigma: 1.7, fails: 0.03},
			{name: "mid", part: 0.1, priority: 117, sizes: large, tail: 0.4, most: 100, median: 20 * time.Minute, sigma: 1.5, fails: 0.02},
			{name: "production", part: 0.2, priority: 200, sizes: large, tail: 0.35, most: 50, median: 60 * time.Minute, sigma: 1.8, fails: 0.01},
		},
	})
}

// Alibaba generates a workload like Alibaba's clusters of 2018: services that stay, and jobs of many short instances beside them, on equal machines.
func Alibaba(o Options) (sim.Workload, error) {
	return generate(o, profile{
		name:  "alibaba",
		nodes: []machines{{part: 1, cores: 96, gib: 192}},
		tiers: []tier{
			{
				name: "service", part: 0.02, priority: servicePriority, tail: 0.5, most: 30, median: 6 * time.Hour, sigma: 1.2,
				sizes: []size{{weight: 70, cores: 4, gib: 6}, {weight: 20, cores: 8, gib: 12}, {weight: 10, cores: 16, gib: 24}},
			},
			{
				name: "batch", part: 0.98, priority: batchPriority, tail: 0.7, most: 2000, median: 40 * time.Second, sigma: 1.5, fails: 0.01,
				sizes: []size{{weight: 60, cores: 1, gib: 1}, {weight: 25, cores: 0.5, gib: 0.5}, {weight: 10, cores: 2, gib: 4}, {weight: 5, cores: 6, gib: 8}},
			},
		},
	})
}

// GPU generates a workload like Alibaba's GPU cluster of 2023: machines with 0 to 8 GPUs of several models, pods that ask for parts of one or for several, some for a model,
// and gangs.
func GPU(o Options) (sim.Workload, error) {
	return generate(o, profile{
		name: "gpu",
		nodes: []machines{
			{part: 0.2, cores: 96, gib: 384},
			{part: 0.3, cores: 96, gib: 512, gpus: 2, model: "T4"},
			{part: 0.15, cores: 64, gib: 512, gpus: 4, model: "P100"},
			{part: 0.2, cores: 96, gib: 768, gpus: 8, model: "V100M32"},
			{part: 0.15, cores: 128, gib: 768, gpus: 8, model: "G3"},
		},
		tiers: []tier{
			{
				name: "inference", part: 0.5, priority: servicePriority, tail: 0.3, most: 8, median: 2 * time.Hour, sigma: 1.5,
				sizes: []size{{weight: 35, cores: 4, gib: 15, gpuMilli: 250}, {weight: 25, cores: 8, gib: 30, gpuMilli: 500}, {weight: 15, cores: 6, gib: 12, gpuMilli: 460}, {weight: 15, cores: 12, gib: 16, gpuMilli: 1000}, {weight: 10, cores: 8, gib: 30, gpuMilli: 500, model: "T4"}},
			},
			{
				name: "training", part: 0.35, priority: servicePriority / 2, tail: 0.3, most: 16, median: time.Hour, sigma: 1.9, fails: 0.1, gang: 0.8,
				sizes: []size{{weight: 50, cores: 12, gib: 48, gpuMilli: 1000}, {weight: 20, cores: 16, gib: 64, gpuMilli: 2000}, {weight: 15, cores: 32, gib: 128, gpuMilli: 4000}, {weight: 10, cores: 88, gib: 320, gpuMilli: 8000}, {weight: 5, cores: 12, gib: 48, gpuMilli: 1000, model: "V100M32"}},
			},
			{
				name: "cpu", part: 0.15, priority: batchPriority, tail: 0.4, most: 20, median: 20 * time.Minute, sigma: 1.5,
				sizes: []size{{weight: 60, cores: 8, gib: 16}, {weight: 40, cores: 32, gib: 64}},
			},
		},
	})
}

// Azure generates a workload like Azure's VMs: few shapes, most short, some for ever, no jobs to speak of.
func Azure(o Options) (sim.Workload, error) {
	vm := []size{{weight: 45, cores: 1, gib: 1.75}, {weight: 25, cores: 2, gib: 3.5}, {weight: 15, cores: 4, gib: 7}, {weight: 8, cores: 2, gib: 14}, {weight: 5, cores: 8, gib: 28}, {weight: 2, cores: 16, gib: 112}}
	return generate(o, profile{
		name:  "azure",
		nodes: []machines{{part: 0.6, cores: 40, gib: 192}, {part: 0.4, cores: 64, gib: 384}},
		tiers: []tier{
			{name: "delay-insensitive", part: 0.7, priority: batchPriority, sizes: vm, tail: 0.3, most: 50, median: 25 * time.Minute, sigma: 1.9},
			{name: "interactive", part: 0.25, priority: servicePriority, sizes: vm, tail: 0.2, most: 20, median: 3 * time.Hour, sigma: 1.8},
			{name: "unknown", part: 0.05, priority: servicePriority, sizes: vm, tail: 0.2, most: 20, median: 12 * time.Hour, sigma: 1},
		},
	})
}

// generator is a profile with options, and what follows from both.
type generator struct {
	Options
	profile
	builder   *builder
	nodes     []*corev1.Node
	templates [][]*corev1.Pod // by tier and size
	tierAt    []float64       // cumulated
	sizeAt    [][]float64
	stretch   float64 // of run times, for the load
	jobs      float64 // about as many
}

func generate(o Options, p profile) (sim.Workload, error) {
	if err := o.validate(); err != nil {
		return sim.Workload{}, err
	}
	g := &generator{Options: o.withDefaults(), profile: p, stretch: 1}
	var err error
	if g.builder, err = newBuilder(p.name, Window{}); err != nil {
		return sim.Workload{}, err
	}
	cores := g.makeNodes()
	total := 0.0
	for i := range p.tiers {
		t := &p.tiers[i]
		total += t.part
		g.tierAt = append(g.tierAt, total)
		var at []float64
		var templates []*corev1.Pod
		sum := 0.0
		for _, s := range t.sizes {
			sum += s.weight
			at = append(at, sum)
			templates = append(templates, g.builder.template(s.shape(t)))
		}
		g.sizeAt, g.templates = append(g.sizeAt, at), append(g.templates, templates)
	}
	g.fit(cores)
	return sim.Workload{Name: fmt.Sprintf("%s-%d", p.name, g.Seed), Pods: g.Pods, Events: func() iter.Seq2[sim.Event, error] { return g.events }}, nil
}

func (s size) shape(t *tier) shape {
	out := shape{milliCPU: int64(s.cores * 1000), memory: int64(s.gib * (1 << 30)), priority: t.priority, label: "tier=" + t.name}
	if s.gpuMilli > 0 {
		out.extra, out.extraCount = GPUMilli, s.gpuMilli
	}
	if s.model != "" {
		out.oneOf = GPUModelLabel + "=" + s.model
	}
	return out
}

// makeNodes returns how many cores they have in all.
func (g *generator) makeNodes() (cores float64) {
	r := rand.New(rand.NewPCG(g.Seed, 1))
	for i := range g.Options.Nodes {
		u, sum := r.Float64(), 0.0
		m := g.profile.nodes[0]
		for _, k := range g.profile.nodes {
			if sum += k.part; u < sum {
				m = k
				break
			}
		}
		cores += m.cores
		labels := map[string]string{corev1.LabelTopologyZone: fmt.Sprint("zone-", i%3), "rack": fmt.Sprint("rack-", i/40), GPUModelLabel: m.model, "platform": m.platformTag}
		g.nodes = append(g.nodes, node(fmt.Sprintf("node-%05d", i), int64(m.cores*1000), int64(m.gib*(1<<30)), labels, GPUMilli, m.gpus*1000))
	}
	return cores
}

// job is a number of equal pods.
type job struct {
	tier, size, pods int
	run              time.Duration
	fails, gang      bool
}

func (g *generator) job(r *rand.Rand) job {
	t := find(g.tierAt, r)
	tier := &g.tiers[t]
	j := job{tier: t, size: find(g.sizeAt[t], r), pods: 1}
	// A bounded Pareto distribution: many single pods, few very large jobs.
	if tier.tail > 0 {
		most := float64(min(tier.most, max(g.Pods/100, 1)))
		j.pods = int(min(math.Pow(1-r.Float64(), -tier.tail/(1-tier.tail)), most))
	}
	run := tier.median.Seconds() * math.Exp(tier.sigma*r.NormFloat64()) * g.stretch
	j.run = seconds(max(min(run, 2*g.Length.Seconds()), 1)).Round(time.Millisecond)
	j.fails = r.Float64() < tier.fails
	j.gang = j.pods > 1 && r.Float64() < tier.gang
	return j
}

// find picks an index by cumulated weights.
func find(at []float64, r *rand.Rand) int {
	return min(sort.SearchFloat64s(at, r.Float64()*at[len(at)-1]), len(at)-1)
}

// fit stretches run times so that pods ask for the wanted part of all cores, as far as they run within Length.
func (g *generator) fit(cores float64) {
	const sample = 20_000
	r := rand.New(rand.NewPCG(g.Seed, 2))
	jobs := make([]job, sample)
	pods := 0
	for i := range jobs {
		jobs[i] = g.job(r)
		pods += jobs[i].pods
	}
	g.jobs = max(float64(g.Pods)*sample/float64(pods), 1)
	want := g.Load * cores * g.Length.Seconds()
	if want == 0 || g.Pods == 0 {
		return
	}
	demand := func(stretch float64) (sum float64) {
		for i := range jobs {
			j := &jobs[i]
			// Those that come late run on beyond the end.
			left := g.Length.Seconds() * (1 - float64(i)/sample)
			sum += float64(j.pods) * g.tiers[j.tier].sizes[j.size].cores * min(j.run.Seconds()*stretch, left)
		}
		return sum * float64(g.Pods) / float64(pods)
	}
	low, high := 1e-3, 1e3
	for range 50 {
		if mid := math.Sqrt(low * high); demand(mid) < want {
			low = mid
		} else {
			high = mid
		}
	}
	g.stretch = low
}

// events generates all of the workload, anew each time.
func (g *generator) events(yield func(sim.Event, error) bool) {
	for _, n := range g.nodes {
		if !yield(sim.Event{Kind: sim.AddNode, Node: n}, nil) {
			return
		}
	}
	r := rand.New(rand.NewPCG(g.Seed, 3))
	var pods []sim.Pod
	at := 0.0 // of all jobs, those that have come
	for n, k := 0, 0; n < g.Pods; k++ {
		at += r.ExpFloat64() / g.jobs
		j := g.job(r)
		j.pods = min(j.pods, g.Pods-n)
		t := &g.tiers[j.tier]
		pods = pods[:0]
		for i := range j.pods {
			p := sim.Pod{Namespace: t.name, Name: fmt.Sprint("job-", k, "-", i), Template: g.templates[j.tier][j.size], Run: j.run, Fails: j.fails, Retries: 1}
			// Pods of a job end at about the same time.
			p.Run += time.Duration(float64(p.Run) * 0.1 * r.Float64()).Round(time.Millisecond)
			pods = append(pods, p)
		}
		e := sim.Event{At: g.when(at), Pods: pods}
		if j.gang {
			e.Min = len(pods)
		}
		if !yield(e, nil) {
			return
		}
		n += j.pods
	}
}

// when is the time at which a part of all jobs has come, by the tides: the inverse of the integral of 1 - Tide cos(2 pi t / day).
func (g *generator) when(part float64) time.Duration {
	const day = 24 * 3600.0
	length := g.Length.Seconds()
	come := func(t float64) float64 { return t - g.Tide*day/(2*math.Pi)*math.Sin(2*math.Pi*t/day) }
	want := part * come(length)
	low, high := 0.0, length*max(2*part, 1)+2*day
	for range 60 {
		if mid := (low + high) / 2; come(mid) < want {
			low = mid
		} else {
			high = mid
		}
	}
	return seconds(low).Round(time.Microsecond)
}
