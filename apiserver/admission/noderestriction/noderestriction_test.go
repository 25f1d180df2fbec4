package noderestriction

import (
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"

	"k8s.io/utils/ptr"

	"github.com/keelson/keelson/apiserver/admission/internal/admissiontest"
)

func pod(name, node string, mirror bool) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, UID: "u-" + "1"}, Spec: corev1.PodSpec{NodeName: node}}
	if mirror {
		p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node, UID: "u-n", Controller: ptr.To(true)}}
	}
	return p
}

func node(name string, labels ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	for i := 0; i < len(labels); i += 2 {
		n.Labels[labels[i]] = labels[i+1]
	}
	return n
}

func TestPlugin(t *testing.T) {
	p, err := New(admissiontest.Client(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "u-n"}}, pod("mine", "a", false), pod("theirs", "b", false)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	secretPod := pod("x", "a", true)
	secretPod.Spec.Containers = []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{}}}}}
	accountPod := pod("x", "a", true)
	accountPod.Spec.ServiceAccountName = "default"
	unowned := pod("x", "a", true)
	unowned.OwnerReferences = nil
	relabelled := pod("mine", "a", false)
	relabelled.Labels = map[string]string{"x": "y"}
	tainted := node("a")
	tainted.Spec.Taints = []corev1.Taint{{Key: "x", Effect: corev1.TaintEffectNoSchedule}}
	token := func(name string) *authenticationv1.TokenRequest {
		return &authenticationv1.TokenRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "default"}, Spec: authenticationv1.TokenRequestSpec{
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: name, UID: "u-1"},
		}}
	}
	lease := func(ns, name string) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	}
	update, remove := admission.Update, admission.Delete
	tests := []struct {
		name string
		req  admissiontest.Request
		want string
	}{
		{"own mirror pod", admissiontest.Request{Object: pod("x", "a", true)}, ""},
		{"pod that is no mirror", admissiontest.Request{Object: pod("x", "a", false)}, `pod does not have "kubernetes.io/config.mirror" annotation, node "a" can only create mirror pods`},
		{"mirror pod elsewhere", admissiontest.Request{Object: pod("x", "b", true)}, `node "a" can only create pods with spec.nodeName set to itself`},
		{"without an owner", admissiontest.Request{Object: unowned}, `node "a" can only create pods with an owner reference set to itself`},
		{"secret", admissiontest.Request{Object: secretPod}, `node "a" can not create pods that reference secrets`},
		{"account", admissiontest.Request{Object: accountPod}, `node "a" can not create pods that reference a service account`},
		{"delete own pod", admissiontest.Request{Old: pod("mine", "a", false), Operation: remove}, ""},
		{"delete other pod", admissiontest.Request{Old: pod("theirs", "b", false), Operation: remove}, `node "a" can only delete pods with spec.nodeName set to itself`},
		{"status of own pod", admissiontest.Request{Object: pod("mine", "a", false), Old: pod("mine", "a", false), Operation: update, Subresource: "status"}, ""},
		{"status of other pod", admissiontest.Request{Object: pod("theirs", "b", false), Old: pod("theirs", "b", false), Operation: update, Subresource: "status"}, `can only update pod status for pods with spec.nodeName set to itself`},
		{"labels through status", admissiontest.Request{Object: relabelled, Old: pod("mine", "a", false), Operation: update, Subresource: "status"}, `cannot update labels through pod status`},
		{"evict other pod", admissiontest.Request{Object: &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "theirs"}}, Resource: "pods", Subresource: "eviction"}, `can only evict pods with spec.nodeName set to itself`},
		{"exec", admissiontest.Request{Object: pod("mine", "a", false), Subresource: "exec"}, `unexpected pod subresource "exec"`},
		{"own node", admissiontest.Request{Object: node("a", corev1.LabelHostname, "a", "custom", "x")}, ""},
		{"other node", admissiontest.Request{Object: node("b")}, `node "a" is not allowed to modify node "b"`},
		{"role label", admissiontest.Request{Object: node("a", "node-role.kubernetes.io/control-plane", "")}, `is not allowed to set the following labels: node-role.kubernetes.io/control-plane`},
		{"restricted label", admissiontest.Request{Object: node("a", "node-restriction.kubernetes.io/x", "y"), Old: node("a"), Operation: update}, `is not allowed to modify labels: node-restriction.kubernetes.io/x`},
		{"taints", admissiontest.Request{Object: tainted, Old: node("a"), Operation: update}, `node "a" is not allowed to modify taints`},
		{"token of own pod", admissiontest.Request{Object: token("mine"), Resource: "serviceaccounts", Subresource: "token"}, ""},
		{"token of other pod", admissiontest.Request{Object: token("theirs"), Resource: "serviceaccounts", Subresource: "token"}, `node requested token bound to a pod scheduled on a different node`},
		{"token without pod", admissiontest.Request{Object: &authenticationv1.TokenRequest{}, Resource: "serviceaccounts", Subresource: "token"}, `node requested token not bound to a pod`},
		{"own lease", admissiontest.Request{Object: lease("kube-node-lease", "a")}, ""},
		{"other lease", admissiontest.Request{Object: lease("kube-node-lease", "b")}, `can only access node lease with the same name as the requesting node`},
		{"lease elsewhere", admissiontest.Request{Object: lease("kube-system", "a")}, `can only access leases in the "kube-node-lease" system namespace`},
		{"somebody else", admissiontest.Request{Object: node("b"), User: &user.DefaultInfo{Name: "jane"}}, ""},
		{"nameless kubelet", admissiontest.Request{Object: node("b"), User: &user.DefaultInfo{Name: "system:node:", Groups: []string{"system:nodes"}}}, `could not determine node from user "system:node:"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.req.User == nil {
				tt.req.User = &user.DefaultInfo{Name: "system:node:a", Groups: []string{"system:nodes"}}
			}
			_, err := admissiontest.Run(t, p, tt.req)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
