package core

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/keelson/keelson/apiserver/kind"
)

func runningPod(name string, mutate func(p *corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: "u1", Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	if mutate != nil {
		mutate(p)
	}
	return p
}

func newBudget(name string, mutate func(b *policyv1.PodDisruptionBudget)) *policyv1.PodDisruptionBudget {
	b := &policyv1.PodDisruptionBudget{
		TypeMeta:   metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Generation: 1},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
		Status:     policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DisruptionsAllowed: 1, CurrentHealthy: 3, DesiredHealthy: 2, ExpectedPods: 3},
	}
	if mutate != nil {
		mutate(b)
	}
	return b
}

func virtual(t *testing.T, opts Options, resource, subresource string) *kind.Virtual {
	t.Helper()
	for _, v := range Group(opts).Virtuals {
		if v.Resource == resource && v.Subresource == subresource {
			return v
		}
	}
	t.Fatalf("no %s/%s", resource, subresource)
	return nil
}

func TestEviction(t *testing.T) {
	notReady := func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }
	for _, tc := range []struct {
		name    string
		pod     func(p *corev1.Pod)
		budgets []*policyv1.PodDisruptionBudget
		options *metav1.DeleteOptions
		dryRun  bool
		// code is that of the error, 0 for success; cause and message are the error's.
		code           int32
		cause, message string
		// left is what the budget allows afterwards.
		left int32
	}{
		{name: "no budget"},
		{name: "allowed", budgets: []*policyv1.PodDisruptionBudget{newBudget("b", nil)}},
		{name: "dry run", budgets: []*policyv1.PodDisruptionBudget{newBudget("b", nil)}, dryRun: true, left: 1},
		{
			name: "used up", budgets: []*policyv1.PodDisruptionBudget{newBudget("b", func(b *policyv1.PodDisruptionBudget) { b.Status.DisruptionsAllowed, b.Status.CurrentHealthy = 0, 2 })},
			code: 429, message: "Cannot evict pod as it would violate the pod's disruption budget.", cause: "The disruption budget b needs 2 healthy pods and has 2 currently",
		},
		{
			name: "not observed yet", budgets: []*policyv1.PodDisruptionBudget{newBudget("b", func(b *policyv1.PodDisruptionBudget) { b.Generation = 2 })},
			code: 429, message: "Cannot evict pod as it would violate the pod's disruption budget.", cause: "The disruption budget b is still being processed by the server.", left: 1,
		},
		{
			name: "negative", budgets: []*policyv1.PodDisruptionBudget{newBudget("b", func(b *policyv1.PodDisruptionBudget) { b.Status.DisruptionsAllowed = -1 })},
			code: 403, message: `poddisruptionbudgets.policy "b" is forbidden: pdb disruptions allowed is negative`, left: -1,
		},
		{
			name: "two budgets", budgets: []*policyv1.PodDisruptionBudget{newBudget("a", nil), newBudget("b", nil)},
			code: 500, message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.", left: 1,
		},
		{name: "pending", pod: func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }, budgets: []*policyv1.PodDisruptionBudget{newBudget("b", func(b *policyv1.PodDisruptionBudget) { b.Status.DisruptionsAllowed = 0 })}},
		{name: "succeeded", pod: func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, budgets: []*policyv1.PodDisruptionBudget{newBudget("b", func(b *policyv1.PodDisruptionBudget) { b.Status.DisruptionsAllowed = 0 })}},
		{name: "unhealthy with enough healthy", pod: notReady, budgets: []*policyv1.PodDisruptionBudget{newBudget("b", func(b *policyv1.PodDisruptionBudget) { b.Status.DisruptionsAllowed = 0 })}},
		{
			name: "unhealthy without", pod: notReady, budgets: []*policyv1.PodDisruptionBudget{newBudget("b", func(b *policyv1.PodDisruptionBudget) { b.Status.DisruptionsAllowed, b.Status.CurrentHealthy = 0, 1 })},
			code: 429, message: "Cannot evict pod as it would violate the pod's disruption budget.", cause: "The disruption budget b needs 2 healthy pods and has 1 currently",
		},
		{name: "unhealthy, always allowed", pod: notReady, budgets: []*policyv1.PodDisruptionBudget{newBudget("b", func(b *policyv1.PodDisruptionBudget) {
			b.Status.DisruptionsAllowed, b.Status.CurrentHealthy = 0, 1
			b.Spec.UnhealthyPodEvictionPolicy = ptr.To(policyv1.AlwaysAllow)
		})}},
		{
			name: "another pod of that name", options: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To(types.UID("u2"))}}, code: 409,
			message: `Operation cannot be fulfilled on pods "web": the UID in the precondition (u2) does not match the UID in record (u1). The object might have been deleted and then recreated`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMemory(runningPod("web", tc.pod))
			for _, b := range tc.budgets {
				m.set(keyOf(b), b)
			}
			ctx := kind.WithAccess(context.Background(), m)
			e := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}, DeleteOptions: tc.options}
			out, err := virtual(t, testOptions(t), "pods", "eviction").Create(ctx, "default", "web", e, tc.dryRun)
			if tc.code == 0 {
				if err != nil {
					t.Fatal(err)
				}
				if s, ok := out.(*metav1.Status); !ok || s.Status != metav1.StatusSuccess {
					t.Errorf("answer %#v", out)
				}
				if len(m.deleted) != 1 {
					t.Fatalf("%d deletions", len(m.deleted))
				}
				if tc.dryRun != (len(m.deleted[0].DryRun) > 0) {
					t.Errorf("dry run %v, deleted with %v", tc.dryRun, m.deleted[0].DryRun)
				}
			} else {
				status, ok := err.(apierrors.APIStatus)
				if !ok {
					t.Fatalf("error %v", err)
				}
				if s := status.Status(); s.Code != tc.code || s.Message != tc.message {
					t.Errorf("got %d %q", s.Code, s.Message)
				}
				if cause, has := apierrors.StatusCause(err, policyv1.DisruptionBudgetCause); has != (tc.cause != "") || cause.Message != tc.cause {
					t.Errorf("cause %q, want %q", cause.Message, tc.cause)
				}
				if len(m.deleted) != 0 {
					t.Error("deleted all the same")
				}
			}
			for _, b := range tc.budgets {
				obj, err := m.Get(ctx, budgetGVK, "default", b.Name)
				if err != nil {
					t.Fatal(err)
				}
				if left := obj.(*policyv1.PodDisruptionBudget).Status.DisruptionsAllowed; left != tc.left {
					t.Errorf("%s now allows %d, want %d", b.Name, left, tc.left)
				}
			}
		})
	}
}

