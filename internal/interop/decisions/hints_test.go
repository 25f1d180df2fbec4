package decisions

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/scheduler/backend/queue"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/scheduler"
)

func with[T any](o *T, mods ...func(*T)) *T {
	for _, mod := range mods {
		mod(o)
	}
	return o
}

func hintNode(name string, mods ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name, corev1.LabelTopologyZone: "z"}}}
	n.Status.Allocatable = quantities("cpu", "2", "memory", "4Gi", "pods", "10")
	return with(n, mods...)
}

func hintPod(name string, mods ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name), Labels: map[string]string{"app": name}}}
	p.Spec.SchedulerName = corev1.DefaultSchedulerName
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
	return with(p, mods...)
}

func cpu(q string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = quantities("cpu", q) }
}

func on(node string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeName = node }
}

func labelled(l map[string]string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels = l }
}

func hostPort(p *corev1.Pod) {
	p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80, Protocol: corev1.ProtocolTCP}}
}

func selecting(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{key: value} }
}

func podTerm(app string) []corev1.PodAffinityTerm {
	return []corev1.PodAffinityTerm{{LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}, TopologyKey: corev1.LabelTopologyZone}}
}

func nearTo(app string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: podTerm(app)}}
	}
}

func awayFrom(app string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: podTerm(app)}}
	}
}

func spreading(p *corev1.Pod) {
	p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.DoNotSchedule,
		LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "p"}},
	}}
}

func using(claim string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}}
	}
}

func hintClaim(name, class, volume string) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("claim " + name)}}
	c.Spec.StorageClassName, c.Spec.VolumeName = &class, volume
	c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	c.Spec.Resources.Requests = quantities("storage", "1Gi")
	if c.Status.Phase = corev1.ClaimPending; volume != "" {
		c.Status.Phase = corev1.ClaimBound
		c.Annotations = map[string]string{"pv.kubernetes.io/bind-completed": "yes"}
	}
	return c
}

func hintVolume(name, class, zone string) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelTopologyZone: zone}}}
	v.Spec.StorageClassName = class
	v.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	v.Spec.Capacity = quantities("storage", "1Gi")
	v.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: name}
	v.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeFilesystem)
	v.Status.Phase = corev1.VolumeAvailable
	return v
}

func hintClass(name string, mode storagev1.VolumeBindingMode) *storagev1.StorageClass {
	return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: &mode}
}

func csiLimit(node string, n int32) *storagev1.CSINode {
	return &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: storagev1.CSINodeSpec{
		Drivers: []storagev1.CSINodeDriver{{Name: "d", NodeID: node, Allocatable: &storagev1.VolumeNodeResources{Count: ptr.To(n)}}},
	}}
}

// event is an object that is set, or removed.
type event struct {
	name string
	obj  client.Object
	gone bool
	// less says why Keelson may leave the pod where it is though kube-scheduler tries it again.
	less string
	// more says why it tries a pod again that kube-scheduler leaves where it is.
	more string
}

// rejected is a pod that fits nowhere among the objects.
type rejected struct {
	name    string
	objects []client.Object
	pod     *corev1.Pod
	events  []event
}

