package schedulertest

import (
	"encoding/json"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

func j(v any) string { b, _ := json.Marshal(v); return string(b) }

func dump(c *cluster) {
	for n, o := range c.nodes {
		fmt.Println("node", n, o.Labels)
	}
	for u, p := range c.placed {
		fmt.Println("pod", u, p.Namespace, p.Labels, p.Spec.NodeName, j(p.Spec.Affinity), p.DeletionTimestamp)
	}
	for n, o := range c.namespaces {
		fmt.Println("ns", n, o.Labels)
	}
}

func TestDebugHint(t *testing.T) {
	o := Options{}.withDefaults()
	c := newCluster(o, 2)
	p := plugins.InterPodAffinity{}
	e, _ := c.engine(p)
	var waiting []*scheduler.Pod
	for range 8 {
		waiting = append(waiting, scheduler.NewPod(c.pod()))
	}
	for step := range o.Events {
		unfit := map[*scheduler.Pod]bool{}
		for _, w := range waiting {
			d := e.Decide(w)
			unfit[w] = !d.Fits() && len(d.Plugins) > 0
		}
		changes, _ := c.event(e)
		for i, w := range waiting {
			if !unfit[w] {
				waiting[i] = scheduler.NewPod(c.pod())
				continue
			}
			d := e.Decide(w)
			if !d.Fits() {
				continue
			}
			ok := false
			for _, ch := range changes {
				ok = ok || e.Hint(w, []string{p.Name()}, ch)
			}
			if !ok {
				fmt.Println("STEP", step, w.Object.Name, w.Object.Namespace, w.Object.Labels, j(w.Object.Spec.Affinity), describe(changes), d.Node)
				for _, ch := range changes {
					if ch.AssignedPod != nil {
						fmt.Println("assigned", j(ch.AssignedPod.Object.ObjectMeta), j(ch.AssignedPod.Object.Spec.Affinity), ch.AssignedPod.Object.Spec.NodeName)
					}
				}
				dump(c)
				return
			}
		}
	}
}

func TestDebugCached(t *testing.T) {
	o := Options{}.withDefaults()
	c := newCluster(o, 16)
	p := plugins.InterPodAffinity{}
	e, _ := c.engine(p)
	var classes []*corev1.Pod
	for range 4 {
		classes = append(classes, c.pod())
	}
	for step := range o.Events {
		ch, _ := c.event(e)
		obj := pick(c.r, classes...)
		if c.r.IntN(3) == 0 {
			obj = c.pod()
		}
		got := e.Decide(scheduler.NewPod(obj))
		fresh, _ := c.engine(p)
		want := fresh.Decide(scheduler.NewPod(obj))
		if got.Feasible != want.Feasible {
			fmt.Println("STEP", step, obj.Name, obj.Namespace, obj.Labels, j(obj.Spec.Affinity), describe(ch), got.Feasible, want.Feasible)
			fmt.Println(e.Explain(scheduler.NewPod(obj)))
			fmt.Println(fresh.Explain(scheduler.NewPod(obj)))
			dump(c)
			return
		}
	}
}
