package decisions

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/config"
)

// world is one cluster, told to both schedulers.
type world struct {
	*testing.T
	seed    uint64
	profile string
	theirs  *upstream
	ours    *scheduler.Engine
	objects map[string]client.Object // by kind, namespace and name
	version int
	stats   *stats
}

type stats struct{ decisions, fits, feasible, errors, rooms, messages, nominated int }

// profiles are arguments under which the plugins are compared; the first has the defaults.
var profiles = []string{
	`{}`,
	`{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 3}, {name: memory, weight: 1}, {name: example.com/gpu, weight: 5}]}}},
		{name: InterPodAffinity, args: {hardPodAffinityWeight: 40}}]}`,
	`{pluginConfig: [{name: NodeResourcesFit, args: {ignoredResources: [example.com/nic], scoringStrategy: {type: RequestedToCapacityRatio, requestedToCapacityRatio: {shape: [{utilization: 0, score: 0}, {utilization: 40, score: 8}, {utilization: 100, score: 3}]}}}},
		{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule}, {maxSkew: 2, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway}]}}]}`,
	`{pluginConfig: [{name: NodeResourcesFit, args: {ignoredResourceGroups: [example.com], scoringStrategy: {type: LeastAllocated, resources: [{name: memory, weight: 2}, {name: example.com/gpu, weight: 1}, {name: ephemeral-storage, weight: 1}]}}},
		{name: NodeResourcesBalancedAllocation, args: {resources: [{name: cpu, weight: 1}, {name: memory, weight: 1}, {name: example.com/gpu, weight: 1}]}},
		{name: InterPodAffinity, args: {hardPodAffinityWeight: 0, ignorePreferredTermsOfExistingPods: true}},
		{name: NodeAffinity, args: {addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: disk, operator: Exists}]}]}, preferredDuringSchedulingIgnoredDuringExecution: [{weight: 7, preference: {matchExpressions: [{key: size, operator: In, values: ["5"]}]}}]}}},
		{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: []}},
		{name: VolumeBinding, args: {shape: [{utilization: 0, score: 10}, {utilization: 100, score: 0}]}}]}`,
	`{plugins: {multiPoint: {disabled: [{name: "*"}], enabled: [{name: PrioritySort}, {name: DefaultBinder}, {name: NodeResourcesFit, weight: 7}, {name: InterPodAffinity, weight: 3}, {name: TaintToleration}, {name: NodeAffinity}, {name: PodTopologySpread}, {name: DefaultPreemption}]}}}`,
}