// hints are pods that don't fit, with what may happen then.
var hints = []rejected{
	{"NodeResourcesFit", []client.Object{hintNode("a"), hintPod("big", on("a"), cpu("2"))}, hintPod("p", cpu("1")), []event{
		{name: "node added", obj: hintNode("b")},
		{name: "node too small added", obj: hintNode("b", func(n *corev1.Node) { n.Status.Allocatable = quantities("cpu", "500m", "memory", "1Gi", "pods", "10") })},
		{name: "allocatable grows", obj: hintNode("a", func(n *corev1.Node) { n.Status.Allocatable = quantities("cpu", "4", "memory", "4Gi", "pods", "10") })},
		{name: "labels", obj: hintNode("a", func(n *corev1.Node) { n.Labels["x"] = "y" })},
		{name: "annotations", obj: hintNode("a", func(n *corev1.Node) { n.Annotations = map[string]string{"x": "y"} })},
		{name: "pod deleted", obj: hintPod("big", on("a"), cpu("2")), gone: true},
		{name: "pod scaled down", obj: hintPod("big", on("a"), cpu("500m"))},
		{name: "pod labels", obj: hintPod("big", on("a"), cpu("2"), labelled(map[string]string{"x": "y"}))},
		{name: "pod added", obj: hintPod("more", on("a"))},
		{name: "claim added", obj: hintClaim("c", "x", "")},
		{name: "csinode", obj: csiLimit("a", 3)},
		{name: "namespace", obj: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "n"}}},
	}},
	{"NodeAffinity", []client.Object{hintNode("a"), hintPod("o", on("a"))}, hintPod("p", selecting("disk", "ssd")), []event{
		{name: "matching node added", obj: hintNode("b", func(n *corev1.Node) { n.Labels["disk"] = "ssd" })},
		{name: "other node added", obj: hintNode("b")},
		{name: "label set", obj: hintNode("a", func(n *corev1.Node) { n.Labels["disk"] = "ssd" })},
		{name: "other label set", obj: hintNode("a", func(n *corev1.Node) { n.Labels["disk"] = "hdd" })},
		{name: "allocatable", obj: hintNode("a", func(n *corev1.Node) { n.Status.Allocatable = quantities("cpu", "9", "pods", "10") })},
		{name: "pod deleted", obj: hintPod("o", on("a")), gone: true},
	}},
	{"TaintToleration", []client.Object{hintNode("a", tainted("k"))}, hintPod("p"), []event{
		{name: "taint removed", obj: hintNode("a")},
		{name: "other taint", obj: hintNode("a", tainted("l"))},
		{name: "node added", obj: hintNode("b")},
		{name: "tainted node added", obj: hintNode("b", tainted("k"))},
		{name: "labels", obj: hintNode("a", tainted("k"), func(n *corev1.Node) { n.Labels["x"] = "y" })},
	}},
	{"NodeUnschedulable", []client.Object{hintNode("a", cordoned)}, hintPod("p"), []event{
		{name: "uncordoned", obj: hintNode("a")},
		{name: "node added", obj: hintNode("b")},
		{name: "cordoned node added", obj: hintNode("b", cordoned)},
		{name: "labels", obj: hintNode("a", cordoned, func(n *corev1.Node) { n.Labels["x"] = "y" })},
	}},
	{"NodePorts", []client.Object{hintNode("a"), hintPod("o", on("a"), hostPort), hintPod("idle", on("a"))}, hintPod("p", hostPort), []event{
		{name: "holder deleted", obj: hintPod("o", on("a"), hostPort), gone: true},
		{name: "other deleted", obj: hintPod("idle", on("a")), gone: true},
		{name: "node added", obj: hintNode("b")},
		{name: "labels", obj: hintNode("a", func(n *corev1.Node) { n.Labels["x"] = "y" })},
	}},
	{"InterPodAffinity", []client.Object{hintNode("a"), hintPod("o", on("a"))}, hintPod("p", nearTo("db")), []event{
		{name: "matching pod added", obj: hintPod("db", on("a"))},
		{name: "other pod added", obj: hintPod("x", on("a"))},
		{name: "labels match now", obj: hintPod("o", on("a"), labelled(map[string]string{"app": "db"}))},
		{name: "pod deleted", obj: hintPod("o", on("a")), gone: true},
		{name: "node added", obj: hintNode("b")},
		{name: "zone changed", obj: hintNode("a", func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = "y" })},
		{name: "other label", obj: hintNode("a", func(n *corev1.Node) { n.Labels["x"] = "y" })},
	}},
	{"anti-affinity", []client.Object{hintNode("a"), hintPod("o", on("a")), hintPod("x", on("a"))}, hintPod("p", awayFrom("o")), []event{
		{name: "the pod deleted", obj: hintPod("o", on("a")), gone: true},
		{name: "another deleted", obj: hintPod("x", on("a")), gone: true},
		{name: "labels differ now", obj: hintPod("o", on("a"), labelled(map[string]string{"app": "z"}))},
		{name: "pod added", obj: hintPod("y", on("a"))},
		{name: "node added", obj: hintNode("b", func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = "y" })},
		{name: "zone lost", obj: hintNode("a", func(n *corev1.Node) { delete(n.Labels, corev1.LabelTopologyZone) })},
	}},
	{"PodTopologySpread", []client.Object{hintNode("a"), hintNode("full", tainted("k")), hintPod("o", on("a"), labelled(map[string]string{"app": "p"})), hintPod("x", on("a"))}, hintPod("p", spreading), []event{
		{name: "counted pod deleted", obj: hintPod("o", on("a"), labelled(map[string]string{"app": "p"})), gone: true},
		{name: "other pod deleted", obj: hintPod("x", on("a")), gone: true},
		{name: "counted pod added", obj: hintPod("q", on("a"), labelled(map[string]string{"app": "p"}))},
		{name: "other pod added", obj: hintPod("y", on("a"))},
		{name: "pod counts no more", obj: hintPod("o", on("a"), labelled(map[string]string{"app": "z"}))},
		{name: "node added", obj: hintNode("b")},
		{name: "node without the label", obj: hintNode("b", func(n *corev1.Node) { n.Labels = nil })},
		{name: "node deleted", obj: hintNode("full", tainted("k")), gone: true},
		{name: "taint removed", obj: hintNode("full")},
	}},
	{"missing claim", []client.Object{hintNode("a"), hintClass("x", storagev1.VolumeBindingWaitForFirstConsumer)}, hintPod("p", using("c")), []event{
		{name: "claim added", obj: hintClaim("c", "x", "")},
		{name: "other claim added", obj: hintClaim("d", "x", "")},
		{name: "volume added", obj: hintVolume("v", "x", "z")},
		{name: "node added", obj: hintNode("b")},
	}},
	{"VolumeBinding", []client.Object{hintNode("a"), hintClass("x", storagev1.VolumeBindingWaitForFirstConsumer), hintClaim("c", "x", "")}, hintPod("p", using("c")), []event{
		{name: "volume added", obj: hintVolume("v", "x", "z")},
		{name: "claim bound", obj: hintClaim("c", "x", "v")},
		{name: "other claim", obj: hintClaim("d", "x", "")},
		{name: "class added", obj: hintClass("y", storagev1.VolumeBindingImmediate)},
		{name: "csinode", obj: csiLimit("a", 3), less: "the plugin doesn't look at CSINodes"},
		{name: "node added", obj: hintNode("b")},
	}},
	{"VolumeZone", []client.Object{hintNode("a"), hintClass("x", storagev1.VolumeBindingImmediate), hintVolume("v", "x", "far"), hintClaim("c", "x", "v")}, hintPod("p", using("c")), []event{
		{name: "node there added", obj: hintNode("b", func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = "far" })},
		{name: "zone of the node", obj: hintNode("a", func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = "far" })},
		{name: "zone of the volume", obj: hintVolume("v", "x", "z")},
		{name: "other claim", obj: hintClaim("d", "x", "")},
		{name: "class added", obj: hintClass("y", storagev1.VolumeBindingImmediate)},
	}},
	{"NodeVolumeLimits", []client.Object{
		hintNode("a"), csiLimit("a", 1), hintClass("x", storagev1.VolumeBindingImmediate), hintVolume("v", "x", "z"), hintVolume("w", "x", "z"),
		hintClaim("c", "x", "v"), hintClaim("d", "x", "w"), hintPod("o", on("a"), using("d")), hintPod("idle", on("a")),
	}, hintPod("p", using("c")), []event{
		{name: "limit raised", obj: csiLimit("a", 2)},
		{name: "limit lowered", obj: csiLimit("a", 0)},
		{name: "user deleted", obj: hintPod("o", on("a"), using("d")), gone: true},
		{name: "other deleted", obj: hintPod("idle", on("a")), gone: true},
		{name: "node added", obj: hintNode("b")},
	}},
}

