package scheduler_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

func important(p *corev1.Pod) { p.Spec.PriorityClassName = "system-cluster-critical" }

func whole(p *corev1.Pod) {
	p.Spec.Containers[0].Resources.Requests = quantities("3", "")
}

// addWhole creates a pod that fills a node.
func (k *cluster) addWhole(name string, mods ...podMod) *corev1.Pod {
	k.Helper()
	p := testPod(name, "web", mods...)
	p.Namespace, p.UID = metav1.NamespaceDefault, ""
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "web"}}
	whole(p)
	k.must(k.client.Create(k.Context(), p))
	return p
}

func TestPreemption(t *testing.T) {
	t.Run("a victim goes, the pod takes its place", func(t *testing.T) {
		reg := prometheus.NewRegistry()
		k := newClusterWith(t, scheduler.Options{Profile: plugins.Default(), Metrics: reg})
		k.addNode("n", "")
		low := k.addWhole("low")
		k.bound(low)
		high := k.addWhole("high", important)
		// Nobody ends the pod but us, as the kubelet would.
		k.wait(low, "being deleted", func() bool { return low.DeletionTimestamp != nil })
		if *low.DeletionGracePeriodSeconds == 0 {
			t.Error("not gracefully")
		}
		found := false
		for _, c := range low.Status.Conditions {
			found = found || c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonPreemptionByScheduler &&
				c.Message == "default-scheduler: preempting to accommodate a higher priority pod"
		}
		if !found {
			t.Errorf("conditions %+v", low.Status.Conditions)
		}
		k.event(low, "Preempted", "Preempted by pod "+string(high.UID)+" on node n")
		k.waiting(high, "0/1 nodes are available: 1 Insufficient cpu. preemption: ")
		k.wait(high, "nominated", func() bool { return high.Status.NominatedNodeName == "n" })
		if high.Spec.NodeName != "" {
			t.Error("bound while the victim is there")
		}
		k.must(k.client.Delete(k.Context(), low, client.GracePeriodSeconds(0)))
		k.bound(high)
		text := gathered(t, reg)
		for _, want := range []string{"scheduler_preemption_attempts_total", "scheduler_preemption_victims", "scheduler_pending_pods", "scheduler_queue_incoming_pods_total"} {
			if !strings.Contains(text, want) {
				t.Errorf("no metric %s", want)
			}
		}
	})
	t.Run("no victims, no policy", func(t *testing.T) {
		k := newCluster(t)
		k.addNode("n", "")
		k.bound(k.addWhole("first", important))
		never := corev1.PreemptNever
		k.waiting(k.addWhole("second", important), "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.")
		k.must(k.client.Create(k.Context(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "polite"}, Value: 9, PreemptionPolicy: &never}))
		polite := testPod("polite", "web")
		polite.Spec.PriorityClassName = "polite"
		polite.Namespace, polite.UID = "default", ""
		polite.Spec.Containers = []corev1.Container{{Name: "c", Image: "web"}}
		whole(polite)
		k.must(k.client.Create(k.Context(), polite))
		k.waiting(polite, "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.")
	})
	t.Run("budgets are respected where possible", func(t *testing.T) {
		k := newCluster(t)
		k.addNode("a", "a")
		k.addNode("b", "b")
		guarded := k.addWhole("guarded", func(p *corev1.Pod) { p.Labels["app"] = "guarded" })
		k.bound(guarded)
		free := k.addWhole("free")
		k.bound(free)
		pdb := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}}
		pdb.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "guarded"}}
		k.must(k.client.Create(k.Context(), pdb))
		high := k.addWhole("high", important)
		k.wait(free, "being deleted", func() bool { return free.DeletionTimestamp != nil })
		k.must(k.client.Delete(k.Context(), free, client.GracePeriodSeconds(0)))
		k.bound(high)
		k.wait(guarded, "left alone", func() bool { return guarded.DeletionTimestamp == nil })
	})
}

func gathered(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, m := range all {
		b.WriteString(m.String())
	}
	return b.String()
}

