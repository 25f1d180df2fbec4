package decisions

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/scheduler"
)

func annotated(p *corev1.Pod) { p.Annotations = map[string]string{"x": "y"} }

func labelledX(p *corev1.Pod) { p.Labels = map[string]string{"app": p.Name, "x": "y"} }

func tolerating(key string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Tolerations = []corev1.Toleration{{Key: key, Operator: corev1.TolerationOpExists}}
	}
}

func honouringTaints(p *corev1.Pod) {
	spreading(p)
	p.Spec.TopologySpreadConstraints[0].NodeTaintsPolicy = ptr.To(corev1.NodeInclusionPolicyHonor)
}

// once lets a claim be used by one pod alone.
func once(c *corev1.PersistentVolumeClaim) {
	c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
}

func noPods(n *corev1.Node) { n.Status.Allocatable["pods"] = quantities("pods", "0")["pods"] }

func hintDriver(tells bool, mods ...func(*storagev1.CSIDriver)) *storagev1.CSIDriver {
	return with(&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "d", UID: "driver"}, Spec: storagev1.CSIDriverSpec{StorageCapacity: &tells}}, mods...)
}

func hintCapacity(name, class, zone, size string) *storagev1.CSIStorageCapacity {
	c := &storagev1.CSIStorageCapacity{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("capacity " + name)}, StorageClassName: class}
	c.NodeTopology = &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelTopologyZone: zone}}
	c.Capacity = ptr.To(quantities("storage", size)["storage"])
	return c
}

func hintAttachment(name, volume, node string) *storagev1.VolumeAttachment {
	return &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("attachment " + name)}, Spec: storagev1.VolumeAttachmentSpec{
		Attacher: "d", NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &volume},
	}}
}

func provisionedBy(driver string) func(*storagev1.StorageClass) {
	return func(c *storagev1.StorageClass) { c.Provisioner = driver }
}

// itself are changes of a pod that waits.
func itself(p *corev1.Pod) []event {
	change := func(name string, mods ...func(*corev1.Pod)) event {
		return event{name: "own " + name, obj: with(p.DeepCopy(), mods...)}
	}
	return []event{
		change("label", labelledX), change("annotation", annotated), change("toleration", tolerating("other")), change("toleration of k", tolerating("k")),
		change("less cpu", cpu("500m")), change("more cpu", cpu("9")),
		change("toleration of cordons", tolerating(corev1.TaintNodeUnschedulable)),
	}
}