func tainted(key string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: key, Effect: corev1.TaintEffectNoSchedule}} }
}

func cordoned(n *corev1.Node) {
	n.Spec.Unschedulable = true
	n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}}
}

// TestHints has both queues put a rejected pod aside, and something happen: both wake the pod, or both leave it where it is.
func TestHints(t *testing.T) {
	for _, c := range slices.Concat(hints, moreHints) {
		for _, ev := range c.events {
			t.Run(c.name+"/"+ev.name, func(t *testing.T) {
				w := newWorld(t, 0, &stats{})
				for _, o := range c.objects {
					w.set(o.DeepCopyObject().(client.Object))
				}
				pod := c.pod.DeepCopy()
				w.set(pod)
				v, _ := w.theirs.ask(t, client.ObjectKeyFromObject(pod))
				if len(v.Rejecters) == 0 {
					t.Fatalf("nobody rejects the pod: %+v", v)
				}
				theirs := w.theirs.sched.SchedulingQueue
				entity, err := theirs.Pop(klog.Logger{})
				if err != nil {
					t.Fatal(err)
				}
				info := entity.(*framework.QueuedPodInfo)
				info.UnschedulablePlugins.Insert(v.Rejecters...)
				if err := theirs.AddUnschedulablePodIfNotPresent(klog.Logger{}, info, theirs.SchedulingCycle()); err != nil {
					t.Fatal(err)
				}
				ours, now := scheduler.NewQueue(w.ours), time.Unix(1000, 0)
				ours.Add(scheduler.NewPod(pod), now)
				a, _ := ours.Pop(now)
				ours.Fail(a, v.Rejecters, now)

				if self, ok := ev.obj.(*corev1.Pod); ok && self.UID == pod.UID {
					w.set(self.DeepCopy())
					ours.Add(scheduler.NewPod(self), now)
				} else if change := w.happen(ev); change != (scheduler.ClusterChange{}) {
					ours.Changed(change, now)
				}
				_, woken := ours.Pop(now)
				want := !slices.ContainsFunc(theirs.UnschedulablePods(), func(p *corev1.Pod) bool { return p.Name == pod.Name })
				switch {
				case woken && !want && ev.more == "":
					t.Errorf("rejected by %v: Keelson tries it again, kube-scheduler doesn't", v.Rejecters)
				case want && !woken && ev.less == "":
					t.Errorf("rejected by %v: kube-scheduler tries it again, Keelson doesn't", v.Rejecters)
				case want == woken && ev.less+ev.more != "":
					t.Errorf("rejected by %v: both do the same, though %s", v.Rejecters, ev.less+ev.more)
				}
			})
		}
	}
}

