package deployment_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/deployment"
	"github.com/keelson/keelson/controller/replicaset"
)

var web = map[string]string{"app": "web"}

func newDeployment(n int32) *appsv1.Deployment {
	surge, unavailable := intstr.FromInt32(1), intstr.FromInt32(1)
	limit, deadline := int32(10), int32(600)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Annotations: map[string]string{"kubernetes.io/change-cause": "first"}},
		Spec: appsv1.DeploymentSpec{
			Replicas: &n, Selector: controllertest.Labels(web), Template: controllertest.Template("web:1", web),
			RevisionHistoryLimit: &limit, ProgressDeadlineSeconds: &deadline,
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable},
			},
		},
	}
}

func start(e *controllertest.Env) {
	d, err := deployment.New(e.Client, e.Cache, deployment.Options{})
	e.Check(err)
	r, err := replicaset.New(e.Client, e.Cache, replicaset.Options{})
	e.Check(err)
	e.Start(d.Run)
	e.Start(r.Run)
	e.Settle()
}

func get(e *controllertest.Env) *appsv1.Deployment {
	d, ok := controllertest.Get[*appsv1.Deployment](e.Cluster, "default", "web")
	if !ok {
		e.Fatal("no deployment")
	}
	return d
}

func edit(e *controllertest.Env, f func(*appsv1.Deployment)) {
	controllertest.Edit(e.Cluster, "default", "web", f)
}

func setImage(e *controllertest.Env, image string) {
	edit(e, func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = image })
}

// sets describes the sets as "image=size" by revision.
func sets(e *controllertest.Env) string {
	var out []string
	for rev := range 20 {
		for _, rs := range controllertest.All[*appsv1.ReplicaSet](e.Cluster) {
			if rs.Annotations["deployment.kubernetes.io/revision"] == fmt.Sprint(rev) {
				out = append(out, fmt.Sprintf("%d:%s=%d", rev, rs.Spec.Template.Spec.Containers[0].Image, *rs.Spec.Replicas))
			}
		}
	}
	return strings.Join(out, " ")
}

func condition(d *appsv1.Deployment, t appsv1.DeploymentConditionType) string {
	for _, c := range d.Status.Conditions {
		if c.Type == t {
			return fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message)
		}
	}
	return ""
}

func TestRollout(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Pods(controllertest.Ready)
		start(e)
		e.Create(newDeployment(3))
		e.Settle()
		d := get(e)
		s := d.Status
		if s.Replicas != 3 || s.UpdatedReplicas != 3 || s.AvailableReplicas != 3 || s.UnavailableReplicas != 0 || s.ObservedGeneration != d.Generation {
			t.Errorf("status %+v", s)
		}
		if d.Annotations["deployment.kubernetes.io/revision"] != "1" {
			t.Errorf("annotations %v", d.Annotations)
		}
		rs := controllertest.All[*appsv1.ReplicaSet](e.Cluster)[0]
		hash := rs.Labels["pod-template-hash"]
		if hash == "" || rs.Name != "web-"+hash || rs.Spec.Selector.MatchLabels["pod-template-hash"] != hash || rs.Spec.Template.Labels["pod-template-hash"] != hash {
			t.Errorf("unexpected set %+v", rs)
		}
		if a := rs.Annotations; a["deployment.kubernetes.io/desired-replicas"] != "3" || a["deployment.kubernetes.io/max-replicas"] != "4" || a["kubernetes.io/change-cause"] != "first" {
			t.Errorf("set's annotations %v", a)
		}
		if c := condition(d, appsv1.DeploymentAvailable); c != "True MinimumReplicasAvailable Deployment has minimum availability." {
			t.Error(c)
		}
		if c := condition(d, appsv1.DeploymentProgressing); c != fmt.Sprintf("True NewReplicaSetAvailable ReplicaSet %q has successfully progressed.", rs.Name) {
			t.Error(c)
		}
		if ev := strings.Join(e.Events(), "\n"); !strings.Contains(ev, "ScalingReplicaSet: Scaled up replica set "+rs.Name+" from 0 to 3") {
			t.Errorf("events:\n%s", ev)
		}
		setImage(e, "web:2")
		e.Settle()
		if got := sets(e); got != "1:web:1=0 2:web:2=3" {
			t.Errorf("sets %s", got)
		}
		// kubectl rollout undo puts the old template back.
		setImage(e, "web:1")
		e.Settle()
		if got := sets(e); got != "2:web:2=0 3:web:1=3" {
			t.Errorf("sets after undo %s", got)
		}
		rs, _ = controllertest.Get[*appsv1.ReplicaSet](e.Cluster, "default", rs.Name)
		if h := rs.Annotations["deployment.kubernetes.io/revision-history"]; h != "1" {
			t.Errorf("history %q", h)
		}
		if a := get(e).Annotations["deployment.kubernetes.io/revision"]; a != "3" {
			t.Errorf("revision %s", a)
		}
		e.Cluster.Calls()
		e.Advance(time.Hour)
		if c := e.Cluster.Calls(); len(c) > 0 {
			t.Errorf("idle controllers made %d requests, such as %+v", len(c), c[0])
		}
	})
}

