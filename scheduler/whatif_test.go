package scheduler_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// reserver reserves or gives back a pod's volumes when it is asked about it, for want of a Scheduler.
type reserver struct{}

func (reserver) Name() string { return "Reserver" }

func (reserver) Prepare(pod *scheduler.Pod, view *scheduler.View) (j scheduler.Judgement, r *scheduler.Rejection) {
	name, ok := pod.Object.Annotations["reserve"]
	switch n := view.Node(name); {
	case !ok:
		return j, nil
	case n == nil:
		plugins.VolumeBinding{}.Unreserve(pod, name, view)
	default:
		if err := (plugins.VolumeBinding{}).Reserve(pod, n, view); err != nil {
			return j, scheduler.Reject(err.Error())
		}
	}
	return j, scheduler.Reject("reserved")
}

// side is an engine that others were forked from, or it from them, and what it was told since there was the first.
type side struct {
	*testing.T
	rand         *rand.Rand
	engine, twin *scheduler.Engine // the twin was told all itself
	told         []func(*scheduler.Engine)
	made         int
	name         string
}

func newSideEngine(t *testing.T) *scheduler.Engine {
	t.Helper()
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: append(scheduler.Profile{{Plugin: reserver{}}}, plugins.Default()...)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (s *side) fork() *side {
	f := &side{T: s.T, rand: rand.New(rand.NewPCG(s.rand.Uint64(), 1)), engine: s.engine.Fork(), twin: newSideEngine(s.T), told: slices.Clip(s.told), made: s.made, name: fmt.Sprintf("%s.%d", s.name, s.rand.IntN(100))}
	for _, tell := range f.told {
		tell(f.twin)
	}
	return f
}

func (s *side) pod(i int) *corev1.Pod {
	r := s.rand
	p := randomPod(r, i)
	addPodRules(r, p)
	priority := int32(r.IntN(3)) * 10
	p.Spec.Priority = &priority
	for k := range r.IntN(3) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: fmt.Sprint("v", k), VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: fmt.Sprint("c", k*7+r.IntN(7))},
		}})
	}
	if group := pick(r, "", "", "g1", "g2"); group != "" {
		p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: &group}
	}
	return p
}

