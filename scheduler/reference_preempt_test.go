package scheduler_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// What follows decides about preemption and nominated pods by trying everything out on a copy of the cluster, in the words of Kubernetes' documentation.

func prio(p *corev1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

// clone has maps of its own.
func (r *reference) clone() *reference {
	c := *r
	c.pods, c.nominated = maps.Clone(r.pods), maps.Clone(r.nominated)
	return &c
}

// engineOf asks the plugins about single nodes; it decides nothing.
func (r *reference) engineOf() *scheduler.Engine {
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: r.profile})
	if err != nil {
		panic(err)
	}
	for _, n := range r.nodes {
		e.SetNode(n)
	}
	for _, p := range r.pods {
		e.Assign(scheduler.NewPod(p), p.Spec.NodeName)
	}
	return e
}

// why says why node is not for pod, nil if it is: with the pods of at least its priority that are nominated for the node in place, and without any.
func (r *reference) why(pod *corev1.Pod, node *corev1.Node) []string {
	with := r.clone()
	for uid, name := range r.nominated {
		other := r.waiting[uid]
		if name == node.Name && uid != pod.UID && prio(other) >= prio(pod) {
			other = other.DeepCopy()
			other.Spec.NodeName = name
			with.pods[uid] = other
		}
	}
	if len(with.pods) > len(r.pods) {
		began := r
		if r.began != nil {
			began = r.began
		}
		with.aloof = !began.concerned(pod)
		if why := with.reasons(with.engineOf(), scheduler.NewPod(pod), node); why != nil {
			return why
		}
	}
	return r.reasons(r.engineOf(), scheduler.NewPod(pod), node)
}

// concerned reports whether affinity could keep the pod off any node, and another's anti-affinity is of a topology domain; if not, it isn't asked about nominated pods either.
func (r *reference) concerned(pod *corev1.Pod) bool {
	near, away := requiredTerms(pod)
	against := len(near)+len(away) > 0
	r.eachPlaced(func(p *corev1.Pod, n *corev1.Node) {
		_, away := requiredTerms(p)
		for i := range away {
			_, within := n.Labels[away[i].TopologyKey]
			against = against || within && r.selects(p, &away[i], pod)
		}
	})
	return against
}

// resolvable reports whether removing pods could help against reasons, as each plugin documents it.
func (r *reference) resolvable(pod *corev1.Pod, node *corev1.Node, why []string) bool {
	for _, reason := range why {
		if strings.HasPrefix(reason, "Insufficient ") {
			name := corev1.ResourceName(strings.TrimPrefix(reason, "Insufficient "))
			want, have := scheduler.NewPod(pod).Requests.Of(name), node.Status.Allocatable[name]
			total := have.Value()
			if name == corev1.ResourceCPU {
				total = have.MilliValue()
			}
			if want > total {
				return false
			}
			continue
		}
		switch reason {
		case "Too many pods", "node(s) didn't have free ports for the requested pod ports", anti, existing, skewed:
		default:
			return false
		}
	}
	return true
}

// room is how a node could be made to take a pod.
type room struct {
	node       string
	victims    []types.UID
	violations int
	highest    int32
	sum        int64
	started    time.Time
}

func started(p *corev1.Pod) time.Time {
	if p.Status.StartTime == nil {
		return time.Unix(1<<40, 0)
	}
	return p.Status.StartTime.Time
}

