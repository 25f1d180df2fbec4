package store_test

import (
	"os/exec"
	"strings"
	"testing"
)

// Whoever uses one store compiles nothing of the others.
func TestDependencies(t *testing.T) {
	for pkg, forbidden := range map[string][]string{
		".":           {"."},
		"./memstore":  {"k8s.io/", "sigs.k8s.io/", "google.golang.org/", "go.etcd.io/", "github.com/anishathalye"},
		"./boltstore": {"k8s.io/", "sigs.k8s.io/", "google.golang.org/", "go.etcd.io/etcd", "github.com/anishathalye"},
		"./storetest": {"k8s.io/", "sigs.k8s.io/", "google.golang.org/", "go.etcd.io/"},
		"./etcdstore": {"k8s.io/", "sigs.k8s.io/", "go.etcd.io/bbolt", "go.etcd.io/etcd/server"},
		"./etcdserve": {"k8s.io/api", "k8s.io/client-go", "sigs.k8s.io/", "go.etcd.io/etcd/client", "go.etcd.io/etcd/server"},
	} {
		out, err := exec.Command("go", "list", "-deps", pkg).Output()
		if err != nil {
			t.Skipf("go list does not work here: %v", err)
		}
		for _, dep := range strings.Fields(string(out)) {
			own := strings.HasPrefix(dep, "github.com/keelson/keelson/")
			first, _, _ := strings.Cut(dep, "/")
			standard := !strings.Contains(first, ".") || first == "vendor"
			for _, f := range forbidden {
				if f == "." && !own && !standard || f != "." && strings.HasPrefix(dep, f) {
					t.Errorf("%s depends on %s", pkg, dep)
				}
			}
			if own && !strings.HasPrefix(dep, "github.com/keelson/keelson/store") {
				t.Errorf("%s depends on %s", pkg, dep)
			}
		}
	}
}
