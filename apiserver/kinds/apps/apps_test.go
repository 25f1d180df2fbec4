package apps

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/keelson/keelson/apiserver/kinds/internal/kindtest"
)

func ptr[T any](v T) *T { return &v }

func podLabels() map[string]string { return map[string]string{"app": "web"} }

func selector() *metav1.LabelSelector { return &metav1.LabelSelector{MatchLabels: podLabels()} }

func template() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: podLabels()}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "nginx:1"}}}}
}

func meta() metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "n", Name: "web"} }

func TestDeployment(t *testing.T) {
	k := kindtest.Find(t, Group(), "Deployment")
	valid := &appsv1.Deployment{ObjectMeta: meta(), Spec: appsv1.DeploymentSpec{Selector: selector(), Template: template()}}
	kindtest.CreateTable(t, k, valid, []kindtest.Change[*appsv1.Deployment]{
		{
			"negative replicas", func(d *appsv1.Deployment) { d.Spec.Replicas = ptr(int32(-1)) },
			`spec.replicas: Invalid value: -1: must be greater than or equal to 0`,
		},
		{"no selector", func(d *appsv1.Deployment) { d.Spec.Selector = nil }, `spec.selector: Required value` + "\n" +
			`spec.template.metadata.labels: Invalid value: {"app":"web"}: ` + "`selector` does not match template `labels`"},
		{
			"empty selector", func(d *appsv1.Deployment) { d.Spec.Selector = &metav1.LabelSelector{} },
			`spec.selector: Invalid value: {}: empty selector is invalid for deployment`,
		},
		{
			"selector of others", func(d *appsv1.Deployment) { d.Spec.Selector.MatchLabels = map[string]string{"app": "db"} },
			`spec.template.metadata.labels: Invalid value: {"app":"web"}: ` + "`selector` does not match template `labels`",
		},
		{
			"restart policy", func(d *appsv1.Deployment) { d.Spec.Template.Spec.RestartPolicy = "Never" },
			`spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`,
		},
		{"recreate with rolling update", func(d *appsv1.Deployment) {
			d.Spec.Strategy = appsv1.DeploymentStrategy{Type: "Recreate", RollingUpdate: &appsv1.RollingUpdateDeployment{}}
		}, "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"},
		{"no surge and nothing unavailable", func(d *appsv1.Deployment) {
			d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: ptr(intstr.FromInt32(0)), MaxUnavailable: ptr(intstr.FromString("0%"))}
		}, "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"},
		{"too much unavailable", func(d *appsv1.Deployment) {
			d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxUnavailable: ptr(intstr.FromString("101%"))}
		}, `spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%`},
		{
			"deadline", func(d *appsv1.Deployment) { d.Spec.MinReadySeconds = 600 },
			`spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds`,
		},
	})
	kindtest.UpdateTable(t, k, valid, []kindtest.Change[*appsv1.Deployment]{
		{"scale", func(d *appsv1.Deployment) { d.Spec.Replicas = ptr(int32(5)) }, ""},
		{"selector", func(d *appsv1.Deployment) {
			d.Spec.Selector.MatchLabels["app"] = "db"
			d.Spec.Template.Labels["app"] = "db"
		}, `spec.selector: Invalid value: {"matchLabels":{"app":"db"}}: field is immutable`},
	})
	d := valid.DeepCopy()
	kindtest.Create(k, d)
	if *d.Spec.Replicas != 1 || d.Spec.Strategy.RollingUpdate.MaxSurge.String() != "25%" || *d.Spec.RevisionHistoryLimit != 10 || *d.Spec.ProgressDeadlineSeconds != 600 ||
		d.Spec.Template.Spec.RestartPolicy != "Always" || d.Generation != 1 {
		t.Errorf("defaults: %+v", d.Spec)
	}
	annotated := d.DeepCopy()
	annotated.Annotations = map[string]string{"a": "b"}
	kindtest.Update(k, annotated, d)
	if annotated.Generation != 2 {
		t.Errorf("an annotation makes generation %d, want 2", annotated.Generation)
	}
	d.Status = appsv1.DeploymentStatus{ReadyReplicas: 1, UpdatedReplicas: 2, AvailableReplicas: 1}
	if got, want := kindtest.Row(t, k, d), "web | 1/1 | 2 | 1 | <unknown> | c | nginx:1 | app=web"; got != want {
		t.Errorf("row: %s, want %s", got, want)
	}
	if got, want := kindtest.Header(k), "Name | Ready | Up-to-date | Available | Age | Containers | Images | Selector"; got != want {
		t.Errorf("header: %s", got)
	}
	if spec, status, sel := k.Scale.Get(d); spec != 1 || status != 0 || sel != "app=web" {
		t.Errorf("scale: %d %d %s", spec, status, sel)
	}
	worse := d.DeepCopy()
	worse.Status.CollisionCount, d.Status.CollisionCount = nil, ptr(int32(2))
	if got := kindtest.Errors(k.Status.Validate(t.Context(), worse, d)); got != `status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas
status.readyReplicas: Invalid value: 1: cannot be greater than status.replicas
status.availableReplicas: Invalid value: 1: cannot be greater than status.replicas
status.collisionCount: Invalid value: 0: cannot be decremented` {
		t.Errorf("status:\n%s", got)
	}
	odd := valid.DeepCopy()
	odd.Name = "a.b"
	if w := k.Warnings(t.Context(), odd, nil); len(w) != 1 {
		t.Errorf("warnings of a dotted name: %q", w)
	}
}

