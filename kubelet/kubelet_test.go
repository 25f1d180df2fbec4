package kubelet_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/kubelet"
	"github.com/keelson/keelson/kubelet/fakeruntime"
)

func TestMain(m *testing.M) {
	// spdystream leaves the closing of a connection to a goroutine of its own that ends by a timeout.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/moby/spdystream.(*Connection).shutdown"))
}

// harness is a cluster in memory with one node, in virtual time.
type harness struct {
	t      *testing.T
	ctx    context.Context
	client client.WithWatch
	cache  cache.Cache
	rt     *fakeruntime.Runtime
	stop   func()
}

func simulated(t *testing.T, f func(h *harness)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cluster := controllertest.NewCluster()
		cluster.GracefulPods = true
		c := cluster.Client()
		ca, err := controllertest.NewCache(c)
		if err != nil {
			t.Fatal(err)
		}
		rt, err := fakeruntime.New(fakeruntime.Options{PullError: func(image string) error {
			if strings.Contains(image, "missing") {
				return errors.New("manifest unknown")
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- ca.Start(ctx) }()
		h := &harness{t: t, ctx: ctx, client: c, cache: ca, rt: rt}
		f(h)
		if h.stop != nil {
			h.stop()
		}
		cancel()
		<-ended
		synctest.Wait()
	})
}

func (h *harness) run(o kubelet.Options) {
	h.t.Helper()
	if o.NodeName == "" {
		o.NodeName = "n1"
	}
	o.Simulated, o.DisableServer = true, true
	if o.Capacity == nil {
		o.Capacity = corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi"), "ephemeral-storage": resource.MustParse("100Gi")}
	}
	k, err := kubelet.New(h.client, h.cache, h.rt, h.rt, o)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.ctx)
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	h.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Errorf("Run ended with %v", err)
		}
		h.stop = nil
	}
	h.settle()
}

// settle waits until nothing happens without time passing.
func (h *harness) settle() { time.Sleep(300 * time.Millisecond); synctest.Wait() }

func (h *harness) pass(d time.Duration) { time.Sleep(d); synctest.Wait() }

func (h *harness) create(pod *corev1.Pod) {
	h.t.Helper()
	if err := h.client.Create(h.ctx, pod); err != nil {
		h.t.Fatal(err)
	}
	h.settle()
}

func (h *harness) pod(name string) *corev1.Pod {
	h.t.Helper()
	p := &corev1.Pod{}
	if err := h.client.Get(h.ctx, client.ObjectKey{Namespace: "default", Name: name}, p); err != nil {
		h.t.Fatal(err)
	}
	return p
}

func (h *harness) events(name string) (out []string) {
	h.t.Helper()
	var list corev1.EventList
	if err := h.client.List(h.ctx, &list); err != nil {
		h.t.Fatal(err)
	}
	for _, e := range list.Items {
		if e.InvolvedObject.Name == name {
			out = append(out, fmt.Sprintf("%s %s x%d", e.Reason, e.Message, e.Count))
		}
	}
	return out
}

func (h *harness) hasEvent(name, want string) {
	h.t.Helper()
	list := h.events(name)
	for _, e := range list {
		if strings.Contains(e, want) {
			return
		}
	}
	h.t.Errorf("no event %q among\n%s", want, strings.Join(list, "\n"))
}

func newPod(name string, edit ...func(*corev1.Pod)) *corev1.Pod {
	grace := int64(30)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name), Generation: 1}, Spec: corev1.PodSpec{
		NodeName: "n1", RestartPolicy: corev1.RestartPolicyAlways,
		TerminationGracePeriodSeconds: &grace, Containers: []corev1.Container{{Name: "app", Image: "registry.example/app:1", ImagePullPolicy: corev1.PullIfNotPresent}},
	}}
	for _, f := range edit {
		f(p)
	}
	return p
}

func annotate(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		if p.Annotations == nil {
			p.Annotations = map[string]string{}
		}
		p.Annotations[fakeruntime.Prefix+key] = value
	}
}

func condition(p *corev1.Pod, t corev1.PodConditionType) corev1.ConditionStatus {
	for _, c := range p.Status.Conditions {
		if c.Type == t {
			return c.Status
		}
	}
	return ""
}

// waiting is what a container waits for.
func waiting(p *corev1.Pod) string {
	if len(p.Status.ContainerStatuses) == 0 {
		return "a status"
	}
	if w := p.Status.ContainerStatuses[0].State.Waiting; w != nil {
		return w.Reason
	}
	return ""
}

