package fakeruntime_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
	utilexec "k8s.io/utils/exec"

	"github.com/keelson/keelson/kubelet"
	"github.com/keelson/keelson/kubelet/fakeruntime"
	"github.com/keelson/keelson/kubelet/runtimetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSuite(t *testing.T) {
	runtimetest.Run(t, runtimetest.Config{
		New: func(t *testing.T) *runtimetest.Instance {
			rt, err := fakeruntime.New(fakeruntime.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := rt.PullImage(t.Context(), &runtimeapi.ImageSpec{Image: "localhost/workload:1"}, nil, nil); err != nil {
				t.Fatal(err)
			}
			return &runtimetest.Instance{Runtime: programs{rt}, Images: rt, Events: rt, Image: "localhost/workload:1"}
		},
		Without: []runtimetest.Feature{
			runtimetest.Processes, runtimetest.Filesystem, runtimetest.PIDs, runtimetest.Users, runtimetest.Limits, runtimetest.Capabilities, runtimetest.Hostname,
			runtimetest.Streaming, runtimetest.Network,
		},
	})
}

// programs simulates the suite's program as far as its end goes.
type programs struct{ *fakeruntime.Runtime }

func (p programs) CreateContainer(ctx context.Context, sandbox string, config *runtimeapi.ContainerConfig, sc *runtimeapi.PodSandboxConfig) (string, error) {
	plan := map[string]string{fakeruntime.Prefix + "run-time": "0s"}
	for _, command := range append(config.Command, config.Args...)[1:] {
		switch word, arg, _ := strings.Cut(command, " "); word {
		case "sleep":
			plan[fakeruntime.Prefix+"run-time"] = arg + "ms"
		case "exit":
			plan[fakeruntime.Prefix+"exit-code"] = arg
		case "trap", "ignore", "listen", "stdin":
			plan[fakeruntime.Prefix+"run-time"] = "1h"
			if word == "ignore" {
				plan[fakeruntime.Prefix+"stop-delay"] = "1h"
			}
		}
	}
	c := proto.Clone(config).(*runtimeapi.ContainerConfig)
	if c.Annotations == nil {
		c.Annotations = map[string]string{}
	}
	maps.Copy(c.Annotations, plan)
	return p.Runtime.CreateContainer(ctx, sandbox, c, sc)
}

func (p programs) ContainerStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.ContainerStatusResponse, error) {
	resp, err := p.Runtime.ContainerStatus(ctx, id, verbose)
	if err == nil {
		resp.Status.Annotations = withoutPlan(resp.Status.Annotations)
	}
	return resp, err
}

func (p programs) ListContainers(ctx context.Context, f *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	list, err := p.Runtime.ListContainers(ctx, f)
	for _, c := range list {
		c.Annotations = withoutPlan(c.Annotations)
	}
	return list, err
}

func withoutPlan(m map[string]string) map[string]string {
	m = maps.Clone(m)
	maps.DeleteFunc(m, func(k, _ string) bool { return strings.HasPrefix(k, fakeruntime.Prefix) })
	return m
}

// node is a runtime with one pod, in virtual time.
func node(t *testing.T, annotations, labels map[string]string, role string, f func(rt *fakeruntime.Runtime, id string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		rt, err := fakeruntime.New(fakeruntime.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		sandbox, err := rt.RunPodSandbox(ctx, &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "ns", Uid: "u"}, Labels: labels, Annotations: annotations}, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rt.PullImage(ctx, &runtimeapi.ImageSpec{Image: "img"}, nil, nil); err != nil {
			t.Fatal(err)
		}
		id, err := rt.CreateContainer(ctx, sandbox, &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: "img"},
			Annotations: map[string]string{kubelet.AnnotationContainerRole: role},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		f(rt, id)
	})
}

func TestPlans(t *testing.T) {
	p := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[fakeruntime.Prefix+kv[i]] = kv[i+1]
		}
		return m
	}
	job := map[string]string{"batch.kubernetes.io/job-name": "j"}
	for _, tc := range []struct {
		name        string
		annotations map[string]string
		labels      map[string]string
		role        string
		after       time.Duration
		want        string
	}{
		{"runs for ever", nil, nil, "main", 1000 * time.Hour, "CONTAINER_RUNNING"},
		{"init ends at once", nil, nil, "init", 0, "CONTAINER_EXITED 0 Completed"},
		{"job still runs", nil, job, "main", 999 * time.Millisecond, "CONTAINER_RUNNING"},
		{"job ends", nil, job, "main", time.Second, "CONTAINER_EXITED 0 Completed"},
		{"sidecar of a job runs", nil, job, "sidecar", time.Hour, "CONTAINER_RUNNING"},
		{"run time and code", p("run-time", "1m", "exit-code", "3"), nil, "main", time.Minute, "CONTAINER_EXITED 3 Error"},
		{"for one container", p("run-time", "1h", "run-time.c", "1s"), nil, "main", time.Minute, "CONTAINER_EXITED 0 Completed"},
		{"for another container", p("run-time.d", "1s"), nil, "main", time.Minute, "CONTAINER_RUNNING"},
		{"out of memory", p("run-time", "1s", "oom", "true"), nil, "main", time.Minute, "CONTAINER_EXITED 137 OOMKilled"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			node(t, tc.annotations, tc.labels, tc.role, func(rt *fakeruntime.Runtime, id string) {
				if err := rt.StartContainer(context.Background(), id); err != nil {
					t.Fatal(err)
				}
				time.Sleep(tc.after)
				st, err := rt.ContainerStatus(context.Background(), id, false)
				if err != nil {
					t.Fatal(err)
				}
				got := st.Status.State.String()
				if st.Status.State == runtimeapi.ContainerState_CONTAINER_EXITED {
					got = fmt.Sprintf("%s %d %s", got, st.Status.ExitCode, st.Status.Reason)
				}
				if got != tc.want {
					t.Errorf("%s, want %s", got, tc.want)
				}
			})
		})
	}
}

