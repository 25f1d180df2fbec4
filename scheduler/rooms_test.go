package scheduler_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// leastHarm orders candidates as Kubernetes does.
func leastHarm(a, b *scheduler.Candidate) int {
	x, y := a.Victims[0], b.Victims[0]
	sum := func(c *scheduler.Candidate) (n int64) {
		for _, v := range c.Victims {
			n += int64(v.Priority) + 1<<31
		}
		return n
	}
	return cmp.Or(cmp.Compare(a.Violations, b.Violations), cmp.Compare(x.Priority, y.Priority), cmp.Compare(sum(a), sum(b)),
		cmp.Compare(len(a.Victims), len(b.Victims)), y.Started().Compare(x.Started()))
}

// TestCandidatesOfManyNodes lets a cluster of hundreds of nodes change in all ways that preemption depends on, and compares the candidate that is found
// through ranges of nodes, and what is kept of those, with the best of all nodes, each looked at alone.
func TestCandidatesOfManyNodes(t *testing.T) {
	found, none := 0, 0
	n := seeds(t, 30)
	for seed := range n {
		w := newCrowd(t, seed)
		for step := range 250 {
			w.change(step)
			if step%2 == 0 {
				continue
			}
			p := scheduler.NewPod(w.preemptor(step))
			d := w.e.Decide(p)
			if d.Fits() {
				w.e.Assign(p, d.Node)
				w.pods = append(w.pods, p.Object)
				continue
			}
			var want *scheduler.Candidate
			refused := map[string]int{}
			w.probe.view.EachCandidate(p, &d, func(c scheduler.Candidate) {
				switch {
				case c.Refused != nil:
					for _, r := range c.Refused.Reasons {
						refused[r]++
					}
				case want == nil || leastHarm(&c, want) < 0:
					want = &c
				}
			})
			got, why := w.probe.view.BestCandidate(p, &d, leastHarm)
			switch {
			case want == nil && got == nil:
				if none++; fmt.Sprint(why) != fmt.Sprint(refused) {
					t.Fatalf("seed %d step %d: refused %v, node by node %v", seed, step, why, refused)
				}
				continue
			case want == nil || got == nil || got.Node != want.Node || got.Violations != want.Violations || !slices.EqualFunc(got.Victims, want.Victims, samePod):
				t.Fatalf("seed %d step %d: %+v, node by node %+v", seed, step, got, want)
			}
			found++
			switch w.r.IntN(3) {
			case 0:
				w.e.Nominate(p, got.Node)
				w.nominated = append(w.nominated, p)
			case 1:
				for _, v := range got.Victims {
					w.e.Remove(v.Object.UID)
				}
			}
		}
	}
	if uint64(found) < 16*n || uint64(none) < n {
		t.Errorf("%d candidates found, %d times none: the cases say little", found, none)
	}
}

func samePod(a, b *scheduler.Pod) bool { return a.Object == b.Object }

// crowd is a full cluster.
type crowd struct {
	r         *rand.Rand
	e         *scheduler.Engine
	probe     *viewer
	nodes     int
	pods      []*corev1.Pod
	nominated []*scheduler.Pod
	uids      int
	kinds     []*corev1.Pod
}

func newCrowd(t *testing.T, seed uint64) *crowd {
	w := &crowd{r: rand.New(rand.NewPCG(seed, 31)), probe: &viewer{}}
	var err error
	if w.e, err = scheduler.NewEngine(scheduler.EngineOptions{Profile: append(plugins.Default(), scheduler.Weighted{Plugin: w.probe})}); err != nil {
		t.Fatal(err)
	}
	w.nodes = pick(w.r, 5, 40, 300, 600)
	for i := range w.nodes {
		w.setNode(i)
	}
	for range 4 * w.nodes {
		w.assign()
	}
	for range 6 {
		w.kinds = append(w.kinds, w.preemptor(0))
	}
	return w
}

func (w *crowd) setNode(i int) {
	n := testNode(fmt.Sprint("n", i), fmt.Sprint("z", i%3))
	n.Status.Allocatable = quantities(pick(w.r, "4", "4", "3"), "8Gi", "pods", pick(w.r, "5", "110"), "example.com/gpu", pick(w.r, "0", "1"))
	if w.r.IntN(10) == 0 {
		n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}}
	}
	w.e.SetNode(n)
}

func (w *crowd) pod(priority int32) *corev1.Pod {
	w.uids++
	p := testPod(fmt.Sprint("p", w.uids), pick(w.r, "a", "b", "c"))
	p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: quantities(pick(w.r, "500m", "1", "1", "2"), pick(w.r, "1Gi", "2Gi"))}}}
	if w.r.IntN(8) == 0 {
		p.Spec.Containers[0].Resources.Requests["example.com/gpu"] = quantities("1", "")[corev1.ResourceCPU]
	}
	p.Spec.Priority = &priority
	if w.r.IntN(4) > 0 {
		p.Status.StartTime = &metav1.Time{Time: time.Unix(int64(w.r.IntN(1000)), 0)}
	}
	return p
}

