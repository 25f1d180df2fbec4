//go:build linux

package processruntime_test

import (
	"context"
	"fmt"
	"os"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/processruntime"
	"github.com/keelson/keelson/kubelet/processruntime/image"
)

// A pod from an image that is made of a binary at hand.
func ExampleNew() {
	// The first lines of main:
	if processruntime.Init() {
		return
	}
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	rt, err := processruntime.New(processruntime.Options{Root: dir, Isolation: processruntime.IsolationNone, KillOnClose: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer rt.Close(ctx)

	img, err := image.FromBinary("/bin/true", image.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := rt.ImportImage(ctx, img, "localhost/true:1"); err != nil {
		fmt.Println(err)
		return
	}
	pod := &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "web", Namespace: "default", Uid: "1"}}
	sandbox, err := rt.RunPodSandbox(ctx, pod, "")
	if err != nil {
		fmt.Println(err)
		return
	}
	st, err := rt.PodSandboxStatus(ctx, sandbox, false)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(st.Status.State)
	// Output: SANDBOX_READY
}