// limit is a number from the environment.
func limit(t *testing.T, name string, otherwise int) int {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func newWorld(t *testing.T, seed uint64, st *stats) *world {
	t.Helper()
	w := &world{T: t, seed: seed, profile: profiles[seed%uint64(len(profiles))], objects: map[string]client.Object{}, stats: st}
	file := fmt.Appendf(nil, "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles: [%s]\n", w.profile)
	obj, err := runtime.Decode(scheme.Codecs.UniversalDecoder(), file)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Read(file, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.theirs = newUpstream(t, obj.(*schedulerconfig.KubeSchedulerConfiguration).Profiles)
	if w.ours, err = scheduler.NewEngine(scheduler.EngineOptions{Profiles: cfg.Scheduler.Profiles, Seed: seed + 1, AnswerBytes: 600}); err != nil {
		t.Fatal(err)
	}
	return w
}

func keyOf(obj client.Object) string {
	return fmt.Sprintf("%T %s/%s", obj, obj.GetNamespace(), obj.GetName())
}

func (w *world) set(obj client.Object) {
	w.Helper()
	w.version++
	obj.SetResourceVersion(strconv.Itoa(w.version))
	if obj.GetUID() == "" {
		obj.SetUID(types.UID(keyOf(obj)))
	}
	w.objects[keyOf(obj)] = obj
	if err := w.theirs.set(obj); err != nil {
		w.Fatal(err)
	}
	e := w.ours
	switch o := obj.(type) {
	case *corev1.Node:
		e.SetNode(o)
	case *corev1.Namespace:
		e.SetNamespace(o)
	case *corev1.Service:
		e.SetService(o)
	case *corev1.ReplicationController:
		e.SetReplicationController(o)
	case *appsv1.ReplicaSet:
		e.SetReplicaSet(o)
	case *appsv1.StatefulSet:
		e.SetStatefulSet(o)
	case *policyv1.PodDisruptionBudget:
		e.SetPDB(o)
	case *corev1.PersistentVolume:
		e.SetVolume(o)
	case *corev1.PersistentVolumeClaim:
		e.SetClaim(o)
	case *storagev1.StorageClass:
		e.SetStorageClass(o)
	case *storagev1.CSINode:
		e.SetCSINode(o)
	case *storagev1.CSIDriver:
		e.SetCSIDriver(o)
	case *storagev1.CSIStorageCapacity:
		e.SetStorageCapacity(o)
	case *storagev1.VolumeAttachment:
		e.SetVolumeAttachment(o)
	case *corev1.Pod:
		if o.Spec.NodeName != "" {
			e.Assign(scheduler.NewPod(o), o.Spec.NodeName)
		} else if e.Nominated(o.UID) != o.Status.NominatedNodeName {
			e.Nominate(scheduler.NewPod(o), o.Status.NominatedNodeName)
		}
	default:
		w.Fatalf("%T", obj)
	}
}

func (w *world) remove(obj client.Object) {
	w.Helper()
	delete(w.objects, keyOf(obj))
	if err := w.theirs.remove(obj); err != nil {
		w.Fatal(err)
	}
	e := w.ours
	switch o := obj.(type) {
	case *corev1.Node:
		e.DeleteNode(o.Name)
	case *corev1.Namespace:
		e.DeleteNamespace(o.Name)
	case *corev1.Service:
		e.DeleteService(o.Namespace, o.Name)
	case *corev1.ReplicationController:
		e.DeleteReplicationController(o.Namespace, o.Name)
	case *appsv1.ReplicaSet:
		e.DeleteReplicaSet(o.Namespace, o.Name)
	case *appsv1.StatefulSet:
		e.DeleteStatefulSet(o.Namespace, o.Name)
	case *policyv1.PodDisruptionBudget:
		e.DeletePDB(o.Namespace, o.Name)
	case *corev1.PersistentVolume:
		e.DeleteVolume(o.Name)
	case *corev1.PersistentVolumeClaim:
		e.DeleteClaim(o.Namespace, o.Name)
	case *storagev1.StorageClass:
		e.DeleteStorageClass(o.Name)
	case *storagev1.CSINode:
		e.DeleteCSINode(o.Name)
	case *storagev1.CSIDriver:
		e.DeleteCSIDriver(o.Name)
	case *storagev1.CSIStorageCapacity:
		e.DeleteStorageCapacity(o)
	case *storagev1.VolumeAttachment:
		e.DeleteVolumeAttachment(o.Name)
	case *corev1.Pod:
		e.Nominate(scheduler.NewPod(o), "")
		e.Remove(o.UID)
	default:
		w.Fatalf("%T", obj)
	}
}

// ask asks Keelson's engine.
func (w *world) ask(pod *scheduler.Pod) (_ *verdict, d scheduler.Decision, p *scheduler.Preemption) {
	v := &verdict{}
	if r := w.ours.PreEnqueue(pod); r != nil {
		v.Gate = r.Plugin + ": " + strings.Join(r.Reasons, ", ")
		return v, d, nil
	}
	x := w.ours.Explain(pod)
	d = w.ours.Decide(pod)
	v.Nodes = map[string]*nodeVerdict{}
	if d.Fits() {
		if v.Feasible = d.Feasible; x.Nominated {
			v.Nominated = d.Node
		}
	} else {
		v.Rejecters = d.Plugins
		p = w.ours.Preempt(pod, &d)
		v.Message = d.Message()
		v.Kept = p == nil
	}
	if r := x.Rejection; r != nil {
		v.Rejection = newRejection(r.Plugin, r.Reasons, r.Unresolvable)
	}
	for _, n := range x.Nodes {
		nv := &nodeVerdict{}
		v.Nodes[n.Node] = nv
		for i, verdict := range n.Verdicts {
			if r := verdict.Rejection; r != nil {
				nv.Rejection = newRejection(r.Plugin, r.Reasons, r.Unresolvable)
				break
			}
			if n.Feasible && verdict.Weighted != 0 {
				if nv.Scores == nil {
					nv.Scores = map[string]int64{}
				}
				nv.Scores[x.Plugins[i].Name] = verdict.Weighted
			}
		}
		nv.Total = n.Score
		if !n.Feasible {
			nv.Scores = nil
		}
	}
	return v, d, p
}

// compare decides for a pod with both, and returns the decision and how they differ.
func (w *world) compare(obj *corev1.Pod) (d scheduler.Decision, p *scheduler.Preemption, diff string) {
	w.Helper()
	want, mayChoose := w.theirs.ask(w.T, types.NamespacedName{Namespace: obj.Namespace, Name: obj.Name})
	got, d, p := w.ask(scheduler.NewPod(obj))
	w.stats.decisions++
	if want.Error != "" {
		w.stats.errors++
		return d, p, "" // it isn't decided at all
	}
	if got.Gate != "" || want.Gate != "" {
		return d, p, gocmp.Diff(want.Gate, got.Gate)
	}
	if d.Fits() {
		w.stats.fits++
		w.stats.feasible += d.Feasible
	}
	if want.Nominated != "" {
		w.stats.nominated++
	}
	switch removing, adding := w.miscounts(obj); {
	case adding:
		w.stats.errors++
		return d, p, ""
	case removing:
		want.Rooms, want.Kept, got.Kept = nil, false, false
		want.Message, _, _ = strings.Cut(want.Message, " preemption: ")
		got.Message, _, _ = strings.Cut(got.Message, " preemption: ")
		p = nil
	}
	if d.Fits() && want.Nominated == "" && len(want.Nodes) > 0 {
		for name, n := range want.Nodes {
			if n.Rejection == nil && want.Nodes[d.Node] != nil && n.Total > want.Nodes[d.Node].Total {
				diff += fmt.Sprintf("chose %s, %s has more\n", d.Node, name)
			}
		}
	}
	switch {
	case want.Rooms != nil && (p == nil || p.Node == ""):
		diff += fmt.Sprintf("no proposal (%+v), want one of %+v\n", p, want.Rooms)
	case want.Rooms != nil:
		w.stats.rooms++
		r := room{Violations: p.PDBViolations}
		for _, victim := range p.Victims {
			r.Victims = append(r.Victims, victim.Object.Name)
		}
		if d := gocmp.Diff(want.Rooms[p.Node], r); d != "" {
			diff += "victims on " + p.Node + " " + d
		} else if !mayChoose(p.Node) {
			diff += fmt.Sprintf("proposes %s, of %+v\n", p.Node, want.Rooms)
		}
	case p != nil && p.Node != "":
		diff += fmt.Sprintf("proposal %+v, want none\n", p)
	}
	if got.Message != "" {
		w.stats.messages++
	}
	want.Rooms = nil
	for _, v := range []*verdict{want, got} {
		if v.Rejection != nil {
			v.Nodes = nil
		}
	}
	return d, p, diff + gocmp.Diff(want, got)
}

// miscounts reports that kube-scheduler takes pods off the counts of a pod's topology spread constraints, to see whether their going would help, that it
// hasn't counted: those that are being deleted, and those of a selector of all pods. Its victims then don't help, and Keelson's are others. Of nominated pods
// it adds the latter.
func (w *world) miscounts(pod *corev1.Pod) (removing, adding bool) {
	terminating, nominated := false, false
	for _, o := range w.objects {
		if p, ok := o.(*corev1.Pod); ok {
			terminating = terminating || p.DeletionTimestamp != nil
			nominated = nominated || p.Status.NominatedNodeName != ""
		}
	}
	hard := len(pod.Spec.TopologySpreadConstraints) == 0 && strings.Contains(w.profile, "DoNotSchedule")
	all := false
	for _, c := range pod.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable == corev1.DoNotSchedule {
			hard = true
			all = all || c.LabelSelector != nil && len(c.LabelSelector.MatchLabels)+len(c.LabelSelector.MatchExpressions) == 0
		}
	}
	return hard && terminating || all, all && nominated
}

// run makes random changes and asks in between.
func (w *world) run(steps int) (diff string, pod *corev1.Pod) {
	g := &generator{Rand: rand.New(rand.NewPCG(w.seed, 17))}
	for _, ns := range []string{"d", "e"} {
		w.set(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
	}
	waiting := map[string]*corev1.Pod{}
	any := func(of map[string]client.Object, is func(client.Object) bool) client.Object {
		var keys []string
		for key, o := range of {
			if is(o) {
				keys = append(keys, key)
			}
		}
		if len(keys) == 0 {
			return nil
		}
		slices.Sort(keys)
		return of[keys[g.IntN(len(keys))]]
	}
	assigned := func(o client.Object) bool { p, ok := o.(*corev1.Pod); return ok && p.Spec.NodeName != "" }
	for range 3 {
		w.set(g.node())
	}
	for range steps {
		switch g.IntN(24) {
		case 0, 1, 2:
			w.set(g.node())
		case 3:
			if g.once(3) {
				if o := any(w.objects, func(o client.Object) bool { _, ok := o.(*corev1.Node); return ok }); o != nil {
					w.remove(o)
				}
			}
		case 4:
			if o := any(w.objects, assigned); o != nil {
				w.remove(o)
			}
		case 5:
			if o := any(w.objects, assigned); o != nil {
				p := merged(o.(*corev1.Pod))
				p.Labels = g.labels()
				if g.once(2) {
					p.DeletionTimestamp = &metav1.Time{Time: time.Unix(5000, 0)}
					if g.once(2) {
						p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler}}
					}
				}
				w.set(p)
			}
		case 6:
			w.set(g.namespace())
		case 7:
			o := g.owner()
			if g.once(4) {
				w.remove(o)
			} else {
				w.set(o)
			}
		case 8:
			b := g.budget()
			if g.once(4) {
				w.remove(b)
			} else {
				w.set(b)
			}
		case 9, 10, 11, 12:
			o := g.storage()
			if g.once(8) {
				w.remove(o)
			} else {
				w.set(o)
			}
		default:
			var obj *corev1.Pod
			if len(waiting) > 0 && g.once(3) {
				obj = waiting[slices.Sorted(maps.Keys(waiting))[g.IntN(len(waiting))]]
			} else {
				obj = g.pod()
				w.set(obj)
			}
			d, p, diff := w.compare(obj)
			if diff != "" {
				return diff, obj
			}
			next := obj.DeepCopy()
			switch {
			case d.Fits():
				delete(waiting, obj.Name)
				next.Spec.NodeName, next.Status.NominatedNodeName = d.Node, ""
				next.Status.StartTime = &metav1.Time{Time: time.Unix(int64(2000+w.version*7%50*10000+w.version), 0)}
				w.set(next)
			case p != nil && p.Node != obj.Status.NominatedNodeName:
				next.Status.NominatedNodeName = p.Node
				w.set(next)
				waiting[obj.Name] = next
				if !g.once(3) {
					for _, v := range p.Victims {
						w.remove(v.Object)
					}
				}
			default:
				waiting[obj.Name] = obj
			}
			if len(waiting) > 8 {
				name := slices.Sorted(maps.Keys(waiting))[g.IntN(len(waiting))]
				w.remove(waiting[name])
				delete(waiting, name)
			}
		}
	}
	return "", nil
}

// TestDecisions compares the engine with kube-scheduler's own code on random clusters, told of random changes: of each pod each node's verdict with
// the plugin and its reasons, each plugin's score, the message, and what preemption proposes. KEELSON_DECISIONS is how many to compare, KEELSON_SEED the
// first seed.
func TestDecisions(t *testing.T) {
	want := limit(t, "KEELSON_DECISIONS", 12000)
	var st stats
	for seed := uint64(limit(t, "KEELSON_SEED", 0)); st.decisions < want; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, &st)
			diff, pod := w.run(120)
			if diff == "" {
				return
			}
			objects, least := minimal(t, seed, w.objects, keyOf(pod), diff)
			if objects == nil {
				t.Fatalf("seed %d: kube-scheduler says (-), Keelson (+) of %s, not so if told at once:\n%s\nprofile %s\n%s", seed, keyOf(pod), diff, w.profile, dump(t, w.objects))
			}
			t.Errorf("seed %d: kube-scheduler says (-), Keelson (+) of %s:\n%s\nprofile %s\n%s", seed, keyOf(pod), least, w.profile, dump(t, objects))
		})
		if t.Failed() {
			break
		}
	}
	t.Logf("%+v", st)
}