// gatekeeper has a hand in every step after the decision, and writes down which.
type gatekeeper struct {
	mu      sync.Mutex
	steps   map[string][]string // by pod
	answer  func(pod string) scheduler.Permission
	failing string // a step that fails once
	handle  scheduler.Handle
}

func (g *gatekeeper) Name() string                    { return "Gatekeeper" }
func (g *gatekeeper) Attach(h scheduler.Handle) error { g.handle = h; return nil }
func (g *gatekeeper) did(p *scheduler.Pod, step string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.steps[p.Object.Name] = append(g.steps[p.Object.Name], step)
	if g.failing == step {
		g.failing = ""
		return apierrors.NewServiceUnavailable("refused by the test")
	}
	return nil
}

func (g *gatekeeper) Reserve(p *scheduler.Pod, _ *scheduler.Node, _ *scheduler.View) error {
	return g.did(p, "reserve")
}

func (g *gatekeeper) Unreserve(p *scheduler.Pod, _ string, _ *scheduler.View) {
	_ = g.did(p, "unreserve")
}

func (g *gatekeeper) Permit(p *scheduler.Pod, _ string) scheduler.Permission {
	_ = g.did(p, "permit")
	if g.answer == nil {
		return scheduler.Permission{}
	}
	return g.answer(p.Object.Name)
}

func (g *gatekeeper) PreBind(_ context.Context, p *scheduler.Pod, _ string) error {
	return g.did(p, "prebind")
}

func (g *gatekeeper) Bind(_ context.Context, p *scheduler.Pod, _ string) (bool, error) {
	return false, g.did(p, "bind")
}

func (g *gatekeeper) PostBind(_ context.Context, p *scheduler.Pod, _ string) {
	_ = g.did(p, "postbind")
}

func (g *gatekeeper) of(pod string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.steps[pod], " ")
}

func (k *cluster) steps(g *gatekeeper, pod, want string) {
	k.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && g.of(pod) != want; time.Sleep(5 * time.Millisecond) {
	}
	if got := g.of(pod); got != want {
		k.Fatalf("%s: steps %q, want %q", pod, got, want)
	}
}

func newGatekeeper() *gatekeeper { return &gatekeeper{steps: map[string][]string{}} }

func withPlugin(p scheduler.Plugin) scheduler.Options {
	return scheduler.Options{Profile: append(plugins.Default(), scheduler.Weighted{Plugin: p}), InitialBackoff: time.Millisecond}
}

func TestBindingPlugins(t *testing.T) {
	t.Run("in order", func(t *testing.T) {
		g := newGatekeeper()
		k := newClusterWith(t, withPlugin(g))
		k.addNode("n", "")
		k.bound(k.addPod("p"))
		k.steps(g, "p", "reserve permit prebind bind postbind")
	})
	for _, step := range []string{"reserve", "prebind", "bind"} {
		t.Run(step+" fails", func(t *testing.T) {
			g := newGatekeeper()
			g.failing = step
			k := newClusterWith(t, withPlugin(g))
			k.addNode("n", "")
			p := k.addPod("p")
			k.bound(p)
			all := "reserve permit prebind bind postbind"
			upTo := all[:strings.Index(" "+all, " "+step)]
			// A failed Reserve is undone at once, and with the place it is given back.
			undone := " unreserve "
			if step == "reserve" {
				undone = " unreserve unreserve "
			}
			k.steps(g, "p", upTo+step+undone+all)
			k.event(p, "FailedScheduling", "")
		})
	}
	t.Run("permission", func(t *testing.T) {
		g := newGatekeeper()
		g.answer = func(pod string) scheduler.Permission {
			switch {
			case strings.HasPrefix(pod, "wait"):
				return scheduler.Permission{Wait: time.Hour}
			case pod == "short" && !strings.Contains(g.of(pod), "unreserve"):
				return scheduler.Permission{Wait: time.Millisecond}
			case pod == "never":
				return scheduler.Permission{Reject: scheduler.Reject("not this one")}
			}
			return scheduler.Permission{}
		}
		k := newClusterWith(t, withPlugin(g))
		k.addNode("n", "")
		wait1, wait2 := k.addWhole("wait1"), k.addPod("wait2")
		k.steps(g, "wait1", "reserve permit")
		k.steps(g, "wait2", "reserve permit")
		k.waiting(k.addPod("never"), "not this one")
		short := k.addPod("short")
		k.event(short, "FailedScheduling", `pod "short" rejected due to timeout after waiting 1ms at plugin Gatekeeper`)
		k.bound(k.addPod("change")) // which may help it
		k.bound(short)
		names := map[string]types.UID{}
		g.handle.Waiting.Each(func(p *scheduler.Pod, node string, by []string) bool {
			names[p.Object.Name+" on "+node+" for "+strings.Join(by, ",")] = p.Object.UID
			return true
		})
		if len(names) != 2 || names["wait1 on n for Gatekeeper"] != wait1.UID {
			t.Error(names)
		}
		if k.scheduler.Waiting().Allow(wait2.UID, "Other") || !k.scheduler.Waiting().Allow(wait2.UID, "Gatekeeper") {
			t.Error("allowed by whom it doesn't wait for, or not by whom it does")
		}
		k.bound(wait2)
		// A pod of higher priority takes the place of the one that waits, which goes back to the queue.
		high := k.addWhole("high", important)
		k.event(wait1, "Preempted", "Preempted by pod "+string(high.UID)+" on node n (in kube-scheduler memory).")
		k.bound(high)
		k.wait(wait1, "left alone", func() bool { return wait1.DeletionTimestamp == nil && wait1.Spec.NodeName == "" })
	})
}