// makeRoom finds the victims on a node: all pods of lower priority go, and come back, those first that budgets guard, the important ones before others.
func (r *reference) makeRoom(pod *corev1.Pod, node *corev1.Node) (*room, []string) {
	var lower []*corev1.Pod
	for _, p := range r.pods {
		if p.Spec.NodeName == node.Name && prio(p) < prio(pod) {
			lower = append(lower, p)
		}
	}
	if len(lower) == 0 {
		return nil, []string{"No preemption victims found for incoming pod"}
	}
	slices.SortFunc(lower, func(a, b *corev1.Pod) int {
		switch {
		case prio(a) != prio(b):
			return int(prio(b) - prio(a))
		case !started(a).Equal(started(b)):
			return started(a).Compare(started(b))
		}
		return strings.Compare(string(a.UID), string(b.UID))
	})
	c := r.clone()
	c.began = r
	for _, p := range lower {
		delete(c.pods, p.UID)
	}
	if why := c.why(pod, node); why != nil {
		return nil, why
	}
	left := map[string]int32{}
	guarded := map[types.UID]bool{}
	for name, b := range r.pdbs {
		left[name] = b.Status.DisruptionsAllowed
	}
	for _, p := range lower {
		for _, name := range slices.Sorted(maps.Keys(r.pdbs)) {
			b := r.pdbs[name]
			if b.Namespace == p.Namespace && asSelector(b.Spec.Selector, nil, nil, nil).Matches(labelsOf(p)) {
				if left[name]--; left[name] < 0 {
					guarded[p.UID] = true
					break
				}
			}
		}
	}
	out := &room{node: node.Name, highest: -1 << 31}
	for _, first := range []bool{true, false} {
		for _, p := range lower {
			if guarded[p.UID] != first {
				continue
			}
			c.pods[p.UID] = p
			if c.why(pod, node) == nil {
				continue
			}
			delete(c.pods, p.UID)
			out.victims = append(out.victims, p.UID)
			out.sum += int64(prio(p)) + 1<<31
			if first {
				out.violations++
			}
			switch {
			case prio(p) > out.highest:
				out.highest, out.started = prio(p), started(p)
			case prio(p) == out.highest && started(p).Before(out.started):
				out.started = started(p)
			}
		}
	}
	slices.Sort(out.victims)
	return out, nil
}

// preempt returns the best rooms, all equally good, or the message if there are none.
func (r *reference) preempt(pod *corev1.Pod) (best []*room, message string) {
	if p := pod.Spec.PreemptionPolicy; p != nil && *p == corev1.PreemptNever {
		return nil, "preemption: not eligible due to preemptionPolicy=Never."
	}
	counts := map[string]int{}
	for _, n := range r.nodes {
		why := r.why(pod, n)
		if !r.resolvable(pod, n, why) {
			counts["Preemption is not helpful for scheduling"]++
			continue
		}
		found, why := r.makeRoom(pod, n)
		for _, reason := range why {
			counts[reason]++
		}
		if found != nil {
			best = append(best, found)
		}
	}
	if len(best) == 0 {
		var parts []string
		for reason, n := range counts {
			parts = append(parts, fmt.Sprintf("%d %s", n, reason))
		}
		slices.Sort(parts)
		return nil, fmt.Sprintf("preemption: 0/%d nodes are available: %s.", len(r.nodes), strings.Join(parts, ", "))
	}
	for _, worse := range []func(a, b *room) bool{
		func(a, b *room) bool { return a.violations > b.violations },
		func(a, b *room) bool { return a.highest > b.highest },
		func(a, b *room) bool { return a.sum > b.sum },
		func(a, b *room) bool { return len(a.victims) > len(b.victims) },
		func(a, b *room) bool { return a.started.Before(b.started) },
	} {
		all := best
		best = slices.DeleteFunc(slices.Clone(all), func(a *room) bool {
			return slices.ContainsFunc(all, func(b *room) bool { return worse(a, b) })
		})
	}
	return best, ""
}

// oneOf returns a key of m, false if there is none.
func oneOf[V any](r *rand.Rand, m map[types.UID]V) (types.UID, bool) {
	if len(m) == 0 {
		return "", false
	}
	return slices.Sorted(maps.Keys(m))[r.IntN(len(m))], true
}