// moreHints are like hints.
var moreHints = []rejected{
	{"own resources", []client.Object{hintNode("a"), hintPod("big", on("a"), cpu("2"))}, hintPod("p", cpu("1")), itself(hintPod("p", cpu("1")))},
	{"own selector", []client.Object{hintNode("a")}, hintPod("p", cpu("1"), selecting("disk", "ssd")), itself(hintPod("p", cpu("1"), selecting("disk", "ssd")))},
	{"own taints", []client.Object{hintNode("a", tainted("k"))}, hintPod("p", cpu("1")), itself(hintPod("p", cpu("1")))},
	{"own cordon", []client.Object{hintNode("a", cordoned)}, hintPod("p", cpu("1")), itself(hintPod("p", cpu("1")))},
	{"own ports", []client.Object{hintNode("a"), hintPod("o", on("a"), hostPort)}, hintPod("p", hostPort, cpu("1")), itself(hintPod("p", hostPort, cpu("1")))},
	{"own affinity", []client.Object{hintNode("a")}, hintPod("p", nearTo("db"), cpu("1")), itself(hintPod("p", nearTo("db"), cpu("1")))},
	{
		"own spread",
		[]client.Object{hintNode("a"), hintNode("b", tainted("k")), hintPod("o", on("a"), labelled(map[string]string{"app": "p"}))},
		hintPod("p", spreading, cpu("1")),
		append(itself(hintPod("p", spreading, cpu("1"))), event{name: "counts itself no more", obj: hintPod("p", spreading, cpu("1"), labelled(map[string]string{"app": "z"}))}),
	},
	{
		"own spread with taints",
		[]client.Object{hintNode("a"), hintNode("b", noPods), hintPod("o", on("a"), labelled(map[string]string{"app": "p"}))},
		hintPod("p", honouringTaints, cpu("1")),
		itself(hintPod("p", honouringTaints, cpu("1"))),
	},
	{"own claim", []client.Object{hintNode("a"), hintClass("x", storagev1.VolumeBindingWaitForFirstConsumer)}, hintPod("p", using("c"), cpu("1")), itself(hintPod("p", using("c"), cpu("1")))},
	{"others' anti-affinity", []client.Object{hintNode("a"), hintPod("o", on("a"), awayFrom("p"))}, hintPod("p"), []event{
		{name: "the pod deleted", obj: hintPod("o", on("a"), awayFrom("p")), gone: true},
		{name: "other label", obj: hintNode("a", func(n *corev1.Node) { n.Labels["x"] = "y" })},
		{name: "zone lost", obj: hintNode("a", func(n *corev1.Node) { delete(n.Labels, corev1.LabelTopologyZone) }), more: "the other pod's anti-affinity is about no zone now"},
		{name: "node added", obj: hintNode("b", func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = "y" }), more: "the node may be in a zone without the other pod"},
		{name: "pod added", obj: hintPod("y", on("a"))},
		{name: "own label", obj: hintPod("p", labelledX)},
	}},
	{"affinity", []client.Object{hintNode("a"), hintPod("o", on("a"))}, hintPod("p", nearTo("db")), []event{
		{
			name: "zone lost", obj: hintNode("a", func(n *corev1.Node) { delete(n.Labels, corev1.LabelTopologyZone) }),
			more: "no pod may be in the way any more of being the first of a group",
		},
		{name: "node without the key", obj: hintNode("b", func(n *corev1.Node) { delete(n.Labels, corev1.LabelTopologyZone) })},
		{name: "node deleted", obj: hintNode("a"), gone: true, more: "no pod may be in the way any more of being the first of a group"},
	}},
	{"anti-affinity", []client.Object{hintNode("a"), hintPod("o", on("a"))}, hintPod("p", awayFrom("o")), []event{
		{name: "other label", obj: hintNode("a", func(n *corev1.Node) { n.Labels["x"] = "y" })},
		{name: "zone changed", obj: hintNode("a", func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = "y" })},
		{name: "node without the key", obj: hintNode("b", func(n *corev1.Node) { delete(n.Labels, corev1.LabelTopologyZone) })},
	}},
	{"ReadWriteOncePod", []client.Object{
		hintNode("a"), hintNode("b"), hintClass("x", storagev1.VolumeBindingImmediate), hintVolume("v", "x", "z"), with(hintClaim("c", "x", "v"), once),
		hintPod("o", on("a"), using("c")), hintPod("idle", on("a")),
	}, hintPod("p", using("c")), []event{
		{name: "user deleted", obj: hintPod("o", on("a"), using("c")), gone: true},
		{name: "other deleted", obj: hintPod("idle", on("a")), gone: true},
		{name: "node added", obj: hintNode("n")},
		{name: "labels", obj: hintNode("a", func(n *corev1.Node) { n.Labels["x"] = "y" })},
		{name: "other claim", obj: hintClaim("d", "x", "")},
		{name: "claim changed", obj: hintClaim("c", "x", "v")},
		{name: "pod added", obj: hintPod("y", on("a"))},
	}},
	{"storage capacity", []client.Object{
		hintNode("a"), with(hintClass("x", storagev1.VolumeBindingWaitForFirstConsumer), provisionedBy("d")), hintDriver(true), hintClaim("c", "x", ""),
		hintCapacity("small", "x", "z", "1Mi"),
	}, hintPod("p", using("c")), []event{
		{name: "capacity grows", obj: hintCapacity("small", "x", "z", "9Gi")},
		{name: "capacity shrinks", obj: hintCapacity("small", "x", "z", "1Ki")},
		{name: "capacity added", obj: hintCapacity("more", "x", "z", "9Gi")},
		{name: "capacity of another class", obj: hintCapacity("more", "y", "z", "9Gi")},
		{name: "capacity deleted", obj: hintCapacity("small", "x", "z", "1Mi"), gone: true},
		{name: "driver doesn't tell", obj: hintDriver(false), more: "it asks of inline volumes alone, but it is claims that need capacity"},
		{name: "driver still tells", obj: hintDriver(true, func(d *storagev1.CSIDriver) { d.Spec.PodInfoOnMount = ptr.To(true) })},
		{name: "driver deleted", obj: hintDriver(true), gone: true, more: "a driver that is gone tells no capacity"},
		{name: "other driver", obj: hintDriver(true, func(d *storagev1.CSIDriver) { d.Name, d.UID = "e", "e" })},
		{name: "topologies allowed", obj: with(hintClass("x", storagev1.VolumeBindingWaitForFirstConsumer), provisionedBy("d"), func(c *storagev1.StorageClass) {
			c.AllowedTopologies = []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: "k", Values: []string{"v"}}}}}
		})},
		{name: "attachment deleted", obj: hintAttachment("t", "v", "a"), gone: true},
	}},
	{"attached volumes", []client.Object{
		hintNode("a"), csiLimit("a", 1), hintClass("x", storagev1.VolumeBindingImmediate), hintVolume("v", "x", "z"), hintVolume("w", "x", "z"),
		hintClaim("c", "x", "v"), hintClaim("d", "x", "w"), hintAttachment("t", "w", "a"),
	}, hintPod("p", using("c")), []event{
		{name: "detached", obj: hintAttachment("t", "w", "a"), gone: true},
		{name: "attached elsewhere", obj: hintAttachment("u", "w", "b")},
		{name: "driver added", obj: hintDriver(false)},
		{name: "pod added", obj: hintPod("y", on("a"))},
		{name: "claim added", obj: hintClaim("e", "x", "")},
	}},
}