// TestDeniedPodRests: that its place is free again is no reason to try a pod again that got no permission. It would be tried without end, and its
// events, and those of the pods that it wakes, would keep others from being written.
func TestDeniedPodRests(t *testing.T) {
	g := newGatekeeper()
	g.answer = func(pod string) scheduler.Permission {
		if strings.HasPrefix(pod, "never") {
			return scheduler.Permission{Reject: scheduler.Reject("not this one")}
		}
		return scheduler.Permission{}
	}
	k := newClusterWith(t, withPlugin(g))
	k.addNode("n", "")
	never := k.addPod("never")
	k.waiting(never, "not this one")
	k.waiting(k.addPod("never-either"), "not this one") // they don't wake each other
	k.event(never, "FailedScheduling", "not this one")
	for _, name := range []string{"1", "2", "3"} { // changes that may help it
		k.bound(k.addPod(name))
	}
	if n := strings.Count(g.of("never"), "permit"); n > 12 {
		t.Errorf("tried %d times", n)
	}
}

// TestProfiles: two profiles in one scheduler, and another scheduler's pods.
func TestProfiles(t *testing.T) {
	k := newClusterWith(t, scheduler.Options{Profiles: []scheduler.NamedProfile{
		{Name: "default-scheduler", Plugins: plugins.Default()},
		{Name: "only-a", Plugins: append(plugins.Default(), scheduler.Weighted{Plugin: only{"a"}})},
	}})
	k.addNode("a", "")
	k.addNode("b", "")
	named := func(name string) podMod { return func(p *corev1.Pod) { p.Spec.SchedulerName = name } }
	other := k.addPod("other", named("somebody-else"))
	for _, name := range []string{"1", "2", "3", "4"} {
		p := k.addPod(name, named("only-a"))
		k.bound(p)
		if p.Spec.NodeName != "a" {
			t.Errorf("%s is on %s", name, p.Spec.NodeName)
		}
	}
	p := k.addPod("p")
	k.bound(p)
	if p.Spec.NodeName != "b" { // which is empty
		t.Errorf("p is on %s", p.Spec.NodeName)
	}
	k.wait(other, "left alone", func() bool { return other.Spec.NodeName == "" && len(other.Status.Conditions) == 0 })
}

type only struct{ node string }

func (only) Name() string { return "Only" }
func (o only) Filter(_ *scheduler.Pod, n *scheduler.Node) *scheduler.Rejection {
	if n.Object.Name == o.node {
		return nil
	}
	return scheduler.Reject("not that one")
}
