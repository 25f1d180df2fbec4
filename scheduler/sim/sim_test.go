package sim_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
	"github.com/keelson/keelson/scheduler/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func resources(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func testNode(name, zone string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name, corev1.LabelTopologyZone: zone}}}
	n.Status.Allocatable = resources("cpu", "4", "memory", "8Gi", "pods", "8", "example.com/gpu", "2")
	return n
}

func template(app string, mods ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}}}
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: app, Resources: corev1.ResourceRequirements{Requests: resources("cpu", "1", "memory", "1Gi")}}}
	for _, m := range mods {
		m(p)
	}
	return p
}

func selecting(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
}

// templates have one of each required rule.
func templates() []*corev1.Pod {
	return []*corev1.Pod{
		template("plain"),
		template("big", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = resources("cpu", "3", "example.com/gpu", "1")
		}),
		template("spread", func(p *corev1.Pod) {
			p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: selecting("spread")}}
		}),
		template("apart", func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelHostname, LabelSelector: selecting("apart")}}}}
		}),
		template("near", func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelTopologyZone, LabelSelector: selecting("apart")}}}}
		}),
		template("port", func(p *corev1.Pod) { p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80}} }),
		template("tolerant", func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}} }),
		template("picky", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelTopologyZone: "a"} }),
		template("important", func(p *corev1.Pod) { p.Spec.Priority = new(int32); *p.Spec.Priority = 100 }),
	}
}

// random is a workload that mixes everything on a few nodes.
func random(seed uint64, steps int) sim.Workload {
	r := rand.New(rand.NewPCG(seed, 0))
	all := templates()
	var events []sim.Event
	for i := range 6 {
		n := testNode(fmt.Sprint("n", i), []string{"a", "b", "c"}[i%3])
		if i == 5 {
			n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}}
		}
		events = append(events, sim.Event{Kind: sim.AddNode, Node: n})
	}
	at := time.Duration(0)
	for i := range steps {
		at += time.Duration(r.IntN(8000)) * time.Millisecond
		e := sim.Event{At: at, Name: fmt.Sprint("n", r.IntN(6))}
		switch k := r.IntN(20); k {
		case 0:
			e.Kind = sim.FailNode
		case 1, 2:
			e.Kind = sim.RecoverNode
		case 3:
			e.Kind = sim.DrainNode
		case 4:
			e.Kind, e.Name = sim.Cancel, fmt.Sprint("d/p", max(i-1-r.IntN(6), 0))
		case 5, 6:
			kind := all[r.IntN(len(all))]
			for k := range 2 + r.IntN(5) {
				e.Pods = append(e.Pods, sim.Pod{Namespace: "d", Name: fmt.Sprint("p", i, "-", k), Template: kind, Run: time.Duration(20+r.IntN(60)) * time.Second, Retries: 1, Fails: r.IntN(9) == 0})
			}
			e.Min = 1 + r.IntN(len(e.Pods))
		default:
			e.Pods = []sim.Pod{{
				Namespace: "d", Name: fmt.Sprint("p", i), Template: all[r.IntN(len(all))],
				Run: time.Duration(1+r.IntN(60)) * time.Second, Fails: r.IntN(5) == 0, Retries: r.IntN(3),
			}}
		}
		events = append(events, e)
	}
	return sim.Events("random", events)
}

func run(t testing.TB, w sim.Workload, opts sim.Options) (*sim.Result, error) {
	t.Helper()
	if opts.Engine.Profile == nil {
		opts.Engine.Profile = plugins.Default()
	}
	s, err := sim.New(w, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s.Run(t.Context())
}

// TestInvariants plays random workloads with every rule and every event, checked after every step.
func TestInvariants(t *testing.T) {
	for seed := range uint64(16) {
		opts := sim.Options{Check: true, Engine: scheduler.EngineOptions{Seed: seed + 1}}
		if seed%2 == 1 {
			opts.DecisionTime, opts.StartDelay, opts.ResubmitDelay = 700*time.Millisecond, time.Second, 3*time.Second
			opts.GracePeriod, opts.NoLines = 5*time.Second, seed%4 == 1
		}
		r, err := run(t, random(seed, 300), opts)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		s := &r.Summary
		if s.Submitted < 200 || s.Ended+s.Pending+s.Running != s.Submitted || s.Placed < 150 || s.Evicted == 0 || s.Failures == 0 || s.Cancelled == 0 || s.Preempted == 0 {
			t.Errorf("seed %d: %+v", seed, *s)
		}
	}
}

// TestDeterminism: the same seed gives the same bytes, however many processors there are; another seed doesn't.
func TestDeterminism(t *testing.T) {
	logOf := func(seed uint64) string {
		var log, csv bytes.Buffer
		r, err := run(t, random(5, 400), sim.Options{Log: &log, Engine: scheduler.EngineOptions{Seed: seed}})
		if err != nil {
			t.Fatal(err)
		}
		if err := sim.WriteCSV(&csv, r); err != nil {
			t.Fatal(err)
		}
		return log.String() + csv.String()
	}
	first := logOf(1)
	if len(first) < 10000 {
		t.Fatalf("the log is short:\n%s", first)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if logOf(1) != first {
		t.Error("with one processor the log is another")
	}
	runtime.GOMAXPROCS(2)
	for range 3 {
		if logOf(1) != first {
			t.Error("with two processors the log is another")
		}
	}
	if logOf(2) == first {
		t.Error("the seed makes no difference")
	}
}

// liar takes the place of a rule and lets everything through.
type liar struct{ name string }

func (l liar) Name() string { return l.name }

// TestCheckFinds: without a rule, the check finds that it is broken.
func TestCheckFinds(t *testing.T) {
	for rule, want := range map[string]string{
		"NodeResourcesFit": "which is", "NodeUnschedulable": "breaks NodeUnschedulable", "TaintToleration": "breaks TaintToleration", "NodeAffinity": "breaks NodeAffinity",
		"NodePorts": "breaks NodePorts", "InterPodAffinity": "breaks InterPodAffinity", "PodTopologySpread": "breaks PodTopologySpread",
	} {
		profile := plugins.Default()
		for i := range profile {
			if profile[i].Plugin.Name() == rule {
				profile[i].Plugin = liar{rule}
			}
		}
		var err error
		for seed := uint64(0); seed < 10 && err == nil; seed++ {
			_, err = run(t, random(seed, 300), sim.Options{Check: true, Engine: scheduler.EngineOptions{Profile: profile}})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without %s: %v", rule, err)
		}
	}
}