// TestAvailability checks the bounds at every step of rollouts.
func TestAvailability(t *testing.T) {
	for _, c := range []struct{ n, surge, unavailable string }{
		{"10", "25%", "25%"}, {"10", "0", "1"}, {"10", "3", "0"}, {"4", "100%", "0"}, {"7", "30%", "40%"}, {"1", "0", "0"},
	} {
		controllertest.Run(t, func(e *controllertest.Env) {
			r := controllertest.NewRand(3)
			e.Pods(func(p *corev1.Pod) *corev1.PodStatus {
				if p.Status.Phase == corev1.PodRunning {
					return nil
				}
				time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond)
				return controllertest.ReadyStatus("10.0.0.1")
			})
			start(e)
			var n int32
			_, err := fmt.Sscan(c.n, &n)
			e.Check(err)
			d := newDeployment(n)
			surge, unavailable := intstr.Parse(c.surge), intstr.Parse(c.unavailable)
			d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}
			e.Create(d)
			e.Advance(time.Minute)
			up, err := intstr.GetScaledValueFromIntOrPercent(&surge, int(n), true)
			e.Check(err)
			down, err := intstr.GetScaledValueFromIntOrPercent(&unavailable, int(n), false)
			e.Check(err)
			if up == 0 && down == 0 {
				down = 1
			}
			setImage(e, "web:2")
			for range 3000 {
				e.Advance(10 * time.Millisecond)
				ready, all := 0, 0
				for _, p := range controllertest.All[*corev1.Pod](e.Cluster) {
					all++
					if p.Status.Phase == corev1.PodRunning {
						ready++
					}
				}
				if all > int(n)+up || ready < int(n)-down {
					t.Fatalf("%+v: %d pods, %d ready", c, all, ready)
				}
				if s := get(e).Status; s.UpdatedReplicas == n && s.Replicas == n && s.AvailableReplicas == n {
					break
				}
			}
			if got := sets(e); got != fmt.Sprintf("1:web:1=0 2:web:2=%d", n) {
				t.Errorf("%+v: sets %s", c, got)
			}
		})
	}
}

func TestRecreate(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Cluster.GracefulPods = true
		e.Pods(controllertest.Ready)
		start(e)
		d := newDeployment(3)
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
		e.Create(d)
		e.Settle()
		held := controllertest.All[*corev1.Pod](e.Cluster)[0]
		controllertest.Edit(e.Cluster, "default", held.Name, func(p *corev1.Pod) { p.Finalizers = []string{"test/hold"} })
		setImage(e, "web:2")
		e.Settle()
		if got := sets(e); got != "1:web:1=0" {
			t.Fatalf("sets while an old pod is left: %s", got)
		}
		controllertest.Edit(e.Cluster, "default", held.Name, func(p *corev1.Pod) { p.Finalizers = nil })
		e.Cluster.Remove(held)
		e.Settle()
		if got := sets(e); got != "1:web:1=0 2:web:2=3" {
			t.Errorf("sets %s", got)
		}
	})
}

func TestPauseAndHistory(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Pods(controllertest.Ready)
		start(e)
		d := newDeployment(2)
		limit := int32(1)
		d.Spec.RevisionHistoryLimit = &limit
		e.Create(d)
		e.Settle()
		edit(e, func(d *appsv1.Deployment) { d.Spec.Paused = true })
		setImage(e, "web:2")
		e.Settle()
		if got := sets(e); got != "1:web:1=2" {
			t.Errorf("sets while paused: %s", got)
		}
		if c := condition(get(e), appsv1.DeploymentProgressing); c != "Unknown DeploymentPaused Deployment is paused" {
			t.Error(c)
		}
		four := int32(4)
		edit(e, func(d *appsv1.Deployment) { d.Spec.Replicas = &four })
		e.Settle()
		if got := sets(e); got != "1:web:1=4" {
			t.Errorf("sets scaled while paused: %s", got)
		}
		edit(e, func(d *appsv1.Deployment) { d.Spec.Paused = false })
		e.Settle()
		setImage(e, "web:3")
		e.Settle()
		if got := sets(e); got != "2:web:2=0 3:web:3=4" {
			t.Errorf("sets beyond the limit: %s", got)
		}
	})
}

func TestProgressDeadline(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e) // no pod ever gets ready
		d := newDeployment(2)
		deadline := int32(60)
		d.Spec.ProgressDeadlineSeconds = &deadline
		e.Create(d)
		e.Advance(50 * time.Second)
		name := controllertest.All[*appsv1.ReplicaSet](e.Cluster)[0].Name
		if c := condition(get(e), appsv1.DeploymentProgressing); c != fmt.Sprintf("True ReplicaSetUpdated ReplicaSet %q is progressing.", name) {
			t.Error(c)
		}
		e.Advance(15 * time.Second)
		if c := condition(get(e), appsv1.DeploymentProgressing); c != fmt.Sprintf("False ProgressDeadlineExceeded ReplicaSet %q has timed out progressing.", name) {
			t.Error(c)
		}
		if c := condition(get(e), appsv1.DeploymentAvailable); c != "False MinimumReplicasUnavailable Deployment does not have minimum availability." {
			t.Error(c)
		}
	})
}