// TestPreemptionAgainstReference mixes priorities, nominations, budgets and all other features, and compares each decision and each proposal. After each
// step no node holds more than it has, and no pod is lost or on two nodes.
func TestPreemptionAgainstReference(t *testing.T) {
	proposals, messages, waited := 0, 0, 0
	for seed := range seeds(t, 240) {
		r := rand.New(rand.NewPCG(seed, 7))
		ref := newReference()
		e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: plugins.Default(), Seed: seed + 1})
		if err != nil {
			t.Fatal(err)
		}
		fail := func(step int, format string, args ...any) {
			t.Helper()
			t.Fatalf("seed %d step %d: %s", seed, step, fmt.Sprintf(format, args...))
		}
		for step := range 90 {
			switch r.IntN(12) {
			case 0, 1:
				n := randomNode(r)
				n.Spec.Unschedulable = false
				ref.nodes[n.Name] = n
				e.SetNode(n)
			case 2:
				if uid, ok := oneOf(r, ref.pods); ok {
					delete(ref.pods, uid)
					e.Remove(uid)
				}
			case 3:
				b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: pick(r, "b1", "b2")}}
				b.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick(r, "a", "b")}}
				b.Status.DisruptionsAllowed = int32(r.IntN(2))
				ref.pdbs[b.Name] = b
				e.SetPDB(b)
			case 4:
				if uid, ok := oneOf(r, ref.nominated); ok && r.IntN(2) == 0 {
					delete(ref.nominated, uid)
					e.Nominate(scheduler.NewPod(ref.waiting[uid]), "")
				}
			default:
				obj := randomPod(r, step)
				addPodRules(r, obj)
				if uid, ok := oneOf(r, ref.nominated); ok && r.IntN(3) == 0 {
					obj = ref.waiting[uid] // once more, to where there was to be room
				} else if uid, ok := oneOf(r, ref.waiting); ok && r.IntN(4) == 0 {
					obj = ref.waiting[uid]
				}
				if obj.Spec.Priority == nil {
					priority := int32(r.IntN(4)) * 10
					obj.Spec.Priority = &priority
					obj.Status.StartTime = pick(r, nil, &metav1.Time{Time: time.Unix(int64(r.IntN(3)), 0)})
					if r.IntN(10) == 0 {
						never := corev1.PreemptNever
						obj.Spec.PreemptionPolicy = &never
					}
				}
				pod := scheduler.NewPod(obj)
				fits := map[string]bool{}
				for name, n := range ref.nodes {
					if ref.why(obj, n) == nil {
						fits[name] = true
					}
				}
				d := e.Schedule(pod)
				if d.Fits() != (len(fits) > 0) || d.Fits() && !fits[d.Node] {
					fail(step, "%+v, want one of %v", d, fits)
				}
				if want := ref.nominated[obj.UID]; fits[want] && d.Node != want {
					fail(step, "on %s, nominated for %s", d.Node, want)
				}
				if d.Fits() {
					if _, ok := ref.nominated[obj.UID]; ok {
						waited++
					}
					delete(ref.waiting, obj.UID)
					delete(ref.nominated, obj.UID)
					obj.Spec.NodeName = d.Node
					ref.pods[obj.UID] = obj
					break
				}
				if len(ref.nodes) == 0 {
					break
				}
				ref.waiting[obj.UID] = obj
				p := e.Preempt(pod, &d)
				best, message := ref.preempt(obj)
				if message != "" {
					messages++
					if p != nil && p.Node != "" || d.PostFilter != message {
						fail(step, "proposal %+v, %q, want %q", p, d.PostFilter, message)
					}
					if p != nil {
						delete(ref.nominated, obj.UID)
						e.Nominate(pod, "")
					}
					break
				}
				proposals++
				i := -1
				if p != nil {
					i = slices.IndexFunc(best, func(b *room) bool { return b.node == p.Node })
				}
				if i < 0 {
					fail(step, "proposal %+v, want %+v", p, best[0])
				}
				var victims []types.UID
				for _, v := range p.Victims {
					victims = append(victims, v.Object.UID)
				}
				slices.Sort(victims)
				if !slices.Equal(victims, best[i].victims) || p.PDBViolations != best[i].violations {
					fail(step, "victims %v violating %d, want %v violating %d", victims, p.PDBViolations, best[i].victims, best[i].violations)
				}
				e.Nominate(pod, p.Node)
				ref.nominated[obj.UID] = p.Node
				if r.IntN(3) > 0 {
					for _, uid := range victims {
						delete(ref.pods, uid)
						e.Remove(uid)
					}
				}
			}
			ref.invariants(t, e)
		}
	}
	if proposals < 20 || messages < 20 || waited < 5 {
		t.Errorf("%d proposals, %d without, %d pods came to where they were nominated: the cases say little", proposals, messages, waited)
	}
}

