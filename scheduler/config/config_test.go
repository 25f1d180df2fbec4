package config_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/config"
)

var update = flag.Bool("update", false, "rewrite the expected output")

// mine is a plugin at many points.
type mine struct{ args string }

func (mine) Name() string                                                         { return "Mine" }
func (mine) PreEnqueue(*scheduler.Pod) *scheduler.Rejection                       { return nil }
func (mine) Filter(*scheduler.Pod, *scheduler.Node) *scheduler.Rejection          { return nil }
func (mine) Score(*scheduler.Pod, *scheduler.Node) int64                          { return 0 }
func (mine) Reserve(*scheduler.Pod, *scheduler.Node, *scheduler.View) error       { return nil }
func (mine) Unreserve(*scheduler.Pod, string, *scheduler.View)                    {}
func (mine) Bind(context.Context, *scheduler.Pod, string) (handled bool, _ error) { return false, nil }

type other struct{}

func (other) Name() string                                                { return "Other" }
func (other) Filter(*scheduler.Pod, *scheduler.Node) *scheduler.Rejection { return nil }

var own = config.Options{Plugins: map[string]config.Factory{
	"Mine": func(args []byte) (scheduler.Plugin, error) {
		if strings.Contains(string(args), "fail") {
			return nil, errors.New("arguments not liked")
		}
		return mine{string(args)}, nil
	},
	"Other": func([]byte) (scheduler.Plugin, error) { return other{}, nil },
}}

// render is what a configuration says, as text.
func render(c *config.Config) string {
	var b strings.Builder
	fmt.Fprintf(&b, "back-off: %v to %v\n", c.Scheduler.InitialBackoff, c.Scheduler.MaxBackoff)
	le, cc := c.LeaderElection, c.ClientConnection
	fmt.Fprintf(&b, "leader election: %v %v/%v/%v %s %s/%s\n", *le.LeaderElect, le.LeaseDuration.Duration, le.RenewDeadline.Duration, le.RetryPeriod.Duration, le.ResourceLock, le.ResourceNamespace, le.ResourceName)
	fmt.Fprintf(&b, "client: %q %q %q %v %v\n", cc.Kubeconfig, cc.AcceptContentTypes, cc.ContentType, cc.QPS, cc.Burst)
	fmt.Fprintf(&b, "delay cache: %v\n", c.DelayCacheUntilActive)
	for _, p := range c.Scheduler.Profiles {
		fmt.Fprintf(&b, "profile %s\n", p.Name)
		for _, w := range p.Plugins {
			fmt.Fprintf(&b, "  %s", w.Plugin.Name())
			if w.Weight != 0 {
				fmt.Fprintf(&b, " x%d", w.Weight)
			}
			if w.Except != 0 {
				fmt.Fprintf(&b, ", but not at %s", w.Except)
			}
			if m, ok := w.Plugin.(mine); ok && m.args != "" {
				fmt.Fprintf(&b, ", arguments %s", m.args)
			}
			fmt.Fprintln(&b)
		}
		for _, at := range slices.Sorted(maps.Keys(p.Order)) {
			fmt.Fprintf(&b, "  at %s: %s\n", at, strings.Join(p.Order[at], ", "))
		}
	}
	for _, x := range c.Scheduler.Extenders {
		fmt.Fprintf(&b, "extender %s, ignorable: %v\n", x.Name(), x.Ignorable())
	}
	for _, w := range c.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	return b.String()
}

func TestFiles(t *testing.T) {
	for _, dir := range []string{"good", "bad"} {
		files, err := filepath.Glob(filepath.Join("testdata", dir, "*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, file := range files {
			t.Run(dir+"/"+filepath.Base(file), func(t *testing.T) {
				data, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				cfg, err := config.Read(data, own)
				if (err == nil) != (dir == "good") {
					t.Fatalf("error: %v", err)
				}
				var got string
				if err != nil {
					got = strings.ReplaceAll(err.Error(), ", profiles[", ",\n  profiles[") + "\n"
				} else {
					got = render(cfg)
					for _, p := range cfg.Scheduler.Profiles {
						if _, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: p.Plugins}); err != nil {
							t.Error(err)
						}
					}
				}
				golden := strings.TrimSuffix(file, ".yaml") + ".txt"
				if *update {
					if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(string(want), got); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
			})
		}
	}
}

// TestArguments checks that arguments get to the plugins.
func TestArguments(t *testing.T) {
	data, err := os.ReadFile("testdata/good/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Read(data, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profiles: cfg.Scheduler.Profiles})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"batch-1", "batch-2", "other"} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pool": strings.TrimRight(name, "-12")}}}
		n.Status.Allocatable = corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("9")}
		e.SetNode(n)
	}
	pod := func(uid, scheduler, requests string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: uid, UID: types.UID(uid)}}
		p.Spec.SchedulerName = scheduler
		list := corev1.ResourceList{"cpu": resource.MustParse("1")}
		if requests != "" {
			list[corev1.ResourceName(requests)] = resource.MustParse("1")
		}
		p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: list}}}
		return p
	}
	e.Assign(scheduler.NewPod(pod("there", "", "")), "batch-2")
	for _, c := range []struct {
		scheduler, requests string
		feasible            int
		node                string
	}{
		{"default-scheduler", "", 3, ""},
		{"binpack", "", 2, "batch-2"},
		{"binpack", "example.com/a", 2, "batch-2"}, // ignored by name
		{"binpack", "example.org/x", 2, "batch-2"}, // and by group
		{"binpack", "example.com/b", 0, ""},
		{"nobody", "", 0, ""},
	} {
		d := e.Decide(scheduler.NewPod(pod("p", c.scheduler, c.requests)))
		if d.Feasible != c.feasible || c.node != "" && d.Node != c.node {
			t.Errorf("%s, %q: %+v, want %d feasible, on %s", c.scheduler, c.requests, d, c.feasible, c.node)
		}
	}
}

func TestDefault(t *testing.T) {
	cfg, err := config.Default(config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/good/empty.txt")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), render(cfg)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestRESTConfig(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(`{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c"}}],"clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:1"}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func(kubeconfig string) *config.Config {
		cfg, err := config.Read([]byte("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nclientConnection: {kubeconfig: "+kubeconfig+", qps: 7}\n"), config.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	rc, err := read(kubeconfig).RESTConfig()
	if err != nil || rc.Host != "http://127.0.0.1:1" || rc.QPS != 7 || rc.Burst != 100 || rc.ContentType != "application/vnd.kubernetes.protobuf" {
		t.Errorf("%+v, %v", rc, err)
	}
	if _, err := read(kubeconfig + "x").RESTConfig(); err == nil || !strings.Contains(err.Error(), "clientConnection.kubeconfig") {
		t.Error(err)
	}
}

// FuzzRead checks that no file makes it panic, and that what it accepts makes an engine.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := config.Read(data, own)
		if err != nil {
			return
		}
		if len(cfg.Scheduler.Profiles) == 0 {
			t.Fatal("no profile")
		}
		for _, p := range cfg.Scheduler.Profiles {
			if len(p.Plugins) == 0 {
				continue // all is disabled
			}
			if _, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: p.Plugins}); err != nil {
				t.Fatal(err)
			}
		}
	})
}