// happen tells both schedulers, and returns what changed for Keelson.
func (w *world) happen(ev event) (c scheduler.ClusterChange) {
	w.Helper()
	obj := ev.obj.DeepCopyObject().(client.Object)
	old := w.objects[keyOf(obj)]
	switch o := obj.(type) {
	case *corev1.Node:
		if ev.gone {
			c = w.ours.DeleteNode(o.Name)
		} else {
			c = w.ours.SetNode(o)
		}
	case *corev1.Namespace:
		c = w.ours.SetNamespace(o)
	case *corev1.PersistentVolume:
		c = w.ours.SetVolume(o)
	case *corev1.PersistentVolumeClaim:
		c = w.ours.SetClaim(o)
	case *storagev1.StorageClass:
		c = w.ours.SetStorageClass(o)
	case *storagev1.CSINode:
		c = w.ours.SetCSINode(o)
	case *storagev1.CSIDriver:
		if ev.gone {
			c = w.ours.DeleteCSIDriver(o.Name)
		} else {
			c = w.ours.SetCSIDriver(o)
		}
	case *storagev1.CSIStorageCapacity:
		if ev.gone {
			w.ours.DeleteStorageCapacity(o)
		} else {
			c = w.ours.SetStorageCapacity(o)
		}
	case *storagev1.VolumeAttachment:
		if ev.gone {
			c = w.ours.DeleteVolumeAttachment(o.Name)
		} else {
			w.ours.SetVolumeAttachment(o)
		}
	case *corev1.Pod:
		c = w.podHappens(o, old, ev.gone)
	default:
		w.Fatalf("%T", obj)
	}
	if old != nil {
		obj.SetUID(old.GetUID())
	}
	if ev.gone {
		w.remove(obj)
	} else {
		w.set(obj)
	}
	return c
}

