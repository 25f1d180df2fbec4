package podstate

import (
	"fmt"
	"math/rand"
	"sort"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// node is a simulated node with one pod: a runtime that does what it is told, and a trace of what happened.
type node struct {
	t    *testing.T
	m    *Machine
	in   Input
	ids  int
	last Decision
	// pending are the actions handed out and not ended.
	pending []Action
	trace   []string
	// auto ends every action at once.
	auto bool
	fail map[string]Failure // by the action's key
}

func newNode(t *testing.T, pod *corev1.Pod) *node {
	return &node{
		t: t, m: New(), auto: true, fail: map[string]Failure{},
		in: Input{Now: time.Unix(1_700_000_000, 0), Pod: pod, HostIPs: []string{"10.0.0.1"}, RuntimeName: "sim"},
	}
}

func (n *node) log(format string, args ...any) {
	n.trace = append(n.trace, fmt.Sprintf(format, args...))
}

func (n *node) decide() {
	for range 200 {
		n.last = n.m.Decide(n.in)
		for _, e := range n.last.Events {
			n.log("event %s %s", e.Reason, e.Message)
		}
		n.in.Written = true
		if !n.in.Gone {
			n.in.Pod.Status = *n.last.Status.DeepCopy()
		}
		for _, key := range n.last.Cancel {
			n.cancel(key)
		}
		n.pending = append(n.pending, n.last.Actions...)
		if !n.auto || len(n.pending) == 0 {
			if len(n.last.Cancel) == 0 {
				return
			}
			continue
		}
		for len(n.pending) > 0 {
			n.end(0)
		}
	}
	n.t.Fatalf("the machine never rests:\n%s", strings.Join(n.trace[max(0, len(n.trace)-20):], "\n"))
}

func (n *node) cancel(key string) {
	for i, a := range n.pending {
		if a.Key() == key {
			n.pending = append(n.pending[:i], n.pending[i+1:]...)
			n.m.Finish(a, &Failure{}, n.in.Now)
			return
		}
	}
}

func (n *node) container(id string) *Container {
	for i := range n.in.Containers {
		if n.in.Containers[i].ID == id {
			return &n.in.Containers[i]
		}
	}
	return nil
}

func (n *node) running(name string) *Container {
	for i := range n.in.Containers {
		if c := &n.in.Containers[i]; c.Name == name && c.State == Running {
			return c
		}
	}
	return nil
}

// end carries out the i-th pending action.
func (n *node) end(i int) {
	a := n.pending[i]
	n.pending = append(n.pending[:i], n.pending[i+1:]...)
	if f, ok := n.fail[a.Key()]; ok {
		n.log("%s %s failed", a.Kind, a.Container)
		n.m.Finish(a, &f, n.in.Now)
		return
	}
	switch a.Kind {
	case CreateSandbox:
		n.ids++
		n.in.Sandboxes = append(n.in.Sandboxes, Sandbox{ID: fmt.Sprint("s", n.ids), Ready: true, Attempt: a.Attempt, CreatedAt: n.in.Now, IPs: []string{"10.1.0.1"}})
	case StartContainer:
		n.ids++
		if n.running(a.Container) != nil {
			n.t.Errorf("%s started while it runs", a.Container)
		}
		n.in.Containers = append(n.in.Containers, Container{
			ID: fmt.Sprint("c", n.ids), Name: a.Container, SandboxID: a.SandboxID, State: Running,
			Attempt: a.Attempt, CreatedAt: n.in.Now, StartedAt: n.in.Now,
		})
	case StopContainer:
		if c := n.container(a.ContainerID); c != nil && c.State == Running {
			c.State, c.ExitCode, c.FinishedAt = Exited, 137, n.in.Now
		}
	case StopSandbox, RemoveSandbox:
		for j := range n.in.Sandboxes {
			if n.in.Sandboxes[j].ID == a.SandboxID {
				n.in.Sandboxes[j].Ready = false
			}
		}
		for j := range n.in.Containers {
			if c := &n.in.Containers[j]; c.SandboxID == a.SandboxID && c.State == Running {
				c.State, c.ExitCode, c.FinishedAt = Exited, 137, n.in.Now
			}
		}
		if a.Kind == RemoveSandbox {
			n.in.Sandboxes, n.in.Containers = nil, nil
		}
	case RemoveContainer:
		for j := range n.in.Containers {
			if n.in.Containers[j].ID == a.ContainerID {
				n.in.Containers = append(n.in.Containers[:j:j], n.in.Containers[j+1:]...)
				break
			}
		}
	}
	switch a.Kind {
	case StartContainer, StopContainer:
		n.log("%s %s", a.Kind, a.Container)
	default:
		n.log("%s", a.Kind)
	}
	n.m.Finish(a, nil, n.in.Now)
	if a.Kind == DeletePod {
		n.in.Gone = true
	}
}

func (n *node) exit(name string, code int32) {
	c := n.running(name)
	if c == nil {
		n.t.Fatalf("%s does not run", name)
	}
	c.State, c.ExitCode, c.FinishedAt = Exited, code, n.in.Now
	n.log("%s exits %d", name, code)
	n.decide()
}

func (n *node) pass(d time.Duration) {
	n.in.Now = n.in.Now.Add(d)
	n.log("%s later", d)
	n.decide()
}

func (n *node) delete(grace int64) {
	at := metav1.NewTime(n.in.Now.Add(time.Duration(grace) * time.Second))
	n.in.Pod.DeletionTimestamp, n.in.Pod.DeletionGracePeriodSeconds = &at, &grace
	n.log("deleted")
	n.decide()
}

// state sums the status up in a line.
func (n *node) state() string {
	st := &n.last.Status
	var b strings.Builder
	fmt.Fprintf(&b, "%s", st.Phase)
	if st.Reason != "" {
		fmt.Fprintf(&b, "/%s", st.Reason)
	}
	for _, list := range [][]corev1.ContainerStatus{st.InitContainerStatuses, st.ContainerStatuses} {
		for _, s := range list {
			state := ""
			switch {
			case s.State.Running != nil:
				state = "running"
				if s.Ready {
					state = "ready"
				}
			case s.State.Terminated != nil:
				state = s.State.Terminated.Reason
			case s.State.Waiting != nil:
				state = s.State.Waiting.Reason
			}
			fmt.Fprintf(&b, " %s=%s", s.Name, state)
			if s.RestartCount > 0 {
				fmt.Fprintf(&b, "(%d)", s.RestartCount)
			}
		}
	}
	var conds []string
	for _, c := range st.Conditions {
		if c.Status == corev1.ConditionTrue {
			conds = append(conds, map[corev1.PodConditionType]string{
				corev1.PodReady: "R", corev1.ContainersReady: "C", corev1.PodInitialized: "I",
				corev1.PodScheduled: "", corev1.PodReadyToStartContainers: "S",
			}[c.Type])
		}
	}
	sort.Strings(conds)
	return b.String() + " [" + strings.Join(conds, "") + "]"
}

func testPod(policy corev1.RestartPolicy, names ...string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}, Spec: corev1.PodSpec{RestartPolicy: policy}}
	always := corev1.ContainerRestartPolicyAlways
	for _, name := range names {
		c := corev1.Container{Name: name, Image: "img"}
		switch {
		case strings.HasPrefix(name, "init"):
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
		case strings.HasPrefix(name, "side"):
			c.RestartPolicy = &always
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
		default:
			pod.Spec.Containers = append(pod.Spec.Containers, c)
		}
	}
	return pod
}