func TestNode(t *testing.T) {
	simulated(t, func(h *harness) {
		h.run(kubelet.Options{NodeLabels: map[string]string{"zone": "a"}, MaxPods: 50})
		node := &corev1.Node{}
		if err := h.client.Get(h.ctx, client.ObjectKey{Name: "n1"}, node); err != nil {
			t.Fatal(err)
		}
		var conds []string
		for _, c := range node.Status.Conditions {
			conds = append(conds, fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason))
		}
		want := []string{"MemoryPressure=False KubeletHasSufficientMemory", "DiskPressure=False KubeletHasNoDiskPressure", "PIDPressure=False KubeletHasSufficientPID", "Ready=True KubeletReady"}
		if diff := cmp.Diff(want, conds); diff != "" {
			t.Error(diff)
		}
		if node.Labels["zone"] != "a" || node.Labels["kubernetes.io/os"] == "" || node.Status.Allocatable.Pods().Value() != 50 || node.Status.Capacity.Cpu().Value() != 4 ||
			!strings.HasPrefix(node.Status.NodeInfo.ContainerRuntimeVersion, "fake://") {
			t.Errorf("%+v", node)
		}
		lease := func() *coordinationv1.Lease {
			l := &coordinationv1.Lease{}
			if err := h.client.Get(h.ctx, client.ObjectKey{Namespace: "kube-node-lease", Name: "n1"}, l); err != nil {
				t.Fatal(err)
			}
			return l
		}
		before := lease()
		h.pass(25 * time.Second)
		if after := lease(); after.Spec.RenewTime.Sub(before.Spec.RenewTime.Time) < 20*time.Second {
			t.Errorf("lease renewed at %v and last at %v", before.Spec.RenewTime, after.Spec.RenewTime)
		}
		// A node that is deleted is registered again.
		if err := h.client.Delete(h.ctx, node); err != nil {
			t.Fatal(err)
		}
		h.pass(15 * time.Second)
		if err := h.client.Get(h.ctx, client.ObjectKey{Name: "n1"}, node); err != nil {
			t.Error(err)
		}
	})
}

func TestPodLife(t *testing.T) {
	simulated(t, func(h *harness) {
		h.run(kubelet.Options{})
		h.create(newPod("web"))
		p := h.pod("web")
		cs := p.Status.ContainerStatuses
		if p.Status.Phase != corev1.PodRunning || len(cs) != 1 || !cs[0].Ready || cs[0].State.Running == nil || !strings.HasPrefix(cs[0].ContainerID, "fake://") ||
			!strings.HasPrefix(cs[0].ImageID, "registry.example/app@sha256:") && cs[0].ImageID == "" {
			t.Fatalf("%+v", p.Status)
		}
		if p.Status.PodIP == "" || p.Status.HostIP == "" || p.Status.QOSClass != corev1.PodQOSBestEffort || p.Status.StartTime == nil || condition(p, corev1.PodReady) != corev1.ConditionTrue {
			t.Errorf("%+v", p.Status)
		}
		for _, want := range []string{`Pulling Pulling image "registry.example/app:1"`, `Pulled Successfully pulled image "registry.example/app:1"`, "Created Container created", "Started Container started"} {
			h.hasEvent("web", want)
		}
		rv := p.ResourceVersion
		h.pass(time.Hour)
		if p = h.pod("web"); p.ResourceVersion != rv {
			t.Error("an idle pod was written to")
		}
		// Deletion: the final status comes before the object goes.
		w, err := h.client.Watch(h.ctx, &corev1.PodList{})
		if err != nil {
			t.Fatal(err)
		}
		if err := h.client.Delete(h.ctx, p); err != nil {
			t.Fatal(err)
		}
		var last *corev1.Pod
		deleted := false
		for !deleted {
			e := <-w.ResultChan()
			q, ok := e.Object.(*corev1.Pod)
			if !ok {
				t.Fatalf("%+v", e)
			}
			if e.Type == "DELETED" {
				deleted = true
				if last == nil || last.Status.Phase != corev1.PodSucceeded || last.Status.ContainerStatuses[0].State.Terminated == nil {
					t.Errorf("deleted with the status %+v", last)
				}
			}
			last = q
		}
		w.Stop()
		h.settle()
		h.hasEvent("web", "Killing Stopping container app")
		if list, _ := h.rt.ListPodSandbox(h.ctx, nil); len(list) != 0 {
			t.Errorf("sandboxes left: %v", list)
		}
	})
}