func TestEvictionNotes(t *testing.T) {
	m := newMemory(runningPod("web", nil), newBudget("b", nil))
	ctx := kind.WithAccess(context.Background(), m)
	v := virtual(t, testOptions(t), "pods", "eviction")
	if _, err := v.Create(ctx, "default", "web", &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, false); !apierrors.IsBadRequest(err) {
		t.Errorf("names differ: %v", err)
	}
	if _, err := v.Create(ctx, "default", "web", &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "web"}, DeleteOptions: &metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](3)}}, false); err != nil {
		t.Fatal(err)
	}
	if m.deleted[0].GracePeriodSeconds == nil || *m.deleted[0].GracePeriodSeconds != 3 {
		t.Errorf("deleted with %+v", m.deleted[0])
	}
	obj, err := m.Get(ctx, budgetGVK, "default", "b")
	if err != nil {
		t.Fatal(err)
	}
	b := obj.(*policyv1.PodDisruptionBudget)
	if at := b.Status.DisruptedPods["web"]; !at.Time.Equal(now) {
		t.Errorf("disrupted pods %v", b.Status.DisruptedPods)
	}
	if c := b.Status.Conditions; len(c) != 1 || c[0].Reason != policyv1.InsufficientPodsReason || c[0].Status != metav1.ConditionFalse {
		t.Errorf("conditions %v", c)
	}
	if _, err := v.Create(ctx, "default", "web", &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "web"}}, false); !apierrors.IsNotFound(err) {
		t.Errorf("gone: %v", err)
	}
}

