package trace

import (
	"cmp"
	"fmt"
	"iter"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/scheduler/sim"
)

// Window is the part of a trace that is read. The zero value is all of it.
type Window struct {
	// From is the trace's time that becomes the simulation's beginning. What was submitted before and has not ended comes at the beginning; of its run
	// time the rest is left.
	From time.Duration
	// Length ends the window; 0: with the trace.
	Length time.Duration
	// Limit is the greatest number of pods; 0 for any. The first ones, by time, are kept.
	Limit int
}

// has reports whether something of a trace is in the window; run is 0 if it went on to the end.
func (w Window) has(at, run time.Duration) bool {
	return (at >= w.From || run == 0 || at+run > w.From) && (w.Length == 0 || at-w.From <= w.Length)
}

// Machine is what a machine has of which a trace tells parts.
type Machine struct {
	// Cores default to 64, MemoryGiB to 256.
	Cores, MemoryGiB float64
}

func (m Machine) withDefaults() Machine {
	return Machine{cmp.Or(m.Cores, 64), cmp.Or(m.MemoryGiB, 256)}
}

func (m Machine) validate() error {
	if m.Cores < 0 || m.MemoryGiB < 0 {
		return fmt.Errorf("trace: machine of %v cores and %v GiB: want nothing negative", m.Cores, m.MemoryGiB)
	}
	return nil
}

const maxPodsOfNode = 1000

// record is an event of a trace in little memory.
type record struct {
	at, run  time.Duration
	kind     sim.EventKind
	fails    bool
	retries  int32
	count    int32 // pods name-0, name-1, … at once; 0: one pod called name
	min      int32
	name     string
	space    string // namespace
	template *corev1.Pod
	node     *corev1.Node
}

// builder gathers records.
type builder struct {
	name      string
	window    Window
	records   []record
	templates map[shape]*corev1.Pod
}

// shape is what distinguishes templates.
type shape struct {
	milliCPU, memory int64
	priority         int32
	// extra is an extended resource and how much of it.
	extra      corev1.ResourceName
	extraCount int64
	// label is "key=value".
	label string
	// oneOf are labels' values, of which the node must have one: "key=a|b".
	oneOf string
	// apart keeps pods with the same label on different nodes.
	apart bool
}

func newBuilder(name string, w Window) (*builder, error) {
	if w.From < 0 || w.Length < 0 || w.Limit < 0 {
		return nil, fmt.Errorf("trace: window %+v: want nothing negative", w)
	}
	return &builder{name: name, window: w, templates: map[shape]*corev1.Pod{}}, nil
}

// template returns the one template of a shape.
func (b *builder) template(s shape) *corev1.Pod {
	t := b.templates[s]
	if t != nil {
		return t
	}
	t = &corev1.Pod{}
	requests := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(s.milliCPU, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(s.memory, resource.BinarySI),
	}
	if s.extraCount > 0 {
		requests[s.extra] = *resource.NewQuantity(s.extraCount, resource.DecimalSI)
	}
	t.Spec.Containers = []corev1.Container{{Name: "main", Image: "trace", Resources: corev1.ResourceRequirements{Requests: requests}}}
	if s.priority != 0 {
		t.Spec.Priority = &s.priority
	}
	if k, v, ok := strings.Cut(s.label, "="); ok {
		t.Labels = map[string]string{k: v}
	}
	affinity := &corev1.Affinity{}
	if s.apart {
		affinity.PodAntiAffinity = &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: t.Labels},
		}}}
		t.Spec.Affinity = affinity
	}
	if k, values, ok := strings.Cut(s.oneOf, "="); ok {
		affinity.NodeAffinity = &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: k, Operator: corev1.NodeSelectorOpIn, Values: strings.Split(values, "|")}},
		}}}}
		t.Spec.Affinity = affinity
	}
	b.templates[s] = t
	return t
}