// TestRandom lets random things happen to random pods and checks what must hold whatever the order.
func TestRandom(t *testing.T) {
	for seed := range int64(150) {
		r := rand.New(rand.NewSource(seed))
		policies := []corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}
		var names []string
		for i := range r.Intn(3) {
			names = append(names, []string{"init", "side"}[r.Intn(2)]+fmt.Sprint(i))
		}
		for i := range 1 + r.Intn(2) {
			names = append(names, fmt.Sprint("app", i))
		}
		pod := testPod(policies[r.Intn(3)], names...)
		grace := int64(30)
		pod.Spec.TerminationGracePeriodSeconds = &grace
		n := newNode(t, pod)
		n.auto = false
		ended, starts := false, map[string]int{}
		for step := 0; step < 300; step++ {
			n.decide()
			if n.last.Done {
				break
			}
			terminated := terminal(n.last.Status.Phase) && !n.in.Gone
			if ended && !terminated && !n.in.Gone {
				t.Fatalf("seed %d: left its terminal phase: %s", seed, n.state())
			}
			ended = ended || terminated
			for _, a := range n.last.Actions {
				if a.Kind == StartContainer {
					starts[a.Container]++
					if ended || n.last.Terminating {
						t.Fatalf("seed %d: started %s in a pod that ended: %v", seed, a.Container, n.trace)
					}
					if pod.Spec.RestartPolicy == corev1.RestartPolicyNever && strings.HasPrefix(a.Container, "app") && len(exitedOf(n, a.Container)) > 0 {
						t.Fatalf("seed %d: restarted %s that never restarts", seed, a.Container)
					}
				}
				if a.Kind == StopContainer && strings.HasPrefix(a.Container, "side") && n.in.Now.Before(n.m.stopSince.Add(30*time.Second)) {
					for i := range n.in.Containers {
						if c := &n.in.Containers[i]; c.State == Running && strings.HasPrefix(c.Name, "app") {
							t.Fatalf("seed %d: sidecar %s stopped before %s", seed, a.Container, c.Name)
						}
					}
				}
			}
			switch k := r.Intn(10); {
			case k < 5 && len(n.pending) > 0:
				i := r.Intn(len(n.pending))
				if r.Intn(6) == 0 && n.pending[i].Kind != DeletePod {
					a := n.pending[i]
					n.pending = append(n.pending[:i], n.pending[i+1:]...)
					n.m.Finish(a, &Failure{Reason: []string{ReasonErrImagePull, ReasonCreateError, "x"}[r.Intn(3)]}, n.in.Now)
				} else {
					n.end(i)
				}
			case k < 7 && len(n.in.Containers) > 0:
				if c := &n.in.Containers[r.Intn(len(n.in.Containers))]; c.State == Running {
					c.State, c.ExitCode, c.FinishedAt = Exited, int32(r.Intn(2)), n.in.Now
				}
			case k == 7 && r.Intn(20) == 0:
				for i := range n.in.Sandboxes {
					n.in.Sandboxes[i].Ready = false
				}
				for i := range n.in.Containers {
					if n.in.Containers[i].State == Running {
						n.in.Containers[i].State, n.in.Containers[i].ExitCode = Exited, 137
					}
				}
			case k == 8 && r.Intn(25) == 0 && n.in.Pod.DeletionTimestamp == nil:
				at := metav1.NewTime(n.in.Now.Add(30 * time.Second))
				n.in.Pod.DeletionTimestamp, n.in.Pod.DeletionGracePeriodSeconds = &at, &grace
			case k == 9 && r.Intn(60) == 0:
				// The kubelet restarts: it forgets, the runtime and the API don't.
				n.m, n.pending = New(), nil
			default:
				n.in.Now = n.in.Now.Add(time.Duration(r.Intn(8000)) * time.Millisecond)
			}
		}
		// Left alone, every pod that is deleted goes away.
		if n.in.Pod.DeletionTimestamp == nil {
			at := metav1.NewTime(n.in.Now.Add(30 * time.Second))
			n.in.Pod.DeletionTimestamp, n.in.Pod.DeletionGracePeriodSeconds = &at, &grace
		}
		n.auto = true
		for len(n.pending) > 0 {
			n.end(0)
		}
		n.decide()
		for range 5 {
			n.pass(time.Minute)
		}
		if !n.last.Done || len(n.in.Sandboxes)+len(n.in.Containers) > 0 {
			t.Fatalf("seed %d: not gone: %+v\n%v", seed, n.last, n.trace)
		}
	}
}

func exitedOf(n *node, name string) (out []string) {
	for _, c := range n.in.Containers {
		if c.Name == name && c.State == Exited {
			out = append(out, c.ID)
		}
	}
	return out
}