// TestEventOrder tells two engines of the same cluster: one in order, the other in any order, with detours, and asked in between. They then decide alike.
func TestEventOrder(t *testing.T) {
	for seed := range seeds(t, 600) {
		r := rand.New(rand.NewPCG(seed, 3))
		var events []func(*scheduler.Engine)
		plain, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: plugins.Default()})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 8 {
			n := randomNode(r)
			n.Name = fmt.Sprint("n", i)
			events = append(events, func(e *scheduler.Engine) {
				if r.IntN(3) == 0 {
					other := randomNode(r)
					other.Name = n.Name
					e.SetNode(other)
					if r.IntN(2) == 0 {
						e.DeleteNode(n.Name)
					}
				}
				e.SetNode(n)
			})
			plain.SetNode(n)
		}
		for i := range 20 {
			p := randomPod(r, i)
			addPodRules(r, p)
			node := fmt.Sprint("n", r.IntN(8))
			events = append(events, func(e *scheduler.Engine) {
				if r.IntN(3) == 0 {
					e.Assign(scheduler.NewPod(p), fmt.Sprint("n", r.IntN(8)))
				}
				e.Assign(scheduler.NewPod(p), node)
			})
			plain.Assign(scheduler.NewPod(p), node)
		}
		var asked []*corev1.Pod
		for i := range 12 {
			p := randomPod(r, 100+i)
			addPodRules(r, p)
			asked = append(asked, p)
		}
		shuffled, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: plugins.Default()})
		if err != nil {
			t.Fatal(err)
		}
		r.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		for _, tell := range events {
			tell(shuffled)
			shuffled.Decide(scheduler.NewPod(asked[r.IntN(len(asked))]))
		}
		for _, p := range asked {
			a, b := plain.Decide(scheduler.NewPod(p)), shuffled.Decide(scheduler.NewPod(p))
			if a.Feasible != b.Feasible || a.Score != b.Score || !maps.Equal(a.Reasons, b.Reasons) {
				t.Fatalf("seed %d: %+v, in another order %+v", seed, a, b)
			}
		}
	}
}

// TestKeptCandidates compares what is kept between preemptions with what a fork, which has kept nothing, finds.
func TestKeptCandidates(t *testing.T) {
	for seed := range seeds(t, 200) {
		r := rand.New(rand.NewPCG(seed, 5))
		e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: plugins.Default()})
		if err != nil {
			t.Fatal(err)
		}
		proposals := 0
		for step := range 200 {
			p := testPod(fmt.Sprint("p", step), pick(r, "a", "b"))
			p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: quantities(pick(r, "1", "2"), "")}}}
			priority := int32(r.IntN(4))
			p.Spec.Priority = &priority
			switch r.IntN(8) {
			case 0:
				e.SetNode(testNode(fmt.Sprint("n", r.IntN(12)), "a"))
			case 1:
				e.DeleteNode(fmt.Sprint("n", r.IntN(12)))
			case 2:
				b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "b"}}
				b.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}
				b.Status.DisruptionsAllowed = int32(r.IntN(2))
				e.SetPDB(b)
			case 3:
				e.Nominate(scheduler.NewPod(p), fmt.Sprint("n", r.IntN(12)))
			case 4:
				e.Remove(types.UID(fmt.Sprint("p", r.IntN(step+1))))
			default:
				fork := e.Fork()
				pod := scheduler.NewPod(p)
				d := e.Schedule(pod)
				if d.Fits() {
					break
				}
				got := e.Preempt(pod, &d)
				other := fork.Decide(scheduler.NewPod(p))
				want := fork.Preempt(scheduler.NewPod(p), &other)
				if got.Node != want.Node || len(got.Victims) != len(want.Victims) || got.PDBViolations != want.PDBViolations || d.Message() != other.Message() {
					t.Fatalf("seed %d step %d: %+v %q, want %+v %q", seed, step, got, d.Message(), want, other.Message())
				}
				if got.Node != "" {
					proposals++
					for _, v := range got.Victims {
						e.Remove(v.Object.UID)
					}
				}
			}
		}
		if proposals < 3 {
			t.Errorf("seed %d: %d proposals", seed, proposals)
		}
	}
}