// node makes a node object.
func node(name string, milliCPU, memory int64, labels map[string]string, extra ...any) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	for k, v := range labels {
		if v != "" {
			n.Labels[k] = v
		}
	}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(milliCPU, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(memory, resource.BinarySI),
		corev1.ResourcePods:   *resource.NewQuantity(maxPodsOfNode, resource.DecimalSI),
	}
	for i := 0; i+1 < len(extra); i += 2 {
		if v := extra[i+1].(int64); v > 0 {
			n.Status.Allocatable[extra[i].(corev1.ResourceName)] = *resource.NewQuantity(v, resource.DecimalSI)
		}
	}
	return n
}

// round keeps two significant digits, rounded up.
func round(v float64) int64 {
	if v <= 0 || math.IsNaN(v) {
		return 0
	}
	v = min(v, 1<<60)
	unit := math.Pow(10, math.Floor(math.Log10(v))-1)
	if unit < 1 {
		unit = 1
	}
	return int64(math.Ceil(v/unit-1e-9) * unit)
}

const mib = 1 << 20

// roundMemory keeps six significant bits of MiB, rounded up: so that halves and quarters of a machine are exact.
func roundMemory(bytes float64) int64 {
	if bytes <= 0 || math.IsNaN(bytes) {
		return 0
	}
	n := uint64(math.Ceil(min(bytes, 1<<60)/mib - 1e-9))
	drop := max(bits.Len64(n)-6, 0)
	return int64((n+1<<drop-1)>>drop<<drop) * mib
}

// wholeMiB is for nodes, which aren't rounded.
func wholeMiB(bytes float64) int64 { return int64(min(max(bytes, 0), 1<<60)/mib) * mib }

// milli turns cores into rounded milli-units.
func milli(cores float64) int64 { return round(cores * 1000) }

func seconds(v float64) time.Duration {
	return time.Duration(max(min(v*1e9, math.MaxInt64/4), -math.MaxInt64/4))
}

// add takes a record at its trace's time.
func (b *builder) add(r record) {
	w := b.window
	end := r.at + r.run
	if r.kind == sim.Submit && r.at < w.From && r.run > 0 {
		if end <= w.From {
			return
		}
		r.run = end - w.From
	}
	r.at = max(r.at-w.From, 0)
	if w.Length > 0 && r.at > w.Length {
		return
	}
	b.records = append(b.records, r)
}

// workload sorts and makes the workload. Nodes come before pods at the same time.
func (b *builder) workload() sim.Workload {
	slices.SortStableFunc(b.records, func(x, y record) int {
		return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(x.order(), y.order()))
	})
	records, limit := b.records, b.window.Limit
	pods := 0
	for i := range records {
		if records[i].kind == sim.Submit {
			pods += max(int(records[i].count), 1)
		}
	}
	if limit > 0 {
		pods = min(pods, limit)
	}
	return sim.Workload{Name: b.name, Pods: pods, Events: func() iter.Seq2[sim.Event, error] {
		return func(yield func(sim.Event, error) bool) { play(records, limit, yield) }
	}}
}

func (r *record) order() int {
	switch r.kind {
	case sim.Submit:
		return 2
	case sim.Cancel:
		return 1
	}
	return 0
}

func play(records []record, limit int, yield func(sim.Event, error) bool) {
	var pods []sim.Pod
	submitted := 0
	for i := range records {
		r := &records[i]
		e := sim.Event{At: r.at, Kind: r.kind, Node: r.node, Name: r.name, Min: int(r.min)}
		if r.kind == sim.Submit {
			n := max(int(r.count), 1)
			if limit > 0 && submitted+n > limit {
				continue
			}
			submitted += n
			pods = pods[:0]
			for k := range n {
				name := r.name
				if r.count > 0 {
					name = fmt.Sprint(r.name, "-", k)
				}
				pods = append(pods, sim.Pod{Namespace: r.space, Name: name, Template: r.template, Run: r.run, Fails: r.fails, Retries: int(r.retries)})
			}
			e.Pods = pods
		}
		if !yield(e, nil) {
			return
		}
	}
}