func TestDelays(t *testing.T) {
	node(t, map[string]string{fakeruntime.Prefix + "start-delay": "5s", fakeruntime.Prefix + "stop-delay": "10s"}, nil, "main", func(rt *fakeruntime.Runtime, id string) {
		ctx := context.Background()
		begin := time.Now()
		if err := rt.StartContainer(ctx, id); err != nil || time.Since(begin) != 5*time.Second {
			t.Error(time.Since(begin), err)
		}
		begin = time.Now()
		if err := rt.StopContainer(ctx, id, 3); err != nil || time.Since(begin) != 3*time.Second {
			t.Error(time.Since(begin), err)
		}
		if st, _ := rt.ContainerStatus(ctx, id, false); st.Status.ExitCode != 137 {
			t.Errorf("exit code %d of a container that took too long", st.Status.ExitCode)
		}
	})
}

func TestProbesAndCommands(t *testing.T) {
	node(t, map[string]string{fakeruntime.Prefix + "fail-probe": "liveness=30s,readiness"}, nil, "main", func(rt *fakeruntime.Runtime, id string) {
		ctx := context.Background()
		if err := rt.StartContainer(ctx, id); err != nil {
			t.Fatal(err)
		}
		ask := func(kind string) bool {
			ok, _, err := rt.Probe(ctx, id, kind, corev1.ProbeHandler{})
			if err != nil {
				t.Fatal(err)
			}
			return ok
		}
		if !ask("Liveness") || ask("Readiness") || !ask("Startup") {
			t.Error("at the start")
		}
		time.Sleep(31 * time.Second)
		if ask("Liveness") {
			t.Error("liveness after 31 seconds")
		}
		out, _, err := rt.ExecSync(ctx, id, []string{"echo", "a", "b"}, 0)
		if string(out) != "a b\n" || err != nil {
			t.Errorf("%q %v", out, err)
		}
		_, _, err = rt.ExecSync(ctx, id, []string{"sh", "-c", "exit 9"}, 0)
		var exit utilexec.ExitError
		if !errors.As(err, &exit) || exit.ExitStatus() != 9 {
			t.Error(err)
		}
	})
}

func TestBadAnnotation(t *testing.T) {
	rt, err := fakeruntime.New(fakeruntime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	sandbox, err := rt.RunPodSandbox(ctx, &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "p"}, Annotations: map[string]string{fakeruntime.Prefix + "run-time": "soon"}}, "")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = rt.PullImage(ctx, &runtimeapi.ImageSpec{Image: "img"}, nil, nil)
	if _, err := rt.CreateContainer(ctx, sandbox, &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: "img"}}, nil); err == nil {
		t.Error("a run time that can't be parsed was taken")
	}
}

// BenchmarkContainers shows what a container costs in memory.
func BenchmarkContainers(b *testing.B) {
	rt, err := fakeruntime.New(fakeruntime.Options{})
	if err != nil {
		b.Fatal(err)
	}
	ctx := b.Context()
	if _, err := rt.PullImage(ctx, &runtimeapi.ImageSpec{Image: "img"}, nil, nil); err != nil {
		b.Fatal(err)
	}
	host := &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}}}
	b.ReportAllocs()
	for i := range b.N {
		uid := fmt.Sprint(i)
		labels := map[string]string{kubelettypes.KubernetesPodUIDLabel: uid}
		s, err := rt.RunPodSandbox(ctx, &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: uid, Uid: uid}, Labels: labels, Linux: host}, "")
		if err != nil {
			b.Fatal(err)
		}
		id, err := rt.CreateContainer(ctx, s, &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: "img"}, Labels: labels}, nil)
		if err != nil {
			b.Fatal(err)
		}
		if err := rt.StartContainer(ctx, id); err != nil {
			b.Fatal(err)
		}
	}
}
