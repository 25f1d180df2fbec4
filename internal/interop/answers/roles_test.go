package answers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/keelson/keelson/apiserver/auth/rbac"
)

// unserved are the groups and resources that no bootstrap role of Keelson needs to be about.
var unserved = []string{"certificates.k8s.io/clustertrustbundles", "certificates.k8s.io/podcertificaterequests"}

// gated are resources that kube-apiserver's roles are about if features are on which are always on here.
var gated = []string{"scheduling.k8s.io/workloads", "scheduling.k8s.io/podgroups"}

// absent are the roles of what is not there.
var absent = sets.New(
	"system:cluster-trust-bundle-discovery", "system:controller:kube-apiserver-serving-clustertrustbundle-publisher",
	"system:controller:podcertificaterequestcleaner", "system:controller:selinux-warning-controller",
	"system:controller:service-cidrs-controller", "system:controller:storage-version-migrator-controller", "system:controller:volumeattributesclass-protection-controller",
)

// Bootstrap roles allow what those of kube-apiserver do, which its sources list.
func TestBootstrapRoles(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "plugin/pkg/auth/authorizer/rbac/bootstrappolicy/testdata")
	want := map[string]sets.Set[string]{}
	for _, file := range []string{"cluster-roles.yaml", "controller-roles.yaml", "namespace-roles.yaml"} {
		raw, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		var list struct{ Items []rbacv1.ClusterRole }
		if err := yaml.Unmarshal(raw, &list); err != nil {
			t.Fatal(err)
		}
		for _, r := range list.Items {
			if !absent.Has(r.Name) {
				want[r.Namespace+"/"+r.Name] = expand(r.Rules)
			}
		}
	}
	got := map[string]sets.Set[string]{}
	policy := rbac.BootstrapPolicy(rbac.BootstrapOptions{})
	for _, r := range policy.ClusterRoles {
		got["/"+r.Name] = expand(r.Rules)
	}
	for _, r := range policy.Roles {
		got[r.Namespace+"/"+r.Name] = expand(r.Rules)
	}
	if len(want) < 50 {
		t.Fatalf("only %d roles found", len(want))
	}
	for name := range sets.KeySet(want).Union(sets.KeySet(got)) {
		if want[name] == nil || got[name] == nil {
			t.Errorf("role %s: expected %v, got %v", name, want[name] != nil, got[name] != nil)
			continue
		}
		for _, p := range sets.List(want[name].Difference(got[name])) {
			if !about(p, unserved) {
				t.Errorf("role %s lacks %s", name, p)
			}
		}
		for _, p := range sets.List(got[name].Difference(want[name])) {
			if !about(p, gated) {
				t.Errorf("role %s has %s", name, p)
			}
		}
	}
}

func about(permission string, resources []string) bool {
	return slices.ContainsFunc(resources, func(r string) bool { return strings.HasPrefix(permission, r) })
}

// expand lists permissions one by one, as GROUP/RESOURCE NAME VERB or PATH VERB.
func expand(rules []rbacv1.PolicyRule) sets.Set[string] {
	out := sets.New[string]()
	for _, r := range rules {
		names := r.ResourceNames
		if len(names) == 0 {
			names = []string{"*"}
		}
		for _, verb := range r.Verbs {
			for _, path := range r.NonResourceURLs {
				out.Insert(path + " " + verb)
			}
			for _, group := range r.APIGroups {
				for _, resource := range r.Resources {
					for _, name := range names {
						out.Insert(fmt.Sprintf("%s/%s %s %s", group, resource, name, verb))
					}
				}
			}
		}
	}
	return out
}
