package daemonset_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/daemonset"
)

var agent = map[string]string{"app": "agent"}

func newSet(edit func(*appsv1.DaemonSetSpec)) *appsv1.DaemonSet {
	ds := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "agent"},
		Spec: appsv1.DaemonSetSpec{
			Selector: controllertest.Labels(agent), Template: controllertest.Template("agent:1", agent),
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType},
		},
	}
	if edit != nil {
		edit(&ds.Spec)
	}
	return ds
}

func node(name string, edit func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if edit != nil {
		edit(n)
	}
	return n
}

func target(p *corev1.Pod) string {
	return p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields[0].Values[0]
}

// start runs the controller, with a scheduler and kubelets that bind pods and
// make them ready.
func start(e *controllertest.Env, nodes int) {
	for i := range nodes {
		e.Cluster.Put(node(fmt.Sprint("n", i), nil))
	}
	e.Pods(func(p *corev1.Pod) *corev1.PodStatus {
		if p.Spec.NodeName == "" {
			e.Cluster.Bind(p, target(p))
		}
		return controllertest.Ready(p)
	})
	ctl, err := daemonset.New(e.Client, e.Cache, daemonset.Options{})
	e.Check(err)
	e.Start(ctl.Run)
	e.Settle()
}

func podsNow(e *controllertest.Env) string {
	var out []string
	for _, p := range controllertest.All[*corev1.Pod](e.Cluster) {
		out = append(out, target(p)+"="+p.Spec.Containers[0].Image)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func get(e *controllertest.Env) *appsv1.DaemonSet {
	ds, _ := controllertest.Get[*appsv1.DaemonSet](e.Cluster, "default", "agent")
	return ds
}

func edit(e *controllertest.Env, f func(*appsv1.DaemonSetSpec)) {
	controllertest.Edit(e.Cluster, "default", "agent", func(d *appsv1.DaemonSet) { f(&d.Spec) })
}

func TestPlacement(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e, 2)
		e.Cluster.Put(node("tainted", func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "gpu", Effect: corev1.TaintEffectNoSchedule}}
		}))
		e.Cluster.Put(node("cordoned", func(n *corev1.Node) {
			n.Spec.Unschedulable = true
			n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}}
		}))
		e.Create(newSet(nil))
		e.Settle()
		if got := podsNow(e); got != "cordoned=agent:1 n0=agent:1 n1=agent:1" {
			t.Fatal(got)
		}
		s := get(e).Status
		if s.DesiredNumberScheduled != 3 || s.CurrentNumberScheduled != 3 || s.NumberReady != 3 || s.NumberAvailable != 3 || s.UpdatedNumberScheduled != 3 || s.NumberUnavailable != 0 || s.NumberMisscheduled != 0 {
			t.Errorf("status %+v", s)
		}
		p := controllertest.All[*corev1.Pod](e.Cluster)[0]
		if p.Labels["controller-revision-hash"] == "" || p.Labels["pod-template-generation"] != "1" || len(p.Spec.Tolerations) != 6 {
			t.Errorf("pod %v %v", p.Labels, p.Spec.Tolerations)
		}
		e.Cluster.Put(node("n2", nil))
		controllertest.Edit(e.Cluster, "", "n0", func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "out", Effect: corev1.TaintEffectNoExecute}}
		})
		controllertest.Edit(e.Cluster, "", "n1", func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "full", Effect: corev1.TaintEffectNoSchedule}}
		})
		e.Settle()
		if got := podsNow(e); got != "cordoned=agent:1 n1=agent:1 n2=agent:1" {
			t.Error(got)
		}
		if s := get(e).Status; s.NumberMisscheduled != 1 || s.DesiredNumberScheduled != 2 {
			t.Errorf("status %+v", s)
		}
		edit(e, func(s *appsv1.DaemonSetSpec) { s.Template.Spec.NodeSelector = map[string]string{"disk": "ssd"} })
		e.Settle()
		if got := podsNow(e); got != "" {
			t.Error(got)
		}
		e.Cluster.Calls()
		e.Advance(time.Hour)
		if c := e.Cluster.Calls(); len(c) > 0 {
			t.Errorf("an idle controller made %d requests, such as %+v", len(c), c[0])
		}
	})
}

