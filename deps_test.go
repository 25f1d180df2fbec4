package keelson_test

import (
	"os/exec"
	"slices"
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
		{pkg: "scheduler/...", never: []string{module + "apiserver", module + "store", module + "kubelet", module + "controller/builtin", module + "proxy", module + "cni", "google.golang.org/grpc", "github.com/containerd", "github.com/gorilla", "github.com/moby", "go.etcd.io/", "k8s.io/cri-"}},
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
			for _, dep := range unwanted(strings.Fields(string(out)), tc.only, tc.never) {
				t.Errorf("depends on %s", dep)
			}
		})
	}
}

// unwanted are the dependencies that are not allowed, those of the standard library aside.
func unwanted(deps, only, never []string) []string {
	var out []string
	for _, dep := range deps {
		first, _, _ := strings.Cut(dep, "/")
		if !strings.Contains(first, ".") || strings.HasPrefix(dep, "vendor/") {
			continue
		}
		if len(only) > 0 && !hasPrefix(dep, only) || hasPrefix(dep, never) || strings.HasPrefix(dep, "k8s.io/kubernetes") {
			out = append(out, dep)
		}
	}
	return out
}

// The test above can fail.
func TestUnwantedDependenciesAreFound(t *testing.T) {
	deps := []string{"fmt", "vendor/golang.org/x/net", "github.com/keelson/keelson/store", "google.golang.org/grpc/codes", "k8s.io/kubernetes/pkg/api"}
	for _, tc := range []struct {
		only, never, want []string
	}{
		{want: deps[4:]},
		{never: []string{"google.golang.org/grpc"}, want: deps[3:]},
		{only: []string{"github.com/keelson/keelson/store"}, want: deps[3:]},
		{only: []string{"google.golang.org/grpc"}, want: []string{deps[2], deps[4]}},
	} {
		if got := unwanted(deps, tc.only, tc.never); !slices.Equal(got, tc.want) {
			t.Errorf("only %v, never %v: %v, expected %v", tc.only, tc.never, got, tc.want)
		}
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
