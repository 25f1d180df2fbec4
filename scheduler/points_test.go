package scheduler_test

import (
	"testing"

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