// TestGates: changes of a pod with gates let both queues try it, or neither.
func TestGates(t *testing.T) {
	gated := func(names ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			for _, n := range names {
				p.Spec.SchedulingGates = append(p.Spec.SchedulingGates, corev1.PodSchedulingGate{Name: n})
			}
		}
	}
	for name, ev := range map[string]event{
		"one gate gone":   {obj: hintPod("p", gated("b"))},
		"all gates gone":  {obj: hintPod("p")},
		"label":           {obj: hintPod("p", gated("a", "b"), labelledX)},
		"selector":        {obj: hintPod("p", gated("a", "b"), selecting("x", "y"))},
		"gone and narrow": {obj: hintPod("p", selecting("x", "y"))},
		"node added":      {obj: hintNode("b")},
		"pod deleted":     {obj: hintPod("o", on("a")), gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 0, &stats{})
			w.set(hintNode("a"))
			w.set(hintPod("o", on("a")))
			pod := hintPod("p", gated("a", "b"))
			w.set(pod)
			ours, now := scheduler.NewQueue(w.ours), time.Unix(1000, 0)
			ours.Add(scheduler.NewPod(pod), now)
			if self, ok := ev.obj.(*corev1.Pod); ok && self.UID == pod.UID {
				w.set(self.DeepCopy())
				ours.Add(scheduler.NewPod(self), now)
			} else {
				ours.Changed(w.happen(ev), now)
			}
			_, woken := ours.Pop(now)
			want := !slices.ContainsFunc(w.theirs.sched.SchedulingQueue.UnschedulablePods(), func(p *corev1.Pod) bool { return p.Name == pod.Name })
			if woken != want {
				t.Errorf("Keelson tries it: %v, kube-scheduler: %v", woken, want)
			}
		})
	}
}