// TestUpdates checks the bounds of rolling updates at every moment.
func TestUpdates(t *testing.T) {
	for _, c := range []struct {
		unavailable, surge string
		down, over         int
	}{{"1", "0", 1, 0}, {"30%", "0", 2, 0}, {"0", "2", 0, 2}} {
		controllertest.Run(t, func(e *controllertest.Env) {
			start(e, 6)
			unavailable, surge := intstr.Parse(c.unavailable), intstr.Parse(c.surge)
			e.Create(newSet(func(s *appsv1.DaemonSetSpec) {
				s.MinReadySeconds = 1
				s.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &unavailable, MaxSurge: &surge}
			}))
			e.Advance(10 * time.Second)
			edit(e, func(s *appsv1.DaemonSetSpec) { s.Template.Spec.Containers[0].Image = "agent:2" })
			for range 600 {
				e.Advance(50 * time.Millisecond)
				all, available := 0, map[string]bool{}
				for _, p := range controllertest.All[*corev1.Pod](e.Cluster) {
					all++
					if len(p.Status.Conditions) == 4 && time.Since(p.Status.Conditions[3].LastTransitionTime.Time) >= time.Second {
						available[target(p)] = true
					}
				}
				if len(available) < 6-c.down || all > 6+c.over {
					t.Fatalf("%+v: %d available of %d", c, len(available), all)
				}
			}
			if got := podsNow(e); got != "n0=agent:2 n1=agent:2 n2=agent:2 n3=agent:2 n4=agent:2 n5=agent:2" {
				t.Errorf("%+v: %s", c, got)
			}
			if n := len(controllertest.All[*appsv1.ControllerRevision](e.Cluster)); n != 2 {
				t.Errorf("%d revisions", n)
			}
		})
	}
}

func TestFailedPodsBackOff(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Cluster.Put(node("n", nil))
		made := 0
		e.Pods(func(p *corev1.Pod) *corev1.PodStatus {
			if p.Status.Phase != corev1.PodPending {
				return nil
			}
			made++
			return &corev1.PodStatus{Phase: corev1.PodFailed}
		})
		ctl, err := daemonset.New(e.Client, e.Cache, daemonset.Options{})
		e.Check(err)
		e.Start(ctl.Run)
		e.Create(newSet(nil))
		e.Advance(time.Minute)
		if made < 5 || made > 9 {
			t.Errorf("%d pods in a minute", made)
		}
		if ev := strings.Join(e.Events(), "\n"); !strings.Contains(ev, "FailedDaemonPod: Found failed daemon pod default/agent-") {
			t.Error(ev)
		}
	})
}

func TestConverges(t *testing.T) {
	for seed := range uint64(6) {
		controllertest.Run(t, func(e *controllertest.Env) {
			r := controllertest.NewRand(seed)
			e.Cluster.GracefulPods = true
			start(e, 5)
			e.Create(newSet(nil))
			e.Cluster.React(func(c controllertest.Call) error {
				if c.Verb == "watch" || c.Verb == "list" || c.Kind.Kind == "Pod" && c.Subresource == "status" || r.IntN(6) > 0 {
					return nil
				}
				return errors.New("injected")
			})
			for range 60 {
				name := fmt.Sprint("n", r.IntN(5))
				all := controllertest.All[*corev1.Pod](e.Cluster)
				switch r.IntN(4) {
				case 0:
					edit(e, func(s *appsv1.DaemonSetSpec) { s.Template.Spec.Containers[0].Image = fmt.Sprint("agent:", r.IntN(3)) })
				case 1:
					controllertest.Edit(e.Cluster, "", name, func(n *corev1.Node) {
						if len(n.Spec.Taints) > 0 {
							n.Spec.Taints = nil
						} else {
							n.Spec.Taints = []corev1.Taint{{Key: "x", Effect: corev1.TaintEffectNoExecute}}
						}
					})
				case 2:
					if len(all) > 0 {
						_ = e.Client.Delete(e.Ctx, all[r.IntN(len(all))])
					}
				}
				e.Advance(time.Duration(r.IntN(300)) * time.Millisecond)
			}
			e.Cluster.React(nil)
			e.Advance(time.Hour)
			ds := get(e)
			var want []string
			for _, n := range controllertest.All[*corev1.Node](e.Cluster) {
				if len(n.Spec.Taints) == 0 {
					want = append(want, n.Name+"="+ds.Spec.Template.Spec.Containers[0].Image)
				}
			}
			if got := podsNow(e); got != strings.Join(want, " ") || int(ds.Status.NumberAvailable) != len(want) {
				t.Errorf("seed %d: %s, expected %v, status %+v", seed, got, want, ds.Status)
			}
		})
	}
}