func TestReplicaSetAndDaemonSet(t *testing.T) {
	k := kindtest.Find(t, Group(), "ReplicaSet")
	rs := &appsv1.ReplicaSet{ObjectMeta: meta(), Spec: appsv1.ReplicaSetSpec{Selector: selector(), Template: template()}}
	kindtest.CreateTable(t, k, rs, []kindtest.Change[*appsv1.ReplicaSet]{
		{
			"deadline", func(r *appsv1.ReplicaSet) { r.Spec.Template.Spec.ActiveDeadlineSeconds = ptr(int64(1)) },
			`spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported`,
		},
	})
	kindtest.Create(k, rs)
	if got, want := kindtest.Header(k)+"\n"+kindtest.Row(t, k, rs), "Name | Desired | Current | Ready | Age | Containers | Images | Selector\nweb | 1 | 0 | 0 | <unknown> | c | nginx:1 | app=web"; got != want {
		t.Errorf("table: %s", got)
	}

	k = kindtest.Find(t, Group(), "DaemonSet")
	ds := &appsv1.DaemonSet{ObjectMeta: meta(), Spec: appsv1.DaemonSetSpec{Selector: selector(), Template: template()}}
	kindtest.CreateTable(t, k, ds, []kindtest.Change[*appsv1.DaemonSet]{
		{"both", func(d *appsv1.DaemonSet) {
			d.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxSurge: ptr(intstr.FromInt32(1))}
		}, `spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero`},
		{"neither", func(d *appsv1.DaemonSet) {
			d.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxUnavailable: ptr(intstr.FromInt32(0))}
		}, `spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0`},
	})
	kindtest.Create(k, ds)
	next := ds.DeepCopy()
	next.Spec.Template.Spec.Containers[0].Image = "nginx:2"
	kindtest.Update(k, next, ds)
	if ds.Annotations[appsv1.DeprecatedTemplateGeneration] != "1" || next.Annotations[appsv1.DeprecatedTemplateGeneration] != "2" || next.Generation != 2 {
		t.Errorf("template generations %v, %v, generation %d", ds.Annotations, next.Annotations, next.Generation)
	}
	ds.Spec.Template.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	if got, want := kindtest.Header(k)+"\n"+kindtest.Row(t, k, ds), "Name | Desired | Current | Ready | Up-to-date | Available | Node Selector | Age | Containers | Images | Selector\n"+
		"web | 0 | 0 | 0 | 0 | 0 | disk=ssd | <unknown> | c | nginx:1 | app=web"; got != want {
		t.Errorf("table: %s", got)
	}
}