func TestBinding(t *testing.T) {
	node := &corev1.Node{TypeMeta: metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelTopologyZone: "z1", "x": "y"}}}
	pending := func(name string, mutate func(p *corev1.Pod)) *corev1.Pod {
		return runningPod(name, func(p *corev1.Pod) {
			p.Spec.NodeName = ""
			p.Status = corev1.PodStatus{Phase: corev1.PodPending, NominatedNodeName: "n0"}
			if mutate != nil {
				mutate(p)
			}
		})
	}
	deleted := metav1.NewTime(now)
	m := newMemory(node, pending("free", nil), runningPod("bound", nil),
		pending("gated", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}} }),
		pending("going", func(p *corev1.Pod) { p.DeletionTimestamp = &deleted }))
	ctx := kind.WithAccess(context.Background(), m)
	to := func(name, kindName, node string) *corev1.Binding {
		return &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"a": "b"}}, Target: corev1.ObjectReference{Kind: kindName, Name: node}}
	}
	v := virtual(t, testOptions(t), "pods", "binding")
	for _, tc := range []struct {
		name string
		b    *corev1.Binding
		want string
	}{
		{"free", to("free", "Pod", "n1"), `target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>"`},
		{"free", to("free", "", ""), `target.name: Required value`},
		{"free", to("other", "", "n1"), `name in URL does not match name in Binding object`},
		{"bound", to("bound", "Node", "n1"), `Operation cannot be fulfilled on pods/binding "bound": pod bound is already assigned to node "n"`},
		{"gated", to("gated", "Node", "n1"), `Operation cannot be fulfilled on pods/binding "gated": pod gated has non-empty .spec.schedulingGates`},
		{"going", to("going", "Node", "n1"), `Operation cannot be fulfilled on pods/binding "going": pod going is being deleted, cannot be assigned to a host`},
		{"nobody", to("nobody", "Node", "n1"), `Pod "nobody" not found`},
	} {
		if _, err := v.Create(ctx, "default", tc.name, tc.b, false); err == nil || err.Error() != tc.want {
			t.Errorf("%s: got %v, want %s", tc.name, err, tc.want)
		}
	}
	if _, err := v.Create(ctx, "default", "free", to("free", "Node", "n1"), true); err != nil {
		t.Fatal(err)
	}
	get := func() *corev1.Pod {
		obj, err := m.Get(ctx, podGVK, "default", "free")
		if err != nil {
			t.Fatal(err)
		}
		return obj.(*corev1.Pod)
	}
	if get().Spec.NodeName != "" {
		t.Error("a dry run binds")
	}
	if _, err := virtual(t, testOptions(t), "bindings", "").Create(ctx, "default", "", to("free", "Node", "n1"), false); err != nil {
		t.Fatal(err)
	}
	p := get()
	if p.Spec.NodeName != "n1" || p.Status.NominatedNodeName != "" || p.Annotations["a"] != "b" || p.Labels[corev1.LabelTopologyZone] != "z1" || p.Labels["x"] != "" {
		t.Errorf("bound pod %+v", p)
	}
	if c := p.Status.Conditions; len(c) != 1 || c[0].Type != corev1.PodScheduled || c[0].Status != corev1.ConditionTrue || !c[0].LastTransitionTime.Time.Equal(now) {
		t.Errorf("conditions %v", c)
	}
}

func TestGracePeriod(t *testing.T) {
	for _, tc := range []struct {
		name      string
		pod       func(p *corev1.Pod)
		requested *int64
		want      int64
	}{
		{"the pod's own", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](30) }, nil, 30},
		{"requested", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](30) }, ptr.To[int64](5), 5},
		{"now", nil, ptr.To[int64](0), 0},
		{"negative", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](-3) }, nil, 1},
		{"not scheduled", func(p *corev1.Pod) { p.Spec.NodeName = "" }, ptr.To[int64](30), 0},
		{"ended", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, ptr.To[int64](30), 0},
	} {
		if got := gracePeriod(runningPod("p", tc.pod), tc.requested); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}
