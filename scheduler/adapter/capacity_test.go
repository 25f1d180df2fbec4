package adapter_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/keelson/keelson/scheduler"
)

// capacity is a plugin of the shape of those for elastic quotas: a team may use more than its share while nobody else wants it, and gives it back when
// others do, whatever the priorities.
type capacity struct {
	handle fwk.Handle
	share  int // pods of each team
}

type capacityState struct{ used map[string]int }

func (s *capacityState) Clone() fwk.StateData { return s }

func newCapacity(share int) func(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) {
	return func(_ context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
		return &capacity{h, share}, nil
	}
}

func (*capacity) Name() string                                   { return "Capacity" }
func (c *capacity) PreFilterExtensions() fwk.PreFilterExtensions { return c }

func (*capacity) AddPod(context.Context, fwk.CycleState, *corev1.Pod, fwk.PodInfo, fwk.NodeInfo) *fwk.Status {
	return nil
}

func (*capacity) RemovePod(context.Context, fwk.CycleState, *corev1.Pod, fwk.PodInfo, fwk.NodeInfo) *fwk.Status {
	return nil
}

func (c *capacity) PreFilter(_ context.Context, state fwk.CycleState, _ *corev1.Pod, nodes []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	used := map[string]int{}
	for _, n := range nodes {
		for _, p := range n.GetPods() {
			used[p.GetPod().Labels["team"]]++
		}
	}
	state.Write("Capacity", &capacityState{used})
	return nil, nil
}

// PostFilter takes pods of teams that are above their share off a node until the pod fits, and puts back those that needn't go.
func (c *capacity) PostFilter(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, why fwk.NodeToStatusReader) (*fwk.PostFilterResult, *fwk.Status) {
	data, err := state.Read("Capacity")
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	used := data.(*capacityState).used
	team := pod.Labels["team"]
	if used[team] >= c.share {
		return nil, fwk.NewStatus(fwk.Unschedulable, "the team has its share")
	}
	candidates, err := why.NodesForStatusCode(c.handle.SnapshotSharedLister().NodeInfos(), fwk.Unschedulable)
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	for _, n := range candidates {
		if len(c.handle.NominatedPodsForNode(n.Node().Name)) > 0 {
			continue
		}
		trial := n.Snapshot()
		over := map[string]int{}
		for _, p := range slices.Clone(trial.GetPods()) {
			t := p.GetPod().Labels["team"]
			if used[t]-over[t] <= c.share {
				continue
			}
			over[t]++
			if err := trial.RemovePod(klog.Background(), p.GetPod()); err != nil {
				return nil, fwk.AsStatus(err)
			}
			c.handle.RunPreFilterExtensionRemovePod(ctx, state, pod, p, trial)
			if c.handle.RunFilterPluginsWithNominatedPods(ctx, state, pod, trial).IsSuccess() {
				return &fwk.PostFilterResult{NominatingInfo: &fwk.NominatingInfo{NominatedNodeName: n.Node().Name, NominatingMode: fwk.ModeOverride}}, fwk.NewStatus(fwk.Success, "room on "+n.Node().Name)
			}
		}
	}
	return nil, fwk.NewStatus(fwk.Unschedulable, "no team is above its share")
}

// TestCapacity: the plugin finds room by asking all filters about a node with fewer pods.
func TestCapacity(t *testing.T) {
	of := func(name, team, cpu string) *scheduler.Pod {
		p := pod(name, map[string]string{"team": team})
		p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse(cpu)
		return scheduler.NewPod(p)
	}
	e := engine(t, adapted(t, newCapacity(2)))
	for _, name := range []string{"b1", "b2", "b3", "b4"} { // twice its share: 8 of 10 cores
		if d := e.Schedule(of(name, "blue", "2")); !d.Fits() {
			t.Fatal(d.Message())
		}
	}
	e.Assign(of("r1", "red", "2"), "small")
	want := of("r2", "red", "3")
	d := e.Decide(want)
	if d.Fits() {
		t.Fatalf("%+v", d)
	}
	p := e.Preempt(want, &d)
	if p == nil || p.Node != "large" || p.Plugin != "Capacity" {
		t.Fatalf("%+v, %s", p, d.Message())
	}
	if n := e.Node("large").Len(); n == 0 || e.Assigned("b4") == "" {
		t.Error("the trial changed the engine")
	}
	// Where room is being made for another, no more is made; nor for one that has its share, nor for one that filters of other plugins refuse.
	e.Nominate(want, "large")
	next := of("g1", "green", "3")
	d = e.Decide(next)
	if p := e.Preempt(next, &d); p != nil && p.Node != "" {
		t.Errorf("%+v", p)
	}
	e.Nominate(want, "")
	e.Assign(want, "elsewhere")
	e.SetNode(node("elsewhere", "3"))
	for name, why := range map[string]struct{ team, cpu string }{"the team has its share": {"red", "3"}, "no team is above its share": {"green", "20"}} {
		pod := of("x", why.team, why.cpu)
		d := e.Decide(pod)
		if p := e.Preempt(pod, &d); p != nil && p.Node != "" || !strings.Contains(d.Message(), name) {
			t.Errorf("%+v: %s, want %s", p, d.Message(), name)
		}
	}
}