func TestProportionalScaling(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Pods(func(p *corev1.Pod) *corev1.PodStatus {
			if p.Spec.Containers[0].Image == "web:bad" {
				return nil
			}
			return controllertest.Ready(p)
		})
		start(e)
		d := newDeployment(10)
		three, two := intstr.FromInt32(3), intstr.FromInt32(2)
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: &three, MaxUnavailable: &two}
		e.Create(d)
		e.Settle()
		setImage(e, "web:bad")
		e.Settle()
		if got := sets(e); got != "1:web:1=8 2:web:bad=5" {
			t.Fatalf("sets stuck: %s", got)
		}
		// The example of Kubernetes' documentation.
		fifteen := int32(15)
		edit(e, func(d *appsv1.Deployment) { d.Spec.Replicas = &fifteen })
		e.Settle()
		if got := sets(e); got != "1:web:1=11 2:web:bad=7" {
			t.Errorf("sets scaled: %s", got)
		}
	})
}

func TestHashCollision(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Pods(controllertest.Ready)
		start(e)
		e.Create(newDeployment(1))
		e.Settle()
		taken := controllertest.All[*appsv1.ReplicaSet](e.Cluster)[0]
		e.Check(e.Client.Delete(e.Ctx, get(e)))
		e.Cluster.Remove(taken)
		taken.OwnerReferences, taken.Labels, taken.UID = nil, nil, ""
		taken.Spec.Template.Spec.Containers[0].Image = "someone:else"
		e.Cluster.Put(taken)
		e.Settle()
		e.Create(newDeployment(1))
		e.Settle()
		d := get(e)
		if d.Status.CollisionCount == nil || *d.Status.CollisionCount != 1 || d.Status.AvailableReplicas != 1 {
			t.Errorf("status %+v", d.Status)
		}
	})
}

func TestFailureToCreate(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Cluster.React(func(c controllertest.Call) error {
			if c.Verb == "create" && c.Kind.Kind == "ReplicaSet" {
				return errors.New("no room")
			}
			return nil
		})
		start(e)
		e.Create(newDeployment(1))
		e.Settle()
		if c := condition(get(e), appsv1.DeploymentProgressing); !strings.HasPrefix(c, `False ReplicaSetCreateError Failed to create new replica set "web-`) || !strings.HasSuffix(c, "no room") {
			t.Error(c)
		}
	})
}

// TestConverges edits and breaks at random; then the last template must run.
func TestConverges(t *testing.T) {
	for seed := range uint64(6) {
		controllertest.Run(t, func(e *controllertest.Env) {
			r := controllertest.NewRand(seed)
			e.Pods(controllertest.Ready)
			start(e)
			e.Create(newDeployment(3))
			e.Cluster.React(func(c controllertest.Call) error {
				if c.Verb == "watch" || c.Verb == "list" || c.Kind.Kind == "Pod" && c.Subresource == "status" || r.IntN(6) > 0 {
					return nil
				}
				return errors.New("injected")
			})
			for range 50 {
				switch r.IntN(4) {
				case 0:
					n := int32(r.IntN(8))
					edit(e, func(d *appsv1.Deployment) { d.Spec.Replicas = &n })
				case 1:
					setImage(e, fmt.Sprint("web:", r.IntN(4)))
				case 2:
					edit(e, func(d *appsv1.Deployment) { d.Spec.Paused = !d.Spec.Paused })
				case 3:
					if all := controllertest.All[*corev1.Pod](e.Cluster); len(all) > 0 {
						_ = e.Client.Delete(e.Ctx, all[r.IntN(len(all))])
					}
				}
				e.Advance(time.Duration(r.IntN(300)) * time.Millisecond)
			}
			e.Cluster.React(nil)
			edit(e, func(d *appsv1.Deployment) { d.Spec.Paused = false })
			e.Advance(40 * time.Minute)
			d := get(e)
			image := d.Spec.Template.Spec.Containers[0].Image
			all := controllertest.All[*corev1.Pod](e.Cluster)
			for _, p := range all {
				if p.Spec.Containers[0].Image != image {
					t.Errorf("seed %d: a pod has %s, expected %s", seed, p.Spec.Containers[0].Image, image)
				}
			}
			if n := *d.Spec.Replicas; int32(len(all)) != n || d.Status.UpdatedReplicas != n || d.Status.AvailableReplicas != n {
				t.Errorf("seed %d: %d pods, status %+v, expected %d", seed, len(all), d.Status, n)
			}
		})
	}
}

func TestLarge(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		n := int32(2000)
		if testing.Short() {
			n = 200
		}
		e.Pods(controllertest.Ready)
		start(e)
		e.Create(newDeployment(n))
		e.Advance(time.Minute)
		if s := get(e).Status; s.AvailableReplicas != n {
			t.Errorf("status %+v", s)
		}
	})
}
