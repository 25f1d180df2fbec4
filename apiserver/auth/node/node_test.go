package node_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/keelson/keelson/apiserver/auth/node"
)

func pod(name, on string, change func(*corev1.PodSpec)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: corev1.PodSpec{NodeName: on, ServiceAccountName: "sa"}}
	change(&p.Spec)
	return p
}

func usesSecret(name string) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) {
		s.Volumes = append(s.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}}})
	}
}

type ask struct{ verb, group, resource, sub, namespace, name, fields string }

// by tells whether node n1 may, and why not.
func by(t *testing.T, a *node.Authorizer, q ask) (bool, string) {
	t.Helper()
	attrs := authorizer.AttributesRecord{
		User: &user.DefaultInfo{Name: "system:node:n1", Groups: []string{user.NodesGroup}}, ResourceRequest: true,
		Verb: q.verb, APIGroup: q.group, Resource: q.resource, Subresource: q.sub, Namespace: q.namespace, Name: q.name,
	}
	if q.fields != "" {
		attrs.FieldSelectorRequirements = fields.ParseSelectorOrDie(q.fields).Requirements()
	}
	d, reason, err := a.Authorize(t.Context(), attrs)
	if err != nil {
		t.Fatal(err)
	}
	return d == authorizer.DecisionAllow, reason
}

func newAuthorizer(t *testing.T) *node.Authorizer {
	t.Helper()
	a, err := node.New(node.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

const none = "no relationship found between node 'n1' and this object"

func TestObjects(t *testing.T) {
	a := newAuthorizer(t)
	a.Set(pod("mine", "n1", func(s *corev1.PodSpec) {
		usesSecret("volume")(s)
		s.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
		s.InitContainers = []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "env"}}}}}}
		s.Containers = []corev1.Container{{Env: []corev1.EnvVar{{ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "key"}}}}}}}
		s.Volumes = append(s.Volumes,
			corev1.Volume{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}},
			corev1.Volume{Name: "scratch", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}},
			corev1.Volume{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "projected"}}}}}}})
	}))
	gpu := "gpu"
	a.Set(pod("claims", "n1", func(s *corev1.PodSpec) {
		s.ResourceClaims = []corev1.PodResourceClaim{{Name: "c", ResourceClaimName: &gpu}}
	}))
	made, mine := "made", pod("made", "n1", func(*corev1.PodSpec) {})
	mine.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "c", ResourceClaimName: &made}}
	a.Set(mine)
	a.Set(pod("theirs", "n2", usesSecret("theirs")))
	a.Set(pod("nowhere", "", usesSecret("nowhere")))
	mirror := pod("mirror", "n1", usesSecret("mirrored"))
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	a.Set(mirror)
	for name, claim := range map[string]string{"pv": "claim", "pv2": "other"} {
		a.Set(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
			ClaimRef: &corev1.ObjectReference{Namespace: "ns", Name: claim},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				NodeStageSecretRef: &corev1.SecretReference{Namespace: "elsewhere", Name: name}, ControllerExpandSecretRef: &corev1.SecretReference{Namespace: "elsewhere", Name: "controller"},
			}},
		}})
	}
	a.Set(&storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "va"}, Spec: storagev1.VolumeAttachmentSpec{NodeName: "n1"}})
	a.Set(&storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "va2"}, Spec: storagev1.VolumeAttachmentSpec{NodeName: "n2"}})

	for _, tc := range []struct {
		ask
		why string // "" if it may, - if there is no reason
	}{
		{ask{"get", "", "secrets", "", "ns", "volume", ""}, ""},
		{ask{"watch", "", "secrets", "", "ns", "key", ""}, ""},
		{ask{"get", "", "secrets", "", "ns", "pull", ""}, ""},
		{ask{"get", "", "configmaps", "", "ns", "env", ""}, ""},
		{ask{"list", "", "configmaps", "", "ns", "projected", ""}, ""},
		{ask{"get", "", "secrets", "", "ns", "theirs", ""}, none},
		{ask{"get", "", "secrets", "", "ns", "nowhere", ""}, none},
		{ask{"get", "", "secrets", "", "ns", "mirrored", ""}, none},
		{ask{"get", "", "secrets", "", "other", "volume", ""}, none},
		{ask{"list", "", "secrets", "", "ns", "", ""}, "No Object name found"},
		{ask{"list", "", "secrets", "", "", "", ""}, "can only read namespaced object of this type"},
		{ask{"update", "", "secrets", "", "ns", "volume", ""}, "can only read resources of this type"},
		{ask{"get", "", "persistentvolumeclaims", "", "ns", "claim", ""}, ""},
		{ask{"get", "", "persistentvolumeclaims", "", "ns", "mine-scratch", ""}, ""},
		{ask{"patch", "", "persistentvolumeclaims", "status", "ns", "claim", ""}, ""},
		{ask{"patch", "", "persistentvolumeclaims", "", "ns", "claim", ""}, "can only get individual resources of this type"},
		{ask{"get", "", "persistentvolumes", "", "", "pv", ""}, ""},
		{ask{"get", "", "persistentvolumes", "", "", "pv2", ""}, none},
		{ask{"get", "", "secrets", "", "elsewhere", "pv", ""}, ""},
		{ask{"get", "", "secrets", "", "elsewhere", "pv2", ""}, none},
		{ask{"get", "", "secrets", "", "elsewhere", "controller", ""}, none},
		{ask{"get", "storage.k8s.io", "volumeattachments", "", "", "va", ""}, ""},
		{ask{"get", "storage.k8s.io", "volumeattachments", "", "", "va2", ""}, none},
		{ask{"create", "", "serviceaccounts", "token", "ns", "sa", ""}, ""},
		{ask{"get", "", "serviceaccounts", "", "ns", "sa", ""}, ""},
		{ask{"create", "", "serviceaccounts", "token", "ns", "other", ""}, none},
		{ask{"create", "", "serviceaccounts", "", "ns", "sa", ""}, "can only create token subresource of serviceaccount"},
		{ask{"get", "", "pods", "", "ns", "mine", ""}, ""},
		{ask{"get", "", "pods", "", "ns", "mirror", ""}, ""},
		{ask{"get", "", "pods", "", "ns", "theirs", ""}, none},
		{ask{"list", "", "pods", "", "", "", "spec.nodeName=n1"}, ""},
		{ask{"list", "", "pods", "", "", "", "spec.nodeName=n2"}, "can only list/watch pods with spec.nodeName field selector"},
		{ask{"list", "", "pods", "", "", "", "spec.nodeName!=n1"}, "can only list/watch pods with spec.nodeName field selector"},
		{ask{"create", "", "pods", "exec", "ns", "mine", ""}, "-"},
		{ask{"get", "", "nodes", "", "", "n1", ""}, ""},
		{ask{"get", "", "nodes", "", "", "n2", ""}, "node 'n1' cannot read 'n2', only its own Node object"},
		{ask{"list", "", "nodes", "", "", "", ""}, "node 'n1' cannot read all nodes, only its own Node object"},
		{ask{"delete", "", "nodes", "", "", "n1", ""}, "-"},
		{ask{"update", "coordination.k8s.io", "leases", "", "kube-node-lease", "n1", ""}, ""},
		{ask{"update", "coordination.k8s.io", "leases", "", "kube-node-lease", "n2", ""}, "can only access node lease with the same name as the requesting node"},
		{ask{"get", "coordination.k8s.io", "leases", "", "kube-system", "n1", ""}, `can only access leases in the "kube-node-lease" system namespace`},
		{ask{"get", "storage.k8s.io", "csinodes", "", "", "n1", ""}, ""},
		{ask{"list", "storage.k8s.io", "csinodes", "", "", "", ""}, "can only get, create, update, patch, or delete a CSINode"},
		{ask{"get", "resource.k8s.io", "resourceclaims", "", "ns", "gpu", ""}, ""},
		{ask{"get", "resource.k8s.io", "resourceclaims", "", "ns", "made", ""}, ""},
		{ask{"get", "resource.k8s.io", "resourceclaims", "", "ns", "other", ""}, none},
		{ask{"deletecollection", "resource.k8s.io", "resourceslices", "", "", "", "spec.nodeName=n1"}, ""},
		{ask{"list", "resource.k8s.io", "resourceslices", "", "", "", ""}, "can only list/watch/deletecollection resourceslices with nodeName field selector"},
		{ask{"create", "resource.k8s.io", "resourceslices", "", "", "", ""}, "only the following verbs are allowed for a ResourceSlice: list, watch, deletecollection"},
		{ask{"list", "", "services", "", "", "", ""}, ""},
		{ask{"create", "", "events", "", "ns", "", ""}, ""},
		{ask{"list", "apps", "deployments", "", "", "", ""}, "-"},
	} {
		ok, why := by(t, a, tc.ask)
		if tc.why == "-" {
			tc.why = ""
			if ok {
				t.Errorf("%+v: allowed", tc.ask)
			}
		} else if ok != (tc.why == "") {
			t.Errorf("%+v: allowed: %v", tc.ask, ok)
		}
		if why != tc.why {
			t.Errorf("%+v: %q, want %q", tc.ask, why, tc.why)
		}
	}
}

