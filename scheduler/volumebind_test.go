package scheduler_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller/persistentvolume"
)

const selectedNode = "volume.kubernetes.io/selected-node"

// bindVolumes starts the controller that does the rest of a binding.
func (k *cluster) bindVolumes() {
	k.Helper()
	cache := k.server.Cache(k.admin)
	ctl, err := persistentvolume.New(k.server.Client(k.admin), cache, persistentvolume.Options{})
	k.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- cache.Start(ctx) }()
	go func() { ended <- ctl.Run(ctx) }()
	k.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				k.Error(err)
			}
		}
	})
}

func (k *cluster) addClass(name, provisioner string) {
	k.Helper()
	late := storagev1.VolumeBindingWaitForFirstConsumer
	k.must(k.client.Create(k.Context(), &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: &late}))
}

func (k *cluster) addClaim(name, class string) *corev1.PersistentVolumeClaim {
	k.Helper()
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	c.Spec.StorageClassName = &class
	c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	k.must(k.client.Create(k.Context(), c))
	return c
}

// addVolume adds a local volume of a node.
func (k *cluster) addVolume(name, class, size, node string, mods ...func(*corev1.PersistentVolume)) {
	k.Helper()
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
	pv.Spec.StorageClassName = class
	pv.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	pv.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
	pv.Spec.Local = &corev1.LocalVolumeSource{Path: "/disks/" + name}
	pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
	}}}}
	for _, m := range mods {
		m(pv)
	}
	k.must(k.client.Create(k.Context(), pv))
}

// claimed waits until a claim is as ok says.
func (k *cluster) claimed(name, what string, ok func(*corev1.PersistentVolumeClaim) bool) *corev1.PersistentVolumeClaim {
	k.Helper()
	var c corev1.PersistentVolumeClaim
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		k.must(k.client.Get(k.Context(), client.ObjectKey{Namespace: "default", Name: name}, &c))
		if ok(&c) {
			return &c
		}
	}
	k.Fatalf("claim %s: not %s: %+v %+v", name, what, c.Annotations, c.Status)
	return nil
}

func TestVolumes(t *testing.T) {
	t.Run("static volumes are bound with the node", func(t *testing.T) {
		k := newCluster(t)
		k.bindVolumes()
		k.addNode("a", "")
		k.addNode("b", "")
		k.addClass("late", "kubernetes.io/no-provisioner")
		k.addClaim("c", "late")
		p := k.addPod("p", claiming("c"))
		k.waiting(p, "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.")
		k.addVolume("v", "late", "2Gi", "b")
		k.bound(p)
		if p.Spec.NodeName != "b" {
			t.Errorf("on %s", p.Spec.NodeName)
		}
		k.claimed("c", "bound", func(c *corev1.PersistentVolumeClaim) bool {
			return c.Spec.VolumeName == "v" && c.Status.Phase == corev1.ClaimBound
		})
	})
	t.Run("each pod has its own", func(t *testing.T) {
		k := newCluster(t)
		k.bindVolumes()
		k.addClass("late", "kubernetes.io/no-provisioner")
		names := []string{"1", "2", "3", "4"}
		var pods []*corev1.Pod
		for _, n := range names {
			k.addNode("n"+n, "")
			k.addVolume("v"+n, "late", "2Gi", "n"+n)
			k.addClaim("c"+n, "late")
		}
		for _, n := range names {
			pods = append(pods, k.addPod("p"+n, claiming("c"+n)))
		}
		on := map[string]bool{}
		for _, p := range pods {
			k.bound(p)
			on[p.Spec.NodeName] = true
		}
		if len(on) != len(names) {
			t.Errorf("on %v", on)
		}
	})
	t.Run("a volume is made for the node", func(t *testing.T) {
		k := newCluster(t)
		k.bindVolumes()
		k.addNode("a", "")
		k.addClass("made", "example.com/disks")
		k.addClaim("c", "made")
		p := k.addPod("p", claiming("c"))
		selected := func(c *corev1.PersistentVolumeClaim) bool { return c.Annotations[selectedNode] == "a" }
		c := k.claimed("c", "selected", selected)
		// The provisioner gives up once: the scheduler tries again.
		delete(c.Annotations, selectedNode)
		k.must(k.client.Update(k.Context(), c))
		k.event(p, "FailedScheduling", `binding volumes: `)
		c = k.claimed("c", "selected again", selected)
		k.addVolume("v", "made", "2Gi", "a", func(pv *corev1.PersistentVolume) {
			pv.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: c.Namespace, Name: c.Name, UID: c.UID}
		})
		k.bound(p)
	})
	t.Run("a pod that goes frees its volumes", func(t *testing.T) {
		k := newCluster(t) // nobody finishes the binding
		k.addNode("a", "")
		k.addClass("made", "example.com/disks")
		k.addClaim("c", "made")
		p := k.addPod("p", claiming("c"))
		k.claimed("c", "selected", func(c *corev1.PersistentVolumeClaim) bool { return c.Annotations[selectedNode] == "a" })
		k.must(k.client.Delete(k.Context(), p, client.GracePeriodSeconds(0)))
		q := k.addPod("q")
		k.bound(q)
		if !strings.HasPrefix(q.Spec.NodeName, "a") {
			t.Error(q.Spec.NodeName)
		}
	})
}
