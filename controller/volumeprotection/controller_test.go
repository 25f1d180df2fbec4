package volumeprotection_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/volumeprotection"
)

func claim(name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
}

func pod(name, node, claim string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{NodeName: node}}
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}}
	return p
}

func TestProtects(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		ctl, err := volumeprotection.New(e.Client, e.Cache, volumeprotection.Options{})
		e.Check(err)
		e.Start(ctl.Run)
		e.Settle()
		there := func(name string) bool {
			_, ok := controllertest.Get[*corev1.PersistentVolumeClaim](e.Cluster, "default", name)
			return ok
		}
		for _, name := range []string{"used", "wanted", "free"} {
			c, _ := controllertest.Get[*corev1.PersistentVolumeClaim](e.Cluster, "default", name)
			if len(c.Finalizers) != 1 || c.Finalizers[0] != "kubernetes.io/pvc-protection" {
				t.Errorf("%s: %v", name, c.Finalizers)
			}
			e.Check(e.Client.Delete(e.Ctx, c))
		}
		e.Settle()
		if !there("used") || there("wanted") || there("free") {
			t.Errorf("left: used %v, wanted by a pod without node %v, free %v", there("used"), there("wanted"), there("free"))
		}
		e.Check(e.Client.Delete(e.Ctx, pod("runs", "", "")))
		e.Settle()
		if there("used") {
			t.Error("still there without its pod")
		}
		for _, name := range []string{"bound", "loose"} {
			e.Check(e.Client.Delete(e.Ctx, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}))
		}
		e.Settle()
		if all := controllertest.All[*corev1.PersistentVolume](e.Cluster); len(all) != 1 || all[0].Name != "bound" || all[0].Finalizers[0] != "kubernetes.io/pv-protection" {
			t.Errorf("volumes left: %v", all)
		}
		controllertest.Edit(e.Cluster, "", "bound", func(pv *corev1.PersistentVolume) { pv.Status.Phase = corev1.VolumeReleased })
		e.Settle()
		if all := controllertest.All[*corev1.PersistentVolume](e.Cluster); len(all) != 0 {
			t.Errorf("volumes left: %v", all)
		}
	}, claim("used"), claim("wanted"), claim("free"), pod("runs", "n", "used"), pod("waits", "", "wanted"),
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "bound"}, Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeBound}},
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "loose"}, Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable}})
}