func (w *crowd) assign() {
	p := w.pod(int32(w.r.IntN(4)))
	w.pods = append(w.pods, p)
	w.e.Assign(scheduler.NewPod(p), fmt.Sprint("n", w.r.IntN(w.nodes)))
}

// preemptor is one of a few kinds, or of its own.
func (w *crowd) preemptor(step int) *corev1.Pod {
	if step > 0 && w.r.IntN(2) == 0 {
		p := pick(w.r, w.kinds...).DeepCopy()
		w.uids++
		p.Name, p.UID = fmt.Sprint("p", w.uids), types.UID(fmt.Sprint("p", w.uids))
		return p
	}
	if len(w.nominated) > 0 && w.r.IntN(8) == 0 {
		if p := pick(w.r, w.nominated...).Object; w.e.Assigned(p.UID) == "" {
			return p
		}
	}
	p := w.pod(int32(w.r.IntN(5)))
	p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = quantities(pick(w.r, "2", "2500m", "3", "4", "5"), "")[corev1.ResourceCPU]
	switch w.r.IntN(8) {
	case 0:
		away(term("a", pick(w.r, zoneKey, corev1.LabelHostname)))(p)
	case 1:
		t := term("a", zoneKey)
		t.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "x"}}
		away(t)(p)
	case 2, 3, 4:
		spreadOver("a", pick(w.r, zoneKey, zoneKey, corev1.LabelHostname))(p)
	}
	return p
}

// change does one of the things that preemption depends on.
func (w *crowd) change(step int) {
	switch r := w.r; r.IntN(16) {
	case 0:
		w.setNode(r.IntN(w.nodes + 1))
	case 1:
		w.e.DeleteNode(fmt.Sprint("n", r.IntN(w.nodes)))
	case 2, 3:
		b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: pick(r, "b1", "b2")}}
		b.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}
		if r.IntN(8) == 0 {
			b.Spec.Selector.MatchLabels["app"] = "b"
		}
		b.Status.DisruptionsAllowed = int32(r.IntN(4))
		if len(w.pods) > 0 && r.IntN(4) == 0 {
			b.Status.DisruptedPods = map[string]metav1.Time{pick(r, w.pods...).Name: {}}
		}
		w.e.SetPDB(b)
	case 4:
		if r.IntN(5) == 0 {
			w.e.DeletePDB("d", pick(r, "b1", "b2"))
		}
	case 5:
		if len(w.nominated) == 0 {
			break
		}
		if p := pick(r, w.nominated...); w.e.Assigned(p.Object.UID) == "" {
			w.e.Nominate(p, pick(r, "", fmt.Sprint("n", r.IntN(w.nodes))))
		}
	case 6:
		p := pick(r, w.pods...).DeepCopy()
		p.Status.StartTime = &metav1.Time{Time: time.Unix(int64(r.IntN(1000)), 0)}
		w.e.Refreshed(p)
	case 7:
		w.e.SetNamespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "d", Labels: map[string]string{"team": pick(r, "x", "y")}}})
	case 8:
		w.e.Remove(pick(r, w.pods...).UID)
	case 9:
		// It is being deleted, and has other labels, too, at times.
		i := r.IntN(len(w.pods))
		p := w.pods[i].DeepCopy()
		node := w.e.Assigned(p.UID)
		if node == "" {
			break
		}
		p.DeletionTimestamp = &metav1.Time{Time: time.Unix(2000, 0)}
		if r.IntN(2) == 0 {
			w.e.Refreshed(p)
		} else {
			p.Labels = map[string]string{"app": pick(r, "a", "b", "c")}
			w.e.Assign(scheduler.NewPod(p), node)
		}
		w.pods[i] = p
	case 10:
		if n := w.e.Node(fmt.Sprint("n", r.IntN(w.nodes))); n != nil {
			obj := n.Object.DeepCopy()
			obj.Labels[zoneKey] = pick(r, "z0", "z1", "z2", "z3")
			obj.Spec.Unschedulable = r.IntN(4) == 0
			w.e.SetNode(obj)
		}
	case 11:
		// More than is remembered of what changed.
		if r.IntN(10) > 0 {
			break
		}
		b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "b1"}}
		b.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}
		for i := range 1100 {
			next := b.DeepCopy()
			next.Status.DisruptionsAllowed = int32(i % 3)
			w.e.SetPDB(next)
		}
	default:
		w.assign()
	}
}