func TestStatefulSet(t *testing.T) {
	k := kindtest.Find(t, Group(), "StatefulSet")
	valid := &appsv1.StatefulSet{ObjectMeta: meta(), Spec: appsv1.StatefulSetSpec{
		Selector: selector(), Template: template(), ServiceName: "web",
		VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		}}},
	}}
	kindtest.CreateTable(t, k, valid, []kindtest.Change[*appsv1.StatefulSet]{
		{
			"policy", func(s *appsv1.StatefulSet) { s.Spec.PodManagementPolicy = "Any" },
			`spec.podManagementPolicy: Invalid value: "Any": must be 'OrderedReady' or 'Parallel'`,
		},
		{"unavailable", func(s *appsv1.StatefulSet) {
			s.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: "RollingUpdate", RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{MaxUnavailable: ptr(intstr.FromInt32(0))}}
		}, `spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0`},
		{"template", func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Image = "" }, `spec.template.spec.containers[0].image: Required value`},
		{"mount of a claim", func(s *appsv1.StatefulSet) {
			s.Spec.Template.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		}, ""},
		{"retention", func(s *appsv1.StatefulSet) {
			s.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenDeleted: "Maybe"}
		}, `spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: "Maybe": supported values: "Retain", "Delete"`},
	})
	kindtest.UpdateTable(t, k, valid, []kindtest.Change[*appsv1.StatefulSet]{
		{"what may change", func(s *appsv1.StatefulSet) {
			s.Spec.Replicas, s.Spec.MinReadySeconds, s.Spec.RevisionHistoryLimit = ptr(int32(3)), 5, ptr(int32(2))
			s.Spec.Template.Spec.Containers[0].Image = "nginx:2"
			s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 4}
		}, ""},
		{
			"service", func(s *appsv1.StatefulSet) { s.Spec.ServiceName = "other" },
			`spec.serviceName: Invalid value: "other": field is immutable`,
		},
	})
	s := valid.DeepCopy()
	kindtest.Create(k, s)
	if c := s.Spec.VolumeClaimTemplates[0]; c.Kind != "PersistentVolumeClaim" || c.Status.Phase != "Pending" || *c.Spec.VolumeMode != "Filesystem" ||
		*s.Spec.UpdateStrategy.RollingUpdate.Partition != 0 || s.Spec.PersistentVolumeClaimRetentionPolicy.WhenScaled != "Retain" {
		t.Errorf("defaults: %+v", s.Spec)
	}
	if got, want := kindtest.Header(k)+"\n"+kindtest.Row(t, k, s), "Name | Ready | Age | Containers | Images\nweb | 0/1 | <unknown> | c | nginx:1"; got != want {
		t.Errorf("table: %s", got)
	}
}

func TestControllerRevision(t *testing.T) {
	k := kindtest.Find(t, Group(), "ControllerRevision")
	valid := &appsv1.ControllerRevision{ObjectMeta: meta(), Data: runtime.RawExtension{Raw: []byte(`{"a":1}`)}, Revision: 3}
	kindtest.CreateTable(t, k, valid, []kindtest.Change[*appsv1.ControllerRevision]{
		{"no data", func(r *appsv1.ControllerRevision) { r.Data.Raw = nil }, `data: Required value: data is mandatory`},
		{"negative", func(r *appsv1.ControllerRevision) { r.Revision = -1 }, `revision: Invalid value: -1: must be greater than or equal to 0`},
	})
	valid.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "db", Controller: ptr(true)}}
	if got, want := kindtest.Row(t, k, valid), "web | statefulset.apps/db | 3 | <unknown>"; got != want {
		t.Errorf("row: %s", got)
	}
	changed := valid.DeepCopy()
	changed.Data.Raw = []byte(`{}`)
	if got := kindtest.Update(k, changed, valid); got == "" {
		t.Error("data may be changed")
	}
}