// podHappens is what a Scheduler makes of an assigned pod.
func (w *world) podHappens(o *corev1.Pod, old client.Object, gone bool) scheduler.ClusterChange {
	was := w.ours.Remove(o.UID)
	if gone {
		return scheduler.ClusterChange{FreedPod: was}
	}
	now := scheduler.NewPod(o)
	w.ours.Assign(now, o.Spec.NodeName)
	switch {
	case old == nil:
		return scheduler.ClusterChange{AssignedPod: now}
	case !was.Requests.Equal(&now.Requests):
		return scheduler.ClusterChange{FreedPod: was}
	}
	return scheduler.ClusterChange{AssignedPod: now, OldPod: was}
}

// TestBackoff has attempts fail: both queues wait as long before the next.
func TestBackoff(t *testing.T) {
	w := newWorld(t, 0, &stats{})
	pod := hintPod("p")
	w.set(pod)
	theirs := w.theirs.sched.SchedulingQueue
	ours, now := scheduler.NewQueue(w.ours), time.Unix(1000, 0)
	ours.Add(scheduler.NewPod(pod), now)
	for i, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second, 10 * time.Second} {
		entity, err := theirs.Pop(klog.Logger{})
		if err != nil {
			t.Fatal(err)
		}
		info := entity.(*framework.QueuedPodInfo)
		if err := theirs.AddUnschedulablePodIfNotPresent(klog.Logger{}, info, theirs.SchedulingCycle()); err != nil {
			t.Fatal(err)
		}
		// It counts whole seconds of the clock.
		if got := (info.BackoffExpiration.Sub(info.Timestamp) + time.Second - 1).Truncate(time.Second); got != want {
			t.Errorf("attempt %d: kube-scheduler waits %v, want %v", i+1, got, want)
		}
		theirs.Activate(klog.Logger{}, map[string]*corev1.Pod{"default/p": info.Pod})
		a, ok := ours.Pop(now)
		if !ok {
			t.Fatalf("attempt %d: nothing to try", i+1)
		}
		ours.Retry(a, now)
		at, _ := ours.Ready(now)
		if got := at.Sub(now); got != want {
			t.Errorf("attempt %d: Keelson waits %v, want %v", i+1, got, want)
		}
		if _, early := ours.Pop(at.Add(-time.Millisecond)); early {
			t.Errorf("attempt %d: tried before its time", i+1)
		}
		now = at
	}
}

// TestFlush leaves a rejected pod alone for as long as kube-scheduler does.
func TestFlush(t *testing.T) {
	w := newWorld(t, 0, &stats{})
	ours, now := scheduler.NewQueue(w.ours), time.Unix(1000, 0)
	ours.Add(scheduler.NewPod(hintPod("p")), now)
	a, _ := ours.Pop(now)
	ours.Fail(a, []string{"NodeResourcesFit"}, now)
	end := now.Add(queue.DefaultPodMaxInUnschedulablePodsDuration)
	ours.Flush(end.Add(-time.Second))
	if _, early := ours.Pop(end); early {
		t.Error("flushed too early")
	}
	ours.Flush(end.Add(time.Second))
	if _, ok := ours.Pop(end.Add(time.Second)); !ok {
		t.Error("not flushed")
	}
}