func TestJobPodEnds(t *testing.T) {
	simulated(t, func(h *harness) {
		h.run(kubelet.Options{})
		job := func(p *corev1.Pod) {
			p.Labels = map[string]string{"batch.kubernetes.io/job-name": "j"}
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
		}
		h.create(newPod("ok", job))
		h.create(newPod("bad", job, annotate("exit-code", "3")))
		h.create(newPod("oom", job, annotate("oom", "true")))
		h.pass(2 * time.Second)
		for name, want := range map[string]string{"ok": "Succeeded 0 Completed", "bad": "Failed 3 Error", "oom": "Failed 137 OOMKilled"} {
			p := h.pod(name)
			term := p.Status.ContainerStatuses[0].State.Terminated
			if term == nil {
				t.Fatalf("%s: %+v", name, p.Status)
			}
			if got := fmt.Sprintf("%s %d %s", p.Status.Phase, term.ExitCode, term.Reason); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
	})
}

func TestCrashLoop(t *testing.T) {
	simulated(t, func(h *harness) {
		h.run(kubelet.Options{})
		h.create(newPod("crash", annotate("run-time", "1s"), annotate("exit-code", "1")))
		h.pass(3 * time.Second)
		p := h.pod("crash")
		cs := p.Status.ContainerStatuses[0]
		if waiting(p) != "CrashLoopBackOff" || cs.RestartCount != 1 || cs.LastTerminationState.Terminated == nil {
			t.Fatalf("%+v", cs)
		}
		if want := "back-off 10s restarting failed container=app pod=crash_default("; !strings.HasPrefix(cs.State.Waiting.Message, want) {
			t.Errorf("%s, want %s…", cs.State.Waiting.Message, want)
		}
		h.pass(30 * time.Minute)
		p = h.pod("crash")
		if n := p.Status.ContainerStatuses[0].RestartCount; n < 8 || n > 14 {
			t.Errorf("%d restarts in half an hour", n)
		}
		if list, _ := h.rt.ListContainers(h.ctx, nil); len(list) > 3 {
			t.Errorf("%d containers kept", len(list))
		}
		h.hasEvent("crash", "BackOff Back-off restarting failed container app in pod crash_default(")
	})
}

func TestInitAndSidecars(t *testing.T) {
	simulated(t, func(h *harness) {
		h.run(kubelet.Options{})
		always := corev1.ContainerRestartPolicyAlways
		h.create(newPod("p", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "setup", Image: "a"}, {Name: "proxy", Image: "b", RestartPolicy: &always}}
		}, annotate("run-time.setup", "5s")))
		p := h.pod("p")
		if p.Status.Phase != corev1.PodPending || waiting(p) != "PodInitializing" || p.Status.InitContainerStatuses[0].State.Running == nil {
			t.Fatalf("%+v", p.Status)
		}
		h.pass(6 * time.Second)
		p = h.pod("p")
		if p.Status.Phase != corev1.PodRunning || p.Status.InitContainerStatuses[0].State.Terminated == nil || !p.Status.InitContainerStatuses[1].Ready || condition(p, corev1.PodReady) != corev1.ConditionTrue {
			t.Fatalf("%+v", p.Status)
		}
	})
}

func TestImageErrors(t *testing.T) {
	simulated(t, func(h *harness) {
		h.run(kubelet.Options{})
		h.create(newPod("missing", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "missing:1" }))
		h.create(newPod("never", func(p *corev1.Pod) { p.Spec.Containers[0].ImagePullPolicy = corev1.PullNever }))
		h.create(newPod("invalid", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "In valid" }))
		if got := waiting(h.pod("missing")); got != "ErrImagePull" {
			t.Error(got)
		}
		h.pass(5 * time.Second)
		for name, want := range map[string]string{"missing": "ImagePullBackOff", "never": "ErrImageNeverPull", "invalid": "InvalidImageName"} {
			if got := waiting(h.pod(name)); got != want {
				t.Errorf("%s waits for %s, want %s", name, got, want)
			}
		}
		h.hasEvent("missing", `Failed Failed to pull image "missing:1": manifest unknown`)
		h.hasEvent("missing", "Failed Error: ErrImagePull")
		h.hasEvent("missing", `BackOff Back-off pulling image "missing:1"`)
		h.hasEvent("never", `ErrImageNeverPull Container image "registry.example/app:1" is not present with pull policy of Never`)
	})
}

