//go:build unix

package scheduler_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// volumeBench is a cluster for pods with a claim each.
type volumeBench struct {
	*testing.B
	e     *scheduler.Engine
	keep  *viewKeeper
	nodes int
}

func labelIn(key string, values ...string) *corev1.VolumeNodeAffinity {
	return &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: corev1.NodeSelectorOpIn, Values: values}},
	}}}}
}

func (b *volumeBench) class(provisioner string, zones ...string) {
	mode := storagev1.VolumeBindingWaitForFirstConsumer
	c := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "class"}, Provisioner: provisioner, VolumeBindingMode: &mode}
	if len(zones) > 0 {
		c.AllowedTopologies = []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: zoneKey, Values: zones}}}}
	}
	b.e.SetStorageClass(c)
}

// free adds a volume that is there to be bound.
func (b *volumeBench) free(i int, from *corev1.VolumeNodeAffinity) {
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("free", i)}}
	pv.Spec.StorageClassName, pv.Spec.NodeAffinity = "class", from
	pv.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: gib(1 + i%3)}
	pv.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	pv.Status.Phase = corev1.VolumeAvailable
	b.e.SetVolume(pv)
}

// claim adds the i-th pod's claim, bound to a volume of its own if from is given.
func (b *volumeBench) claim(i int, from *corev1.VolumeNodeAffinity) {
	name, class := fmt.Sprint("c", i), "class"
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: name, UID: types.UID(name)}}
	c.Spec.StorageClassName = &class
	c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: gib(1)}
	if from != nil {
		c.Spec.VolumeName, c.Status.Phase = name, corev1.ClaimBound
		c.Annotations = map[string]string{"pv.kubernetes.io/bind-completed": "yes"}
		pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
		pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: "example.com", VolumeHandle: name}
		pv.Spec.NodeAffinity = from
		if from.Required == nil {
			pv.Spec.NodeAffinity = nil
		}
		b.e.SetVolume(pv)
	}
	b.e.SetClaim(c)
}

var volumeWorkloads = []struct {
	name  string
	setup func(b *volumeBench)
	claim func(b *volumeBench, i int)
}{
	{"provisioned", func(b *volumeBench) { b.class("example.com") }, func(b *volumeBench, i int) { b.claim(i, nil) }},
	{"provisionedinzone", func(b *volumeBench) { b.class("example.com", "z1") }, func(b *volumeBench, i int) { b.claim(i, nil) }},
	{"provisionedonnode", func(b *volumeBench) {
		b.class("example.com")
		tells := true
		b.e.SetCSIDriver(&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "example.com"}, Spec: storagev1.CSIDriverSpec{StorageCapacity: &tells}})
		for i := range b.nodes {
			left := gib(50 + i%10)
			k := &storagev1.CSIStorageCapacity{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: fmt.Sprint("k", i)}, StorageClassName: "class", Capacity: &left}
			k.NodeTopology = &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelHostname: fmt.Sprint("n", i)}}
			b.e.SetStorageCapacity(k)
		}
	}, func(b *volumeBench, i int) { b.claim(i, nil) }},
	{"boundanywhere", func(*volumeBench) {}, func(b *volumeBench, i int) { b.claim(i, &corev1.VolumeNodeAffinity{}) }},
	{"boundinzone", func(*volumeBench) {}, func(b *volumeBench, i int) { b.claim(i, labelIn(zoneKey, fmt.Sprint("z", i%3))) }},
	{"boundonnode", func(*volumeBench) {}, func(b *volumeBench, i int) { b.claim(i, labelIn(corev1.LabelHostname, fmt.Sprint("n", i%b.nodes))) }},
	{"freeinzone", func(b *volumeBench) {
		b.class("kubernetes.io/no-provisioner")
		for i := range b.nodes {
			b.free(i, labelIn(zoneKey, fmt.Sprint("z", i%3)))
		}
	}, func(b *volumeBench, i int) { b.claim(i, nil) }},
	{"freeonnode", func(b *volumeBench) {
		b.class("kubernetes.io/no-provisioner")
		for i := range b.nodes {
			b.free(i, labelIn(corev1.LabelHostname, fmt.Sprint("n", i)))
		}
	}, func(b *volumeBench, i int) { b.claim(i, nil) }},
	// One volume for all pods, which is on all of their nodes.
	{"shared", func(b *volumeBench) { b.claim(0, &corev1.VolumeNodeAffinity{}) }, nil},
}

// BenchmarkVolumes is one decision for a pod with a claim, the reservation of its volume and what it takes to know them, at steady state: half as many pods as nodes, 2,500 at most;
// one comes, one goes. Each node takes 39 volumes of the driver.
func BenchmarkVolumes(b *testing.B) {
	for _, c := range volumeWorkloads {
		for _, nodes := range []int{1000, 5000, 50000} {
			b.Run(fmt.Sprintf("%s/nodes=%d", c.name, nodes), func(b *testing.B) { benchmarkVolumes(b, nodes, c.setup, c.claim) })
		}
	}
}

func benchmarkVolumes(t *testing.B, nodes int, setup func(*volumeBench), claim func(*volumeBench, int)) {
	keep := &viewKeeper{}
	b := &volumeBench{B: t, e: benchEngine(t, nodes, scheduler.Weighted{Plugin: keep}), keep: keep, nodes: nodes}
	setup(b)
	placed := map[int]*scheduler.Pod{}
	binding := plugins.VolumeBinding{}
	i := 0
	schedule := func() {
		name := "c0"
		if claim != nil {
			name = fmt.Sprint("c", i)
			claim(b, i)
		}
		pod := scheduler.NewPod(benchPod(i, claiming(name)))
		d := b.e.Schedule(pod)
		if !d.Fits() {
			b.Fatal(d.Message())
		}
		if err := binding.Reserve(pod, b.e.Node(d.Node), keep.view); err != nil {
			b.Fatal(err)
		}
		placed[i] = pod
		i++
	}
	pods := min(nodes/2, 2500)
	for range pods {
		schedule()
	}
	b.ReportAllocs()
	defer reportCPU(t)()
	for b.Loop() {
		schedule()
		gone := placed[i-pods-1]
		delete(placed, i-pods-1)
		b.e.Remove(gone.Object.UID)
		binding.Unreserve(gone, "", keep.view)
		if claim != nil {
			b.e.DeleteClaim("d", fmt.Sprint("c", i-pods-1))
			b.e.DeleteVolume(fmt.Sprint("c", i-pods-1))
		}
	}
}