// What a pod gave to its node goes with it, unless another pod gives it, too.
func TestChanges(t *testing.T) {
	a := newAuthorizer(t)
	secret := ask{"get", "", "secrets", "", "ns", "s", ""}
	may := func(want bool, when string) {
		t.Helper()
		if ok, _ := by(t, a, secret); ok != want {
			t.Errorf("%s: allowed: %v", when, ok)
		}
	}
	one, two := pod("one", "n1", usesSecret("s")), pod("two", "n1", usesSecret("s"))
	may(false, "before")
	a.Set(one)
	a.Set(one)
	a.Set(two)
	a.Delete(one)
	may(true, "one of two left")
	a.Set(pod("two", "n1", usesSecret("another")))
	may(false, "the pod changed")
	a.Set(two)
	a.Delete(two)
	may(false, "both gone")
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
		ClaimRef:               &corev1.ObjectReference{Namespace: "ns", Name: "c"},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{NodePublishSecretRef: &corev1.SecretReference{Name: "s", Namespace: "ns"}}},
	}}
	a.Set(pv)
	a.Set(pod("one", "n1", func(s *corev1.PodSpec) {
		s.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}
	}))
	may(true, "by volume")
	a.Delete(pv)
	may(false, "volume gone")
}

// Who is no node is none of its business.
func TestOthers(t *testing.T) {
	a := newAuthorizer(t)
	for _, u := range []user.Info{
		&user.DefaultInfo{Name: "system:node:n1"}, &user.DefaultInfo{Name: "bob", Groups: []string{user.NodesGroup}}, &user.DefaultInfo{Name: "system:node:", Groups: []string{user.NodesGroup}},
	} {
		d, _, err := a.Authorize(t.Context(), authorizer.AttributesRecord{User: u, Verb: "list", Resource: "services", ResourceRequest: true})
		if d != authorizer.DecisionNoOpinion || err != nil {
			t.Errorf("%s: %v, %v", u.GetName(), d, err)
		}
	}
}