func TestProbes(t *testing.T) {
	simulated(t, func(h *harness) {
		h.run(kubelet.Options{})
		probe := func() *corev1.Probe {
			return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{}}, PeriodSeconds: 1, FailureThreshold: 3}
		}
		h.create(newPod("live", func(p *corev1.Pod) { p.Spec.Containers[0].LivenessProbe = probe() }, annotate("fail-probe", "liveness=10s")))
		h.create(newPod("ready", func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe = probe() }, annotate("fail-probe", "readiness=10s")))
		h.create(newPod("slow", func(p *corev1.Pod) {
			p.Spec.Containers[0].StartupProbe = probe()
			p.Spec.Containers[0].StartupProbe.InitialDelaySeconds = 5
		}))
		if p := h.pod("slow"); condition(p, corev1.PodReady) == corev1.ConditionTrue || *p.Status.ContainerStatuses[0].Started {
			t.Error("ready before its startup probe succeeded")
		}
		h.pass(8 * time.Second)
		for _, name := range []string{"live", "ready", "slow"} {
			if p := h.pod(name); condition(p, corev1.PodReady) != corev1.ConditionTrue || !*p.Status.ContainerStatuses[0].Started {
				t.Errorf("%s: %+v", name, p.Status.Conditions)
			}
		}
		h.pass(6 * time.Second)
		if p := h.pod("ready"); condition(p, corev1.PodReady) != corev1.ConditionFalse {
			t.Error("ready though its probe fails")
		}
		if n := h.pod("live").Status.ContainerStatuses[0].RestartCount; n != 1 {
			t.Errorf("%d restarts, want 1", n)
		}
		h.hasEvent("ready", "Unhealthy Readiness probe failed: simulated failure")
		h.hasEvent("live", "Killing Container app failed liveness probe, will be restarted")
	})
}

func TestRejection(t *testing.T) {
	simulated(t, func(h *harness) {
		h.run(kubelet.Options{})
		cpu := func(s string) func(*corev1.Pod) {
			return func(p *corev1.Pod) {
				p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse(s)}
			}
		}
		h.create(newPod("big", cpu("3")))
		h.create(newPod("bigger", cpu("2")))
		h.create(newPod("elsewhere", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }))
		p := h.pod("bigger")
		if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "OutOfcpu" ||
			p.Status.Message != "Pod was rejected: Node didn't have enough resource: cpu, requested: 2000, used: 3000, capacity: 4000" {
			t.Errorf("%+v", p.Status)
		}
		if p = h.pod("elsewhere"); p.Status.Reason != "NodeAffinity" {
			t.Errorf("%+v", p.Status)
		}
		// What is deleted makes room.
		if err := h.client.Delete(h.ctx, h.pod("big")); err != nil {
			t.Fatal(err)
		}
		h.settle()
		h.create(newPod("next", cpu("2")))
		if p = h.pod("next"); p.Status.Phase != corev1.PodRunning {
			t.Errorf("%+v", p.Status)
		}
	})
}

// TestRestart ends the kubelet and starts another on the same runtime: nothing that runs is touched, what was left behind is removed.
func TestRestart(t *testing.T) {
	simulated(t, func(h *harness) {
		h.run(kubelet.Options{})
		readiness := func(p *corev1.Pod) {
			p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}, InitialDelaySeconds: 600}
		}
		h.create(newPod("stays"))
		h.create(newPod("probed", readiness))
		h.create(newPod("goes"))
		h.create(newPod("ends", annotate("run-time", "1m"), func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }))
		h.pass(11 * time.Minute)
		stays, probed := h.pod("stays"), h.pod("probed")
		h.stop()
		if err := h.client.Delete(h.ctx, h.pod("goes"), client.GracePeriodSeconds(0)); err != nil {
			t.Fatal(err)
		}
		h.pass(time.Minute)
		h.run(kubelet.Options{})
		h.pass(5 * time.Second)
		for _, before := range []*corev1.Pod{stays, probed} {
			after := h.pod(before.Name)
			if diff := cmp.Diff(before.Status, after.Status); diff != "" {
				t.Errorf("%s: %s", before.Name, diff)
			}
		}
		if p := h.pod("ends"); p.Status.Phase != corev1.PodSucceeded {
			t.Errorf("%+v", p.Status)
		}
		list, _ := h.rt.ListPodSandbox(h.ctx, nil)
		for _, s := range list {
			if s.Metadata.Name == "goes" {
				t.Error("the sandbox of a pod that was deleted meanwhile is still there")
			}
		}
	})
}

