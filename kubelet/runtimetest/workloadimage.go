package runtimetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/keelson/keelson/kubelet/processruntime/image"
)

// BuildWorkload compiles the program that the suite runs in containers, statically, and returns its path. It needs the go command.
func BuildWorkload(t testing.TB) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "workload")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "github.com/keelson/keelson/kubelet/runtimetest/workload")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=-mod=readonly")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the workload: %v\n%s", err, b)
	}
	return out
}

// WorkloadImage makes an image of a binary from BuildWorkload.
func WorkloadImage(t testing.TB, binary string) v1.Image {
	t.Helper()
	img, err := image.FromBinary(binary, image.Options{Path: "/workload"})
	if err != nil {
		t.Fatal(err)
	}
	return img
}
