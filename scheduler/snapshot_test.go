package scheduler_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// TestSnapshot: what was read decides, what has ended doesn't count, what waits is returned.
func TestSnapshot(t *testing.T) {
	running, done, waits := testPod("running", "web"), testPod("done", "web"), testPod("waits", "web")
	waits.Status.NominatedNodeName = "b1"
	attached := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "attached"}}
	attached.Spec.NodeName, attached.Spec.Attacher = "a1", "csi.example.com"
	running.Spec.NodeName, done.Spec.NodeName = "a1", "b1"
	done.Status.Phase = corev1.PodSucceeded
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data", Namespace: "d"}}
	claim.Spec.VolumeName, claim.Status.Phase = "pv", corev1.ClaimBound
	claim.Annotations = map[string]string{"pv.kubernetes.io/bind-completed": "yes"}
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}}
	c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(
		testNode("a1", "a"), testNode("b1", "b"), running, done, waits, claim, volume, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "fast"}}, attached,
		&storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "a1"}}, &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "csi.example.com"}},
		&storagev1.CSIStorageCapacity{ObjectMeta: metav1.ObjectMeta{Name: "room", Namespace: "d"}, StorageClassName: "fast"},
		&policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "d"}}, &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Name: "gang", Namespace: "d"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "d"}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "d"}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}}},
	).Build()
	e, pending, err := scheduler.Snapshot(t.Context(), c, scheduler.EngineOptions{Profile: plugins.Default()})
	if err != nil {
		t.Fatal(err)
	}
	if len(pending) != 1 || pending[0].Name != "waits" || e.Nodes() != 2 || e.Assigned("running") != "a1" || e.Assigned("done") != "" {
		t.Fatalf("pending %v, %d nodes, running on %q, done on %q", pending, e.Nodes(), e.Assigned("running"), e.Assigned("done"))
	}
	if e.Nominated("waits") != "b1" {
		t.Errorf("waits is nominated for %q", e.Nominated("waits"))
	}
	// The Service's pods are spread, and the claim is bound.
	pod := testPod("p", "web", claiming("data"))
	x := e.Explain(scheduler.NewPod(pod))
	if x.Decision.Node != "b1" || x.Margin() <= 0 {
		t.Errorf("%s", x)
	}
}
