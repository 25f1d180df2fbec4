package decisions

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	kubescheduler "k8s.io/kubernetes/pkg/scheduler"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultpreemption"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/feature"
	"k8s.io/kubernetes/pkg/scheduler/framework/preemption"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// upstream is kube-scheduler itself, without an API server: it is told of objects, and asked.
type upstream struct {
	sched     *kubescheduler.Scheduler
	snapshot  *cache.Snapshot
	informers map[reflect.Type]*informer
	preempt   map[string]*defaultpreemption.DefaultPreemption // by profile
	factory   informers.SharedInformerFactory
	client    *fake.Clientset
}

func newUpstream(t *testing.T, profiles []schedulerconfig.KubeSchedulerProfile, opts ...kubescheduler.Option) *upstream {
	t.Helper()
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), klog.Logger{}))
	t.Cleanup(cancel)
	c := fake.NewClientset()
	f := informers.NewSharedInformerFactory(c, 0)
	u := &upstream{informers: newInformers(f), snapshot: cache.NewEmptySnapshot(), factory: f, client: c, preempt: map[string]*defaultpreemption.DefaultPreemption{}}
	opts = append(opts, kubescheduler.WithNodeInfoSnapshot(u.snapshot), kubescheduler.WithParallelism(1))
	if profiles != nil {
		opts = append(opts, kubescheduler.WithProfiles(profiles...))
	}
	var err error
	u.sched, err = kubescheduler.New(ctx, c, f, nil, func(string) events.EventRecorderLogger { return &events.FakeRecorder{} }, opts...)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range u.sched.Profiles {
		args := &schedulerconfig.DefaultPreemptionArgs{MinCandidateNodesPercentage: 100, MinCandidateNodesAbsolute: 1 << 20}
		if u.preempt[name], err = defaultpreemption.New(ctx, args, p, feature.NewSchedulerFeaturesFromGates(utilfeature.DefaultFeatureGate)); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

func (u *upstream) set(obj client.Object) error {
	if p, ok := obj.(*corev1.Pod); ok {
		obj = merged(p)
	}
	return u.informers[reflect.TypeOf(obj)].set(obj)
}

func (u *upstream) remove(obj client.Object) error {
	return u.informers[reflect.TypeOf(obj)].remove(obj)
}

// merged is a pod as kube-apiserver stores it: what matchLabelKeys and mismatchLabelKeys say of the labels it was created with is part of the selectors.
func merged(p *corev1.Pod) *corev1.Pod {
	p = p.DeepCopy()
	merge := func(sel *metav1.LabelSelector, keys []string, op metav1.LabelSelectorOperator) {
		for _, key := range keys {
			already := sel == nil || slices.ContainsFunc(sel.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool { return r.Key == key })
			if v, ok := p.Labels[key]; ok && !already {
				sel.MatchExpressions = append(sel.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: []string{v}})
			}
		}
	}
	eachTerm(p, func(t *corev1.PodAffinityTerm) {
		merge(t.LabelSelector, t.MatchLabelKeys, metav1.LabelSelectorOpIn)
		merge(t.LabelSelector, t.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
	})
	for i := range p.Spec.TopologySpreadConstraints {
		c := &p.Spec.TopologySpreadConstraints[i]
		merge(c.LabelSelector, c.MatchLabelKeys, metav1.LabelSelectorOpIn)
	}
	return p
}

func eachTerm(p *corev1.Pod, f func(*corev1.PodAffinityTerm)) {
	a := p.Spec.Affinity
	if a == nil {
		return
	}
	both := func(must []corev1.PodAffinityTerm, may []corev1.WeightedPodAffinityTerm) {
		for i := range must {
			f(&must[i])
		}
		for i := range may {
			f(&may[i].PodAffinityTerm)
		}
	}
	if a.PodAffinity != nil {
		both(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a.PodAntiAffinity != nil {
		both(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

// verdict is what one of the two schedulers says of a pod.
type verdict struct {
	// Gate keeps the pod from being tried.
	Gate string
	// Rejection before nodes are looked at.
	Rejection *rejection
	// Nodes by name.
	Nodes map[string]*nodeVerdict
	// Feasible is how many nodes the decision had to choose from.
	Feasible int
	// Message is what the event says, with that of preemption.
	Message string
	// Rejecters are the plugins whose hints are to be asked.
	Rejecters []string
	// Nominated: the pod goes to where room was made for it.
	Nominated string
	// Rooms are where it could be made, with the victims; Best those that may be chosen.
	Rooms map[string]room
	// Kept: the pod keeps its nomination though there is no room to be made.
	Kept bool
	// Error of a plugin: there is no decision.
	Error string
}

type rejection struct {
	Plugin       string
	Reasons      []string
	Unresolvable bool
}

// newRejection has the reasons in the order in which messages have them.
func newRejection(plugin string, reasons []string, unresolvable bool) *rejection {
	return &rejection{plugin, slices.Sorted(slices.Values(reasons)), unresolvable}
}

type nodeVerdict struct {
	Rejection *rejection
	Scores    map[string]int64 // weighted, by plugin; none for 0
	Total     int64
}

type room struct {
	Victims    []string
	Violations int
}

func rejectionOf(s *fwk.Status) *rejection {
	return newRejection(s.Plugin(), s.Reasons(), s.Code() == fwk.UnschedulableAndUnresolvable)
}

var alone = regexp.MustCompile(`plugin\(s\) \[NodeAffinity [^]]*\]`)

// messageOf leaves out that of a nominated pod kube-scheduler lists the plugins that rejected its node as if they had confined the pod, too: they share a set.
func messageOf(fit *framework.FitError) string {
	return alone.ReplaceAllString(fit.Error(), "plugin(s) [NodeAffinity]")
}

// ask decides for a pod that was told of. better reports whether one node of Rooms may be chosen over another.
func (u *upstream) ask(t *testing.T, name types.NamespacedName) (_ *verdict, mayChoose func(node string) bool) {
	t.Helper()
	v := &verdict{}
	ctx := klog.NewContext(context.Background(), klog.Logger{})
	obj, known, err := u.informers[reflect.TypeOf(&corev1.Pod{})].GetStore().GetByKey(name.String())
	if err != nil || !known {
		t.Fatalf("pod %s: %v", name, err)
	}
	pod := obj.(*corev1.Pod)
	prof := u.sched.Profiles[pod.Spec.SchedulerName]
	for _, p := range prof.PreEnqueuePlugins() {
		if s := p.PreEnqueue(ctx, pod); !s.IsSuccess() {
			v.Gate = p.Name() + ": " + s.Message()
			return v, nil
		}
	}
	// Anew, not only what changed: in kube-scheduler a node goes on with the number of nodes that had its images when it changed the last time.
	*u.snapshot = *cache.NewEmptySnapshot()
	if err := u.sched.Cache.UpdateSnapshot(klog.Logger{}, u.snapshot); err != nil {
		t.Fatal(err)
	}
	info, err := framework.NewPodInfo(pod)
	if err != nil {
		t.Fatal(err)
	}
	state := framework.NewCycleState()
	result, err := u.sched.SchedulePod(ctx, prof, state, &framework.QueuedPodInfo{PodInfo: info})
	var fit *framework.FitError
	switch {
	case err == nil:
		v.Feasible = result.FeasibleNodes
		if pod.Status.NominatedNodeName == result.SuggestedHost && result.EvaluatedNodes == 1 {
			v.Nominated = result.SuggestedHost
		}
	case errors.As(err, &fit):
		v.Rejecters = slices.Sorted(maps.Keys(fit.Diagnosis.UnschedulablePlugins))
		mayChoose = u.askPreemption(ctx, v, pod, state, fit)
		v.Message = messageOf(fit)
	case errors.Is(err, kubescheduler.ErrNoNodesAvailable):
		v.Message = err.Error()
	default:
		v.Error = err.Error()
	}
	u.askNodes(ctx, v, prof, pod)
	return v, mayChoose
}

// askNodes asks of each node.
func (u *upstream) askNodes(ctx context.Context, v *verdict, prof framework.Framework, pod *corev1.Pod) {
	v.Nodes = map[string]*nodeVerdict{}
	all, err := u.snapshot.NodeInfos().List()
	if err != nil || len(all) == 0 {
		return
	}
	state := framework.NewCycleState()
	pre, s, plugins := prof.RunPreFilterPlugins(ctx, state, pod)
	if !s.IsSuccess() {
		if s.IsRejected() {
			v.Rejection = rejectionOf(s)
		}
		return
	}
	var feasible []fwk.NodeInfo
	for _, n := range all {
		name := n.Node().Name
		v.Nodes[name] = &nodeVerdict{}
		if !pre.AllNodes() && !pre.NodeNames.Has(name) {
			reason := fmt.Sprintf("node(s) didn't satisfy plugin(s) %v", slices.Sorted(maps.Keys(plugins)))
			v.Nodes[name].Rejection = &rejection{slices.Sorted(maps.Keys(plugins))[0], []string{reason}, true}
			continue
		}
		s := prof.RunFilterPluginsWithNominatedPods(ctx, state, pod, n)
		switch {
		case s.IsSuccess():
			feasible = append(feasible, n)
		case s.IsRejected():
			v.Nodes[name].Rejection = rejectionOf(s)
		default:
			v.Error = s.AsError().Error()
		}
	}
	if len(feasible) == 0 || v.Error != "" {
		return
	}
	if s := prof.RunPreScorePlugins(ctx, state, pod, feasible); !s.IsSuccess() {
		v.Error = s.AsError().Error()
		return
	}
	scores, s := prof.RunScorePlugins(ctx, state, pod, feasible)
	if !s.IsSuccess() {
		v.Error = s.AsError().Error()
		return
	}
	for _, n := range scores {
		v.Nodes[n.Name].Total = n.TotalScore
		for _, p := range n.Scores {
			if p.Score == 0 {
				continue
			}
			if v.Nodes[n.Name].Scores == nil {
				v.Nodes[n.Name].Scores = map[string]int64{}
			}
			v.Nodes[n.Name].Scores[p.Name] = p.Score
		}
	}
}

// askPreemption does as the plugin's PostFilter does, without carrying it out.
func (u *upstream) askPreemption(ctx context.Context, v *verdict, pod *corev1.Pod, state fwk.CycleState, fit *framework.FitError) func(string) bool {
	p := u.preempt[pod.Spec.SchedulerName]
	statuses := fit.Diagnosis.NodeToStatus
	var candidates []preemption.Candidate
	eligible, _ := p.PodEligibleToPreemptOthers(ctx, pod, statuses.Get(pod.Status.NominatedNodeName))
	if nodes, err := statuses.NodesForStatusCode(u.snapshot.NodeInfos(), fwk.Unschedulable); err == nil && len(nodes) > 0 && eligible {
		var pdbs []*policyv1.PodDisruptionBudget
		for _, o := range u.informers[reflect.TypeOf(&policyv1.PodDisruptionBudget{})].GetStore().List() {
			pdbs = append(pdbs, o.(*policyv1.PodDisruptionBudget))
		}
		candidates, _, _ = p.Evaluator.DryRunPreemption(ctx, state, pod, nodes, pdbs, 0, int32(len(nodes)))
	}
	if len(candidates) == 0 {
		result, s := p.PostFilter(ctx, state, pod, statuses)
		fit.Diagnosis.PostFilterMsg = s.Message()
		v.Kept = result == nil
		if s.Code() == fwk.Error {
			v.Error = s.AsError().Error()
		}
		return nil
	}
	v.Rooms = map[string]room{}
	byNode := map[string]preemption.Candidate{}
	for _, c := range candidates {
		r := room{Violations: int(c.Victims().NumPDBViolations)}
		for _, victim := range c.Victims().Pods {
			r.Victims = append(r.Victims, victim.Name)
		}
		v.Rooms[c.Name()], byNode[c.Name()] = r, c
	}
	return func(node string) bool {
		mine, ok := byNode[node]
		if !ok {
			return false
		}
		best := p.Evaluator.SelectCandidate(ctx, candidates)
		for range 64 { // among equals the choice is left to chance
			if best.Name() == node {
				fit.Diagnosis.PostFilterMsg = fmt.Sprintf("preemption: found a potential placement for pod on node %v, preempting %d victims", node, len(mine.Victims().Pods))
				v.Message = messageOf(fit)
				return true
			}
			best = p.Evaluator.SelectCandidate(ctx, []preemption.Candidate{best, mine})
		}
		return false
	}
}
