//go:build linux

package processruntime_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/processruntime"
	"github.com/keelson/keelson/kubelet/processruntime/image"
)

// roleEnv makes the test program play a program that uses the runtime and is then killed.
const roleEnv = "KEELSON_TEST_ROLE"

// play runs a pod with three containers and waits for its own end.
func play(role string) {
	isolation, kill, _ := strings.Cut(role, ",")
	fail := func(err error) {
		if err != nil {
			fmt.Println("error:", err)
			select {}
		}
	}
	root := os.Getenv("KEELSON_TEST_ROOT")
	r, err := processruntime.New(processruntime.Options{Root: root, Isolation: processruntime.Isolation(isolation), KillOnClose: kill == "kill"})
	fail(err)
	img, err := image.FromBinary(os.Getenv(binaryEnv), image.Options{Path: "/workload"})
	fail(err)
	ctx := context.Background()
	_, err = r.ImportImage(ctx, img, workload)
	fail(err)
	pc := &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "n", Uid: "u"}, LogDirectory: filepath.Join(root, "logs")}
	pod, err := r.RunPodSandbox(ctx, pc, "")
	fail(err)
	for _, command := range []string{"trap", "sleep 500|print bye|exit 11", "child|ignore"} {
		id, err := r.CreateContainer(ctx, pod, &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "c" + command[:1]}, Image: &runtimeapi.ImageSpec{Image: workload},
			Command: append([]string{"/workload"}, strings.Split(command, "|")...), LogPath: command[:1] + ".log",
		}, pc)
		fail(err)
		fail(r.StartContainer(ctx, id))
		fmt.Println(id)
	}
	fmt.Println("done")
	select {}
}

// killed starts the program, waits until its pod runs, and kills it as kill -9 does.
func killed(t *testing.T, root, role, binary string) []string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+role, "KEELSON_TEST_ROOT="+root, binaryEnv+"="+binary)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for sc := bufio.NewScanner(out); sc.Scan() && sc.Text() != "done"; {
		if strings.HasPrefix(sc.Text(), "error") {
			t.Error(sc.Text())
			break
		}
		ids = append(ids, sc.Text())
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if len(ids) != 3 {
		t.Fatalf("the program started %d containers", len(ids))
	}
	return ids
}

func TestKilled(t *testing.T) {
	binary := workloadBinary(t)
	for _, isolation := range levels(t) {
		t.Run(string(isolation), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			root := filepath.Join(shortDir(t), "root")
			ids := killed(t, root, string(isolation), binary)
			inst := open(t, processruntime.Options{Root: root, Isolation: isolation})
			r := inst.Runtime
			status := func(id string) *runtimeapi.ContainerStatus {
				resp, err := r.ContainerStatus(ctx, id, false)
				if err != nil {
					t.Fatal(err)
				}
				return resp.Status
			}
			if st := status(ids[0]); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
				t.Errorf("the container that runs on is %v", st)
			}
			for status(ids[1]).State != runtimeapi.ContainerState_CONTAINER_EXITED && ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			if st := status(ids[1]); st.ExitCode != 11 || st.Reason != "Error" {
				t.Errorf("the container that ended by itself is %v", st)
			}
			if out, _, err := r.ExecSync(ctx, ids[0], []string{"/workload", "print here"}, 5*time.Second); err != nil || string(out) != "here\n" {
				t.Errorf("ExecSync: %q, %v", out, err)
			}
			pods, err := r.ListPodSandbox(ctx, nil)
			if err != nil || len(pods) != 1 || pods[0].State != runtimeapi.PodSandboxState_SANDBOX_READY {
				t.Fatalf("ListPodSandbox: %v, %v", pods, err)
			}
			if err := r.RemovePodSandbox(ctx, pods[0].Id); err != nil {
				t.Fatal(err)
			}
			gone(ctx, t, inst.Leftovers)
		})
	}
}

func TestKilledWithKillOnClose(t *testing.T) {
	binary := workloadBinary(t)
	for _, isolation := range levels(t) {
		t.Run(string(isolation), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			root := filepath.Join(shortDir(t), "root")
			killed(t, root, string(isolation)+",kill", binary)
			// The processes end without anybody's help; the rest goes with the next runtime's removal.
			gone(ctx, t, func() []string {
				var procs []string
				for _, l := range leftovers(root) {
					if strings.HasPrefix(l, "process") {
						procs = append(procs, l)
					}
				}
				return procs
			})
			inst := open(t, processruntime.Options{Root: root, Isolation: isolation})
			var pods []*runtimeapi.PodSandbox
			notReady := &runtimeapi.PodSandboxFilter{State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY}}
			gone(ctx, t, func() []string {
				var err error
				if pods, err = inst.Runtime.ListPodSandbox(ctx, notReady); err != nil || len(pods) != 1 {
					return []string{fmt.Sprintf("%d pods that are not ready, %v", len(pods), err)}
				}
				return nil
			})
			if err := inst.Runtime.RemovePodSandbox(ctx, pods[0].Id); err != nil {
				t.Fatal(err)
			}
			gone(ctx, t, inst.Leftovers)
		})
	}
}

func gone(ctx context.Context, t *testing.T, left func() []string) {
	t.Helper()
	for {
		l := left()
		if len(l) == 0 {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("left: %q", l)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// levels are those that this machine permits.
func levels(t *testing.T) []processruntime.Isolation {
	var out []processruntime.Isolation
	for _, i := range []processruntime.Isolation{processruntime.IsolationNamespaces, processruntime.IsolationUserNS, processruntime.IsolationNone} {
		r, err := processruntime.New(processruntime.Options{Root: shortDir(t), Isolation: i})
		if err != nil {
			if os.Getenv("KEELSON_REQUIRE_PRIVILEGED") == "1" {
				t.Fatal(err)
			}
			t.Logf("without %s: %v", i, err)
			continue
		}
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
		out = append(out, i)
	}
	return out
}
