package scheduler_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// TestExcept leaves a plugin out at some points.
func TestExcept(t *testing.T) {
	for _, c := range []struct {
		plugin   scheduler.Plugin
		except   scheduler.Points
		feasible int
		score    int64
	}{
		{plugins.NodeResourcesFit{}, 0, 1, 75},
		{plugins.NodeResourcesFit{}, scheduler.AtFilter, 2, 75},
		{plugins.NodeResourcesFit{}, scheduler.AtScore, 1, 0},
		{plugins.InterPodAffinity{}, 0, 1, 0}, // the only one is no better than others
		{plugins.InterPodAffinity{}, scheduler.AtFilter, 2, 100},
		{plugins.InterPodAffinity{}, scheduler.AtScore | scheduler.AtFilter, 2, 0},
	} {
		e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: scheduler.Profile{{Plugin: c.plugin, Except: c.except}}})
		if err != nil {
			t.Fatal(err)
		}
		roomy, full := testNode("roomy", "a"), testNode("full", "b")
		full.Status.Allocatable = quantities("4", "8Gi", "pods", "1")
		e.SetNode(roomy)
		e.SetNode(full)
		e.Assign(scheduler.NewPod(testPod("db", "db", away(term("web", zoneKey)))), "full")
		pod := testPod("p", "web", near(term("web", zoneKey)), requesting("1", "2Gi"))
		e.Assign(scheduler.NewPod(testPod("web", "web", near(term("web", zoneKey)), requesting("0", "0"))), "roomy")
		if d := e.Decide(scheduler.NewPod(pod)); d.Feasible != c.feasible || d.Score != c.score {
			t.Errorf("%s without %b: %d feasible, score %d, want %d, %d", c.plugin.Name(), c.except, d.Feasible, d.Score, c.feasible, c.score)
		}
	}
}

func requesting(cpu, mem string) podMod {
	return func(p *corev1.Pod) {
		p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: quantities(cpu, mem)}}}
	}
}

// told is a plugin that notes when it is asked.
type told struct {
	name string
	log  *[]string
}

func (p told) Name() string { return p.name }

func (p told) note(point string) { *p.log = append(*p.log, point+" "+p.name) }

func (p told) PreEnqueue(*scheduler.Pod) *scheduler.Rejection { p.note("preEnqueue"); return nil }

func (p told) Prepare(*scheduler.Pod, *scheduler.View) (scheduler.Judgement, *scheduler.Rejection) {
	p.note("preFilter")
	return scheduler.Judgement{Filter: func(*scheduler.Node) *scheduler.Rejection { p.note("filter"); return nil }}, nil
}

func (p told) PostFilter(*scheduler.Pod, *scheduler.View, *scheduler.Decision) (*scheduler.Preemption, string) {
	p.note("postFilter")
	return nil, ""
}

func (p told) Reserve(*scheduler.Pod, *scheduler.Node, *scheduler.View) error {
	if p.note("reserve"); p.name == "c" {
		return errors.New("no")
	}
	return nil
}

func (p told) Unreserve(*scheduler.Pod, string, *scheduler.View) { p.note("unreserve") }

// TestOrder gives each point an order of its own.
func TestOrder(t *testing.T) {
	var log []string
	profile := scheduler.NamedProfile{Name: "default-scheduler", Order: map[scheduler.Points][]string{
		scheduler.AtPreEnqueue: {"b"},
		scheduler.AtPreFilter:  {"c", "b", "a"},
		scheduler.AtFilter:     {"b", "c", "a"},
		scheduler.AtPostFilter: {"a", "c"},
		scheduler.AtReserve:    {"b", "a"},
	}}
	for _, name := range []string{"a", "b", "c"} {
		w := scheduler.Weighted{Plugin: told{name, &log}}
		if name == "b" {
			w.Except = scheduler.AtPostFilter
		}
		profile.Plugins = append(profile.Plugins, w)
	}
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profiles: []scheduler.NamedProfile{profile}})
	if err != nil {
		t.Fatal(err)
	}
	e.SetNode(testNode("n", "a"))
	pod := scheduler.NewPod(testPod("p", "web"))
	d := e.Decide(pod)
	if err := e.Reserve(pod, "n"); err == nil {
		t.Error("reserved, though c fails")
	}
	d.Node = ""
	e.Preempt(pod, &d)
	var got []string
	for _, point := range []string{"preEnqueue", "preFilter", "filter", "reserve", "unreserve", "postFilter"} {
		var names []string
		for _, line := range log {
			if at, name, _ := strings.Cut(line, " "); at == point && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		got = append(got, point+" "+strings.Join(names, " "))
	}
	want := []string{"preEnqueue b a c", "preFilter c b a", "filter b c a", "reserve b a c", "unreserve c a b", "postFilter a c"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if at := profile.At(scheduler.AtPostFilter); len(at) != 2 || at[0].Plugin.Name() != "a" || at[1].Plugin.Name() != "c" {
		t.Errorf("at postFilter: %v", at)
	}
	for _, bad := range []map[scheduler.Points][]string{
		{0: {"a"}},
		{scheduler.AtFilter | scheduler.AtScore: {"a"}},
		{1 << 12: {"a"}},
		{scheduler.AtFilter: {"a", "a"}},
		{scheduler.AtFilter: {"d"}},
	} {
		profile.Order = bad
		if _, err := scheduler.NewEngine(scheduler.EngineOptions{Profiles: []scheduler.NamedProfile{profile}}); err == nil {
			t.Errorf("%v: want an error", bad)
		}
	}
}
