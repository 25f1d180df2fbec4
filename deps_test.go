package keelson_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestDependencies pins what a package may bring into a program that imports it.
func TestDependencies(t *testing.T) {
	const module = "github.com/keelson/keelson/"
	for _, tc := range []struct {
		pkg string
		// only, if not empty, are the only prefixes allowed outside the standard library; never are prefixes not allowed.
		only, never []string
	}{
		{pkg: "store", only: []string{module + "store"}},
		{pkg: "store/memstore", only: []string{module + "store", "github.com/google/btree"}},
		{pkg: "store/boltstore", only: []string{"github.com/go-logr/logr", module + "store", "github.com/google/btree", "go.etcd.io/bbolt", "golang.org/x/sys"}},
		{pkg: "scheduler", never: []string{module + "apiserver", module + "store", module + "kubelet", module + "controller/builtin", "google.golang.org/grpc", "github.com/containerd", "k8s.io/apiserver", "k8s.io/cri-", "k8s.io/kube-scheduler"}},
		{pkg: "scheduler/plugins", never: []string{module + "apiserver", module + "store", module + "kubelet", "k8s.io/apiserver", "k8s.io/kube-scheduler"}},
		{pkg: "scheduler/config", never: []string{module + "apiserver", module + "store", module + "kubelet", "google.golang.org/grpc", "k8s.io/apiserver", "k8s.io/kube-scheduler/framework"}},
		{pkg: "controller", never: []string{module + "apiserver", module + "store", module + "kubelet", module + "scheduler", "google.golang.org/grpc", "github.com/containerd", "k8s.io/apiserver"}},
		{pkg: "proxy", never: []string{module + "apiserver", module + "store", module + "kubelet", module + "scheduler", module + "controller", "google.golang.org/grpc", "github.com/containerd"}},
		{pkg: "cni", only: []string{module + "cni"}},
		{pkg: "kubelet", never: []string{module + "apiserver", module + "store", module + "scheduler", module + "controller", module + "proxy", "github.com/containerd"}},
		{pkg: "apiserver", never: []string{module + "scheduler", module + "controller", module + "proxy", module + "cni", "github.com/containerd", "k8s.io/cri-", "go.etcd.io/"}},
	} {
		t.Run(tc.pkg, func(t *testing.T) {
			out, err := exec.Command("go", "list", "-deps", "./"+tc.pkg).Output()
			if err != nil {
				t.Fatalf("go list: %v", err)
			}
			for _, dep := range strings.Fields(string(out)) {
				first, _, _ := strings.Cut(dep, "/")
				if !strings.Contains(first, ".") || strings.HasPrefix(dep, "vendor/") {
					continue // the standard library
				}
				if len(tc.only) > 0 && !hasPrefix(dep, tc.only) {
					t.Errorf("depends on %s", dep)
				}
				if hasPrefix(dep, tc.never) {
					t.Errorf("depends on %s", dep)
				}
				if strings.HasPrefix(dep, "k8s.io/kubernetes") {
					t.Errorf("depends on %s", dep)
				}
			}
		})
	}
}

func hasPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if s == strings.TrimSuffix(p, "/") || strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