// change makes a random change to both engines.
func (s *side) change() {
	r, h := s.rand, &volumeHistory{rand: s.rand, versions: s.made, zonal: s.rand.IntN(2) == 0}
	s.made++
	node, version := fmt.Sprint("n", r.IntN(8)), fmt.Sprint(s.made)
	uid := types.UID(fmt.Sprint("u", r.IntN(s.made)))
	var tell func(e *scheduler.Engine)
	switch r.IntN(22) {
	case 0, 1, 2:
		n := randomNode(r)
		n.Labels[zoneKey] = pick(r, "a", "b")
		tell = func(e *scheduler.Engine) { e.SetNode(n) }
	case 3:
		if r.IntN(2) == 0 {
			tell = func(e *scheduler.Engine) { e.DeleteNode(node) }
		}
	case 4, 5, 6:
		p := s.pod(s.made)
		tell = func(e *scheduler.Engine) { e.Assign(scheduler.NewPod(p), node) }
	case 7:
		tell = func(e *scheduler.Engine) { e.Remove(uid) }
	case 8:
		p := s.pod(s.made)
		where := pick(r, node, "")
		tell = func(e *scheduler.Engine) { e.Nominate(scheduler.NewPod(p), where) }
	case 9:
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: pick(r, "d", "e"), Labels: map[string]string{"team": pick(r, "x", "y")}}}
		tell = func(e *scheduler.Engine) { e.SetNamespace(ns) }
	case 10:
		o := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: pick(r, "s1", "s2")}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": pick(r, "a", "b")}}}
		if tell = func(e *scheduler.Engine) { e.SetService(o) }; r.IntN(3) == 0 {
			tell = func(e *scheduler.Engine) { e.DeleteService("d", o.Name) }
		}
	case 11:
		o := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: pick(r, "r1", "r2")}}
		o.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick(r, "a", "b")}}
		tell = func(e *scheduler.Engine) { e.SetReplicaSet(o) }
	case 12:
		b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: pick(r, "b1", "b2")}}
		b.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick(r, "a", "b")}}
		b.Status.DisruptionsAllowed = int32(r.IntN(2))
		tell = func(e *scheduler.Engine) { e.SetPDB(b) }
	case 13:
		g := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: pick(r, "g1", "g2")}}
		g.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: int32(1 + r.IntN(3))}
		tell = func(e *scheduler.Engine) { e.SetPodGroup(g) }
	case 14, 15:
		pv := h.volume(fmt.Sprint("v", r.IntN(14)))
		pv.ResourceVersion = version
		if tell = func(e *scheduler.Engine) { e.SetVolume(pv) }; r.IntN(5) == 0 {
			tell = func(e *scheduler.Engine) { e.DeleteVolume(pv.Name) }
		}
	case 16, 17:
		c := h.claim(fmt.Sprint("c", r.IntN(14)))
		c.ResourceVersion = version
		if tell = func(e *scheduler.Engine) { e.SetClaim(c) }; r.IntN(6) == 0 {
			tell = func(e *scheduler.Engine) { e.DeleteClaim("d", c.Name) }
		}
	case 18:
		mode := storagev1.VolumeBindingWaitForFirstConsumer
		c := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: pick(r, "late", "made", "told")}, VolumeBindingMode: &mode}
		c.Provisioner = pick(r, "d1", "d2", "kubernetes.io/no-provisioner")
		if tell = func(e *scheduler.Engine) { e.SetStorageClass(c) }; r.IntN(6) == 0 {
			tell = func(e *scheduler.Engine) { e.DeleteStorageClass(c.Name) }
		}
	case 19:
		count := int32(r.IntN(3))
		n := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: node}}
		n.Spec.Drivers = []storagev1.CSINodeDriver{{Name: pick(r, "d1", "d2"), Allocatable: &storagev1.VolumeNodeResources{Count: &count}}}
		if tell = func(e *scheduler.Engine) { e.SetCSINode(n) }; r.IntN(4) == 0 {
			tell = func(e *scheduler.Engine) { e.DeleteCSINode(node) }
		}
	case 20:
		volume := fmt.Sprint("v", r.IntN(14))
		a := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("a", r.IntN(4))}}
		a.Spec = storagev1.VolumeAttachmentSpec{Attacher: pick(r, "d1", "d2"), NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &volume}}
		if tell = func(e *scheduler.Engine) { e.SetVolumeAttachment(a) }; r.IntN(3) == 0 {
			tell = func(e *scheduler.Engine) { e.DeleteVolumeAttachment(a.Name) }
		}
	case 21:
		yes, room := true, gib(1+r.IntN(5))
		d := &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "d2"}, Spec: storagev1.CSIDriverSpec{StorageCapacity: &yes}}
		k := &storagev1.CSIStorageCapacity{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: fmt.Sprint("k", r.IntN(3))}, StorageClassName: "told", Capacity: &room}
		k.NodeTopology = &metav1.LabelSelector{MatchLabels: map[string]string{pick(r, zoneKey, corev1.LabelHostname): pick(r, "a", node)}}
		tell = func(e *scheduler.Engine) { e.SetCSIDriver(d); e.SetStorageCapacity(k) }
	}
	if tell == nil {
		return
	}
	s.told = append(s.told, tell)
	tell(s.engine)
	tell(s.twin)
}

// reserve has both assume a pod's volumes on a node, or give them back.
func (s *side) reserve() {
	p := s.pod(s.made)
	p.Spec.SchedulingGroup = nil
	p.Annotations = map[string]string{"reserve": pick(s.rand, "nowhere", fmt.Sprint("n", s.rand.IntN(8)))}
	tell := func(e *scheduler.Engine) { e.Decide(scheduler.NewPod(p)) }
	s.told = append(s.told, tell)
	tell(s.engine)
	tell(s.twin)
}

