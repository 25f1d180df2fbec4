package scheduler_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// gangWorld is a cluster whose pods all ask for one cpu: what fits is told by counting.
type gangWorld struct {
	size map[string]int // cpus by node
	on   map[types.UID]string
	pods map[types.UID]*corev1.Pod
	min  map[string]int // by group that is known
}

func groupName(p *corev1.Pod) string {
	if p.Spec.SchedulingGroup == nil {
		return ""
	}
	return *p.Spec.SchedulingGroup.PodGroupName
}

// check holds what must hold after every step: no node is over, and a group has none of its pods on nodes, or had at least its least at once.
func (w *gangWorld) check(t *testing.T, e *scheduler.Engine, began map[string]bool) {
	t.Helper()
	used := map[string]int{}
	placed := map[string]int{}
	for uid, node := range w.on {
		if e.Assigned(uid) != node {
			t.Fatalf("%s: on %q, want %q", uid, e.Assigned(uid), node)
		}
		used[node]++
		placed[groupName(w.pods[uid])]++
	}
	for node, n := range used {
		if n > w.size[node] {
			t.Fatalf("%s: %d of %d", node, n, w.size[node])
		}
	}
	for uid := range w.pods {
		if w.on[uid] == "" && e.Assigned(uid) != "" {
			t.Fatalf("%s: left on %s", uid, e.Assigned(uid))
		}
	}
	for group, n := range placed {
		if group != "" && !began[group] && n < w.min[group] {
			t.Fatalf("group %s: %d on nodes, want %d at the least", group, n, w.min[group])
		}
	}
}

// TestGroupsAgainstReference drives an engine and a queue as the runner does: a group is placed if and only if there is room for enough of its pods.
func TestGroupsAgainstReference(t *testing.T) {
	whole, none := 0, 0
	for seed := range seeds(t, 1500) {
		r := rand.New(rand.NewPCG(seed, 3))
		e, err := scheduler.NewEngine(scheduler.EngineOptions{Seed: seed + 1, Profile: scheduler.Profile{
			{Plugin: plugins.NodeResourcesFit{}}, {Plugin: plugins.GangScheduling{}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		q := scheduler.NewQueue(e)
		w := &gangWorld{size: map[string]int{}, on: map[types.UID]string{}, pods: map[types.UID]*corev1.Pod{}, min: map[string]int{}}
		began := map[string]bool{}
		now := time.Unix(0, 0)
		for step := range 120 {
			now = now.Add(20 * time.Second)
			switch r.IntN(8) {
			case 0, 1:
				n := testNode(fmt.Sprint("n", r.IntN(5)), "")
				size := 1 + r.IntN(4)
				if size < w.size[n.Name] {
					continue // nodes don't shrink under their pods
				}
				n.Status.Allocatable = quantities(fmt.Sprint(size), "8Gi", "pods", "50")
				w.size[n.Name] = size
				q.Changed(e.SetNode(n), now)
			case 2:
				g := gangOf("d", fmt.Sprint("g", r.IntN(3)), int32(1+r.IntN(5)))
				if w.min[g.Name] != 0 {
					continue
				}
				w.min[g.Name] = int(g.Spec.SchedulingPolicy.Gang.MinCount)
				q.Changed(e.SetPodGroup(g), now)
			case 3, 4, 5:
				p := testPod(fmt.Sprint("p", step), "web", cpu("1"))
				if r.IntN(4) > 0 {
					member(fmt.Sprint("g", r.IntN(3)))(p)
				}
				w.pods[p.UID] = p
				q.Add(scheduler.NewPod(p), now)
			case 6:
				for _, uid := range slices.Sorted(maps.Keys(w.pods)) {
					if r.IntN(6) > 0 {
						continue
					}
					if q.Remove(uid); w.on[uid] != "" {
						q.Changed(scheduler.ClusterChange{FreedPod: e.Remove(uid)}, now)
					}
					delete(w.pods, uid)
					delete(w.on, uid)
					break
				}
			}
			for range 50 {
				a, ok := q.Pop(now)
				if !ok {
					break
				}
				attempts, min := q.Gather(a)
				group := groupName(a.Pod.Object)
				list := make([]*scheduler.Pod, len(attempts))
				for i := range attempts {
					list[i] = attempts[i].Pod
				}
				if group == "" && len(list) != 1 || group != "" && w.min[group] == 0 {
					t.Fatalf("seed %d step %d: %d pods at once for group %q", seed, step, len(list), group)
				}
				fit := len(list)
				if left := w.left(); left < fit {
					fit = left
				}
				want := fit > 0 && fit+w.placed(group) >= w.min[group]
				ds, ok := e.ScheduleGroup(list, min)
				if ok != want {
					t.Fatalf("seed %d step %d: group %q of %d, at least %d: %v, want %v; free %d", seed, step, group, len(list), min, ok, want, w.left())
				}
				if ok && group != "" {
					whole++
				} else if group != "" {
					none++
				}
				for i := range ds {
					p := list[i]
					if ds[i].Fits() {
						w.on[p.Object.UID] = ds[i].Node
						q.Remove(p.Object.UID)
						q.Changed(scheduler.ClusterChange{AssignedPod: p}, now)
						continue
					}
					q.Fail(attempts[i], ds[i].Plugins, now)
				}
				w.check(t, e, began)
				if ok && group != "" {
					began[group] = true // from now on its pods may go
				}
			}
			w.check(t, e, began)
		}
	}
	if whole < 200 || none < 200 {
		t.Errorf("%d groups placed, %d not", whole, none)
	}
}

// left counts the cpus that are free.
func (w *gangWorld) left() (n int) {
	for _, size := range w.size {
		n += size
	}
	return n - len(w.on)
}

// placed counts a group's pods on nodes.
func (w *gangWorld) placed(group string) (n int) {
	for uid := range w.on {
		if group != "" && groupName(w.pods[uid]) == group {
			n++
		}
	}
	return n
}