func TestHooks(t *testing.T) {
	simulated(t, func(h *harness) {
		h.run(kubelet.Options{})
		h.create(newPod("p", func(p *corev1.Pod) {
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 3}}, PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 5}}}
		}))
		h.create(newPod("bad", func(p *corev1.Pod) {
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"false"}}}}
		}))
		if got := waiting(h.pod("p")); got != "ContainerCreating" {
			t.Errorf("waits for %q during its postStart hook", got)
		}
		h.pass(4 * time.Second)
		if p := h.pod("p"); p.Status.Phase != corev1.PodRunning {
			t.Errorf("%+v", p.Status)
		}
		h.hasEvent("bad", "FailedPostStartHook PostStartHook failed")
		if err := h.client.Delete(h.ctx, h.pod("p")); err != nil {
			t.Fatal(err)
		}
		h.pass(4 * time.Second)
		if h.pod("p").Status.ContainerStatuses[0].State.Running == nil {
			t.Error("stopped before its preStop hook was over")
		}
		h.pass(2 * time.Second)
		if err := h.client.Get(h.ctx, client.ObjectKey{Namespace: "default", Name: "p"}, &corev1.Pod{}); err == nil {
			t.Error("still there after its preStop hook")
		}
	})
}

func TestReadinessGateAndForeignConditions(t *testing.T) {
	simulated(t, func(h *harness) {
		h.run(kubelet.Options{})
		h.create(newPod("p", func(p *corev1.Pod) { p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "x/y"}} }))
		p := h.pod("p")
		if condition(p, corev1.PodReady) != corev1.ConditionFalse || condition(p, corev1.ContainersReady) != corev1.ConditionTrue {
			t.Errorf("%+v", p.Status.Conditions)
		}
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: "x/y", Status: corev1.ConditionTrue})
		if err := h.client.Status().Update(h.ctx, p); err != nil {
			t.Fatal(err)
		}
		h.settle()
		if p = h.pod("p"); condition(p, corev1.PodReady) != corev1.ConditionTrue || condition(p, "x/y") != corev1.ConditionTrue {
			t.Errorf("%+v", p.Status.Conditions)
		}
	})
}

// overtaken is a client whose writes of a pod's status, once it is ready, are answered late.
type overtaken struct {
	client.WithWatch
	written func(*corev1.Pod)
}

func (o *overtaken) Status() client.SubResourceWriter {
	return overtakenStatus{o.WithWatch.Status(), o}
}

type overtakenStatus struct {
	client.SubResourceWriter
	o *overtaken
}

func (s overtakenStatus) Update(ctx context.Context, obj client.Object, opts ...client.SubResourceUpdateOption) error {
	err := s.SubResourceWriter.Update(ctx, obj, opts...)
	if p, ok := obj.(*corev1.Pod); ok && err == nil {
		s.o.written(p.DeepCopy())
	}
	return err
}

// TestOvertakenStatus: the node controller calls a pod not ready, which the kubelet hears of before it has the answer to its own write.
func TestOvertakenStatus(t *testing.T) {
	simulated(t, func(h *harness) {
		times := 0
		h.client = &overtaken{h.client, func(p *corev1.Pod) {
			if condition(p, corev1.PodReady) != corev1.ConditionTrue {
				return
			}
			if times++; times > 1 {
				return
			}
			for i := range p.Status.Conditions {
				if c := &p.Status.Conditions[i]; c.Type == corev1.PodReady {
					c.Status = corev1.ConditionFalse
				}
			}
			if err := h.client.(*overtaken).WithWatch.Status().Update(h.ctx, p); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second) // all that follows from it has happened
		}}
		h.run(kubelet.Options{})
		h.create(newPod("p"))
		h.pass(10 * time.Second)
		if p := h.pod("p"); condition(p, corev1.PodReady) != corev1.ConditionTrue {
			t.Errorf("%+v", p.Status.Conditions)
		}
		if times != 2 {
			t.Errorf("the status was written %d times as ready", times)
		}
	})
}

func TestOptions(t *testing.T) {
	c := controllertest.NewCluster().Client()
	ca, err := controllertest.NewCache(c)
	if err != nil {
		t.Fatal(err)
	}
	rt, err := fakeruntime.New(fakeruntime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]kubelet.Options{
		"Options.NodeName":         {NodeName: "No Name"},
		"Options.RootDir":          {RootDir: "rel"},
		"Options.MaxPods":          {MaxPods: -1},
		"Options.LeaseDuration":    {LeaseDuration: time.Second},
		"Options.ClusterDNS":       {ClusterDNS: []string{"x"}},
		"Options.ImageGCThreshold": {ImageGCThreshold: 101},
	} {
		if _, err := kubelet.New(c, ca, rt, rt, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want it to name %s", err, want)
		}
	}
	if _, err := kubelet.New(c, ca, nil, rt, kubelet.Options{}); err == nil {
		t.Error("no runtime, and no error")
	}
	if _, err := os.Hostname(); err == nil {
		if _, err := kubelet.New(c, ca, rt, rt, kubelet.Options{NodeName: "n"}); err != nil {
			t.Error(err)
		}
	}
}