// ask has both decide, and compares all that they say.
func (s *side) ask(shared []*scheduler.Pod) {
	pod := scheduler.NewPod(s.pod(-1))
	if s.rand.IntN(2) == 0 {
		pod = shared[s.rand.IntN(len(shared))]
	}
	type answer struct {
		Rejection     *scheduler.Rejection
		Nodes         map[string]scheduler.NodeExplanation
		Feasible      int
		Score         int64
		Message       string
		Room, Victims string
		Plugins       []string
	}
	of := func(e *scheduler.Engine) (a answer) {
		x, d := e.Explain(pod), e.Decide(pod)
		a.Rejection, a.Feasible, a.Score, a.Plugins = x.Rejection, d.Feasible, d.Score, d.Plugins
		a.Nodes = map[string]scheduler.NodeExplanation{}
		for _, n := range x.Nodes {
			a.Nodes[n.Node] = n
		}
		if !d.Fits() {
			if p := e.Preempt(pod, &d); p != nil {
				var victims []string
				for _, v := range p.Victims {
					victims = append(victims, v.Object.Name)
				}
				a.Room, a.Victims = p.Node, strings.Join(victims, " ")
			}
			a.Message = d.Message()
		}
		return a
	}
	if diff := gocmp.Diff(of(s.twin), of(s.engine)); diff != "" {
		s.Errorf("%s after %d changes: %s: an engine that was told all itself says (-), one of several (+):\n%s", s.name, len(s.told), pod.Object.Name, diff)
	}
}

// run changes and asks, and lets forks do the same at the same time.
func (s *side) run(steps, depth int, shared []*scheduler.Pod, running *sync.WaitGroup) {
	for range steps {
		if s.Failed() {
			return
		}
		switch s.rand.IntN(12) {
		case 0, 1, 2:
			s.ask(shared)
		case 3:
			s.reserve()
		case 4:
			if depth > 0 {
				depth--
				f, less := s.fork(), depth
				running.Go(func() { f.run(steps, less, shared, running) })
			}
		default:
			s.change()
		}
	}
	s.ask(shared)
}

// TestForksApart forks engines, and forks of forks, at any time, and has all go on at once with the same Pods. Each must say what an engine says that was told
// all of it itself, and shares nothing with others.
func TestForksApart(t *testing.T) {
	for seed := range seeds(t, 60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := &side{T: t, rand: rand.New(rand.NewPCG(seed, 3)), engine: newSideEngine(t), twin: newSideEngine(t), name: "first"}
			var shared []*scheduler.Pod
			for i := range 10 {
				shared = append(shared, scheduler.NewPod(s.pod(-2-i)))
			}
			for range 60 {
				s.change()
			}
			var running sync.WaitGroup
			s.run(60, 3, shared, &running)
			running.Wait()
		})
	}
}

// BenchmarkFork is a fork of an engine with ten pods a node, alone; and with what it takes the two to go on: each decides for a pod and puts it where it fits.
func BenchmarkFork(b *testing.B) {
	for _, nodes := range []int{1000, 5000, 50000} {
		e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: plugins.Default()})
		if err != nil {
			b.Fatal(err)
		}
		for i := range nodes {
			n := testNode(fmt.Sprint("n", i), fmt.Sprint("z", i%3))
			n.Status.Allocatable = quantities("64", "256Gi", "pods", "110")
			e.SetNode(n)
			for k := range 10 {
				p := testPod(fmt.Sprint("p", i, "-", k), fmt.Sprint("app", k), weighted(1, term("web", zoneKey)))
				p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: quantities("1m", "1Mi")}}}
				e.Assign(scheduler.NewPod(p), n.Name)
			}
		}
		next := testPod("next", "app0")
		next.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: quantities("1m", "1Mi")}}}
		e.Decide(scheduler.NewPod(next))
		b.Run(fmt.Sprintf("alone/nodes=%d", nodes), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				e.Fork()
			}
		})
		b.Run(fmt.Sprintf("used/nodes=%d", nodes), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f := e.Fork()
				f.Schedule(scheduler.NewPod(next))
				e.Schedule(scheduler.NewPod(next))
				e.Remove(next.UID)
			}
		})
	}
}
