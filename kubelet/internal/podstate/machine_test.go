package podstate

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func ptr[T any](v T) *T { return &v }

// TestScenarios tells the lives of pods: what is done, and the status after each step.
func TestScenarios(t *testing.T) {
	for _, tc := range []struct {
		name string
		pod  *corev1.Pod
		edit func(*corev1.Pod)
		play func(n *node, show func())
		want string
	}{
		{
			name: "ordinary life and deletion",
			pod:  testPod(corev1.RestartPolicyAlways, "app"),
			play: func(n *node, show func()) { n.decide(); show(); n.delete(30); show() },
			want: `
prepare-volumes
create-sandbox
start app
= Running app=ready [CIRS]
deleted
event - stop app
stop-sandbox
clean-up
delete-pod
remove-sandbox
= Failed app=Error [I]`,
		},
		{
			name: "init containers run one after the other",
			pod:  testPod(corev1.RestartPolicyAlways, "init1", "init2", "app"),
			play: func(n *node, show func()) {
				n.decide()
				show()
				n.exit("init1", 0)
				show()
				n.exit("init2", 0)
				show()
			},
			want: `
prepare-volumes
create-sandbox
start init1
= Pending init1=running init2=PodInitializing app=PodInitializing [S]
init1 exits 0
start init2
= Pending init1=Completed init2=running app=PodInitializing [S]
init2 exits 0
start app
= Running init1=Completed init2=Completed app=ready [CIRS]`,
		},
		{
			name: "a failed init container fails a pod that never restarts",
			pod:  testPod(corev1.RestartPolicyNever, "init1", "app"),
			play: func(n *node, show func()) { n.decide(); n.exit("init1", 3); show() },
			want: `
prepare-volumes
create-sandbox
start init1
init1 exits 3
stop-sandbox
clean-up
= Failed init1=Error app=PodInitializing []`,
		},
		{
			name: "crash back-off doubles",
			pod:  testPod(corev1.RestartPolicyAlways, "app"),
			play: func(n *node, show func()) {
				n.decide()
				n.exit("app", 1)
				show()
				n.exit("app", 1)
				show()
				n.pass(9 * time.Second)
				n.pass(time.Second)
				show()
				n.exit("app", 1)
				n.pass(19 * time.Second)
				n.pass(time.Second)
				n.pass(11 * time.Minute)
				n.exit("app", 1)
				show()
			},
			want: `
prepare-volumes
create-sandbox
start app
app exits 1
start app
= Running app=ready(1) [CIRS]
app exits 1
event BackOff Back-off restarting failed container app in pod p_ns(u)
= Running app=CrashLoopBackOff(1) [IS]
9s later
1s later
start app
= Running app=ready(2) [CIRS]
app exits 1
event BackOff Back-off restarting failed container app in pod p_ns(u)
19s later
1s later
start app
11m0s later
app exits 1
start app
= Running app=ready(4) [CIRS]`,
		},
		{
			name: "sidecars start first and stop last, in reverse",
			pod:  testPod(corev1.RestartPolicyNever, "side1", "side2", "app"),
			play: func(n *node, show func()) { n.decide(); show(); n.exit("app", 0); show() },
			want: `
prepare-volumes
create-sandbox
start side1
start side2
start app
= Running side1=ready side2=ready app=ready [CIRS]
app exits 0
stop side2
stop side1
stop-sandbox
clean-up
= Succeeded side1=Error side2=Error app=Completed [I]`,
		},
		{
			name: "a sidecar is waited for until its startup probe succeeds",
			pod:  testPod(corev1.RestartPolicyAlways, "side1", "app"),
			edit: func(p *corev1.Pod) { p.Spec.InitContainers[0].StartupProbe = &corev1.Probe{} },
			play: func(n *node, show func()) {
				n.decide()
				show()
				n.m.Probe("side1", n.running("side1").ID, Startup, ProbeSuccess)
				n.decide()
				show()
			},
			want: `
prepare-volumes
create-sandbox
start side1
= Pending side1=running app=PodInitializing [S]
start app
= Running side1=ready app=ready [CIRS]`,
		},
		{
			name: "liveness failure restarts, readiness failure unreadies",
			pod:  testPod(corev1.RestartPolicyAlways, "app"),
			edit: func(p *corev1.Pod) {
				p.Spec.Containers[0].LivenessProbe, p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{}, &corev1.Probe{}
			},
			play: func(n *node, show func()) {
				n.decide()
				show()
				id := n.running("app").ID
				n.m.Probe("app", id, Readiness, ProbeSuccess)
				n.decide()
				show()
				n.m.Probe("app", id, Liveness, ProbeFailure)
				n.decide()
				show()
			},
			want: `
prepare-volumes
create-sandbox
start app
= Running app=running [IS]
= Running app=ready [CIRS]
stop app
start app
= Running app=running(1) [IS]`,
		},
		{
			name: "an image that cannot be pulled",
			pod:  testPod(corev1.RestartPolicyAlways, "app"),
			play: func(n *node, show func()) {
				n.fail["start/app"] = Failure{Reason: ReasonErrImagePull, Message: "no such image"}
				n.decide()
				show()
				n.pass(3 * time.Second)
				show()
				n.pass(7 * time.Second)
				delete(n.fail, "start/app")
				n.pass(19 * time.Second)
				n.pass(time.Second)
				show()
			},
			want: `
prepare-volumes
create-sandbox
start app failed
= Pending app=ErrImagePull [IS]
3s later
event BackOff Back-off pulling image "img"
event Failed Error: ImagePullBackOff
= Pending app=ImagePullBackOff [IS]
7s later
start app failed
19s later
event BackOff Back-off pulling image "img"
event Failed Error: ImagePullBackOff
1s later
start app
= Running app=ready [CIRS]`,
		},
		{
			name: "deadline",
			pod:  testPod(corev1.RestartPolicyNever, "app"),
			edit: func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr(int64(60)) },
			play: func(n *node, show func()) { n.decide(); n.pass(59 * time.Second); n.pass(time.Second); show() },
			want: `
prepare-volumes
create-sandbox
start app
59s later
1s later
event DeadlineExceeded Pod was active on the node longer than the specified deadline
stop app
stop-sandbox
clean-up
= Failed/DeadlineExceeded app=Error [I]`,
		},
		{
			name: "container restart rules override Never",
			pod:  testPod(corev1.RestartPolicyNever, "app"),
			edit: func(p *corev1.Pod) {
				p.Spec.Containers[0].RestartPolicy = ptr(corev1.ContainerRestartPolicyNever)
				p.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{
					Action:    corev1.ContainerRestartRuleActionRestart,
					ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}},
				}}
			},
			play: func(n *node, show func()) { n.decide(); n.exit("app", 42); show(); n.exit("app", 1); show() },
			want: `
prepare-volumes
create-sandbox
start app
app exits 42
start app
= Running app=ready(1) [CIRS]
app exits 1
stop-sandbox
clean-up
= Failed app=Error(1) [I]`,
		},
		{
			name: "a job's pod that is done keeps its containers until it is deleted",
			pod:  testPod(corev1.RestartPolicyOnFailure, "app"),
			play: func(n *node, show func()) {
				n.decide()
				n.exit("app", 0)
				show()
				n.pass(time.Hour)
				n.delete(0)
				show()
			},
			want: `
prepare-volumes
create-sandbox
start app
app exits 0
stop-sandbox
clean-up
= Succeeded app=Completed [I]
1h0m0s later
deleted
delete-pod
remove-sandbox
= Succeeded app=Completed [I]`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.edit != nil {
				tc.edit(tc.pod)
			}
			n := newNode(t, tc.pod)
			shown := ""
			tc.play(n, func() {
				s := n.state()
				if n.in.Gone {
					s = shown
				}
				n.log("= %s", s)
				shown = s
			})
			// The status after a deletion is the last one the API saw.
			got := strings.Join(n.trace, "\n")
			want := strings.ReplaceAll(strings.TrimSpace(tc.want), "event - ", "")
			if n.in.Gone {
				got = strings.Join(n.trace[:len(n.trace)-1], "\n") + "\n= " + stateOf(n)
			}
			if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func stateOf(n *node) string {
	n.last.Status = n.in.Pod.Status
	return n.state()
}

// TestAdoption gives a new machine what an old one had running: it must touch nothing.
func TestAdoption(t *testing.T) {
	pod := testPod(corev1.RestartPolicyAlways, "init1", "side1", "app")
	pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{}
	pod.Spec.InitContainers[1].StartupProbe = &corev1.Probe{}
	n := newNode(t, pod)
	n.decide()
	n.exit("init1", 0)
	n.m.Probe("side1", n.running("side1").ID, Startup, ProbeSuccess)
	n.decide()
	n.m.Probe("app", n.running("app").ID, Readiness, ProbeSuccess)
	n.decide()
	before := n.last.Status
	n.m, n.trace = New(), nil
	n.decide()
	if diff := cmp.Diff([]string{"prepare-volumes"}, n.trace); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(before, n.last.Status); diff != "" {
		t.Errorf("status changed by a restart of the kubelet: %s", diff)
	}
}

// TestLostContainer shows that what the runtime forgot is told in the status, and restarted only if the policy says so.
func TestLostContainer(t *testing.T) {
	for policy, want := range map[corev1.RestartPolicy]string{
		corev1.RestartPolicyAlways: "Running app=ready(1) [CIRS]",
		corev1.RestartPolicyNever:  "Failed app=ContainerStatusUnknown [I]",
	} {
		n := newNode(t, testPod(policy, "app"))
		n.decide()
		n.in.Containers, n.in.Sandboxes = nil, nil
		n.decide()
		if got := n.state(); got != want {
			t.Errorf("%s: %s, want %s", policy, got, want)
		}
	}
}

// TestShorterGrace shows that a second deletion with less time replaces the stop under way.
func TestShorterGrace(t *testing.T) {
	n := newNode(t, testPod(corev1.RestartPolicyAlways, "app"))
	n.decide()
	n.auto = false
	n.delete(30)
	if len(n.pending) != 1 || n.pending[0].Grace != 30*time.Second {
		t.Fatalf("pending %+v", n.pending)
	}
	n.pass(time.Second)
	if len(n.pending) != 1 {
		t.Fatalf("stopped again for nothing: %+v", n.pending)
	}
	n.delete(5)
	if len(n.pending) != 2 || n.pending[1].Grace != 4*time.Second {
		t.Fatalf("pending %+v", n.pending)
	}
}

// TestRejected shows that a refused pod fails with the reason and gets no container.
func TestRejected(t *testing.T) {
	n := newNode(t, testPod(corev1.RestartPolicyAlways, "app"))
	n.in.Rejected = &Rejection{Reason: "OutOfcpu", Message: "Pod was rejected: no cpu"}
	n.decide()
	if got := n.state(); got != "Failed/OutOfcpu []" {
		t.Error(got)
	}
	n.in.Rejected = nil
	n.m = New()
	n.decide()
	if got := n.state(); got != "Failed/OutOfcpu []" {
		t.Error(got)
	}
}
