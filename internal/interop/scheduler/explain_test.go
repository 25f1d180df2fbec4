package scheduler

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/internal/interop/stock"
)

const readerUser = "reader"

// TestExplain runs the example by a kubeconfig that permits reading alone, against kube-apiserver and against Keelson's API server.
func TestExplain(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "explain")
	build := exec.Command("go", "build", "-o", binary, "./examples/explain")
	build.Dir = "../../.." // its demonstration needs more modules than this one has
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	t.Run("kube-apiserver", func(t *testing.T) {
		s := stock.APIServer(t, stock.APIServerOptions{Args: []string{"--disable-admission-plugins=ServiceAccount"}})
		kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
		stock.WriteKubeconfig(t, kubeconfig, s.ConfigFor(t, readerUser))
		explains(t, binary, kubeconfig, s.Config)
	})
	t.Run("keelson", func(t *testing.T) {
		srv := keelson(t)
		text, err := srv.Kubeconfig(&user.DefaultInfo{Name: readerUser})
		if err != nil {
			t.Fatal(err)
		}
		kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
		if err := os.WriteFile(kubeconfig, text, 0o600); err != nil {
			t.Fatal(err)
		}
		explains(t, binary, kubeconfig, config(t, srv, apiserver.Admin))
	})
}

// explains has a pending pod, a placed one, one that fits nowhere and one that does not exist explained.
func explains(t *testing.T, binary, kubeconfig string, admin *rest.Config) {
	k := newCluster(t, admin)
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: readerUser},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"get", "list"}}},
	}
	_, err := k.client.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{})
	k.must(err)
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: readerUser}, Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: readerUser}},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: readerUser},
	}
	_, err = k.client.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{})
	k.must(err)
	k.pod("pending", "500m", "")
	k.pod("huge", "3", "")
	placed := k.pod("placed", "1", "")
	target := corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: placed.Name, Namespace: placed.Namespace}, Target: corev1.ObjectReference{Kind: "Node", Name: "na"}}
	k.must(k.client.CoreV1().Pods(placed.Namespace).Bind(t.Context(), &target, metav1.CreateOptions{}))
	k.bound(placed)
	before, err := k.client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	k.must(err)
	file := filepath.Join(t.TempDir(), "pod.yaml")
	manifest := "apiVersion: v1\nkind: Pod\nmetadata: {name: new, labels: {app: web}}\nspec:\n  containers:\n  - {name: c, image: i, resources: {requests: {cpu: 300m}}}\n"
	k.must(os.WriteFile(file, []byte(manifest), 0o600))
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"pending"}, []string{"default/pending goes to nb with", "ahead of na (2 of 2 nodes can take it)", "PodTopologySpread", "NodeResourcesFit", "total"}},
		{[]string{"placed"}, []string{"It is on na; if it came now:", "default/placed goes to n"}},
		{[]string{"huge"}, []string{"default/huge fits on no node: 0/2 nodes are available: 2 Insufficient cpu.", "Rejected", "Insufficient cpu"}},
		{[]string{"-f", file, "-count", "12"}, []string{"default/new goes to nb with", "What if 12 of these came now? 9 would fit; the next would wait: 0/2 nodes are available: 2 Insufficient cpu.", "6 on nb", "3 on na"}},
	} {
		out, err := exec.Command(binary, append([]string{"-kubeconfig", kubeconfig}, c.args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", c.args, err, out)
		}
		for _, want := range c.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("%v does not say %q:\n%s", c.args, want, out)
			}
		}
	}
	if out, err := exec.Command(binary, "-kubeconfig", kubeconfig, "nobody").CombinedOutput(); err == nil || !strings.Contains(string(out), `pods "nobody" not found`) {
		t.Errorf("of a pod that isn't there: %v\n%s", err, out)
	}
	after, err := k.client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	k.must(err)
	if len(after.Items) != len(before.Items) {
		t.Errorf("%d pods, %d before", len(after.Items), len(before.Items))
	}
	for i := range after.Items {
		if after.Items[i].ResourceVersion != before.Items[i].ResourceVersion {
			t.Errorf("%s changed", after.Items[i].Name)
		}
	}
}
