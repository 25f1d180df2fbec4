package sim_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
	"github.com/keelson/keelson/scheduler/sim"
)

// oneAtATime permits a pod only where no other has a place.
type oneAtATime struct {
	there map[string]int
	wait  time.Duration
}

func (*oneAtATime) Name() string { return "OneAtATime" }

func (p *oneAtATime) Reserve(_ *scheduler.Pod, node *scheduler.Node, _ *scheduler.View) error {
	p.there[node.Object.Name]++
	return nil
}

func (p *oneAtATime) Unreserve(_ *scheduler.Pod, node string, _ *scheduler.View) { p.there[node]-- }

func (p *oneAtATime) Permit(_ *scheduler.Pod, node string) scheduler.Permission {
	switch {
	case p.wait > 0:
		return scheduler.Permission{Wait: p.wait}
	case p.there[node] > 1:
		return scheduler.Permission{Reject: scheduler.Reject("one at a time")}
	}
	return scheduler.Permission{}
}

type binds struct{}

func (binds) Name() string                                               { return "Binds" }
func (binds) Bind(context.Context, *scheduler.Pod, string) (bool, error) { return true, nil }
func (binds) PostBind(context.Context, *scheduler.Pod, string)           {}

// TestPermit: a pod that gets no permission gives its place back, and is tried again after a change that may help it.
func TestPermit(t *testing.T) {
	gate := &oneAtATime{there: map[string]int{}}
	opts := sim.Options{NoLines: true, Check: true, Engine: scheduler.EngineOptions{Profile: append(plugins.Default(), scheduler.Weighted{Plugin: gate})}}
	events := []sim.Event{
		{Kind: sim.AddNode, Node: testNode("n", "z")},
		comes(time.Second, "a", template("a"), time.Minute),
		comes(2*time.Second, "b", template("b"), time.Minute),
		{At: 10 * time.Second, Kind: sim.AddNode, Node: testNode("m", "z")},
	}
	s, err := sim.New(sim.Events("w", events), opts)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Summary.Finished != 2 || r.Summary.Waits.Most != 8*time.Second || gate.there["n"]+gate.there["m"] != 2 {
		t.Errorf("%+v, %v", r.Summary, gate.there)
	}
	gate.wait, gate.there = time.Second, map[string]int{}
	s, err = sim.New(sim.Events("w", events), opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "plugin OneAtATime has d/a wait for its permission") {
		t.Error(err)
	}
}

// TestBindRefused: plugins that a simulation would not ask are refused, unless they are left out at those points.
func TestBindRefused(t *testing.T) {
	profile := append(plugins.Default(), scheduler.Weighted{Plugin: binds{}})
	for _, engine := range []scheduler.EngineOptions{{Profile: profile}, {Profiles: []scheduler.NamedProfile{{Name: "x", Plugins: profile}}}} {
		_, err := sim.New(sim.Events("w", nil), sim.Options{Engine: engine})
		if err == nil || !strings.Contains(err.Error(), "plugin Binds is asked at bind postBind") {
			t.Error(err)
		}
	}
	profile[len(profile)-1].Except = scheduler.AtBind | scheduler.AtPostBind
	if _, err := sim.New(sim.Events("w", nil), sim.Options{Engine: scheduler.EngineOptions{Profile: profile}}); err != nil {
		t.Error(err)
	}
}
