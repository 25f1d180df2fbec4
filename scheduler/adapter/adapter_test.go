package adapter_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/adapter"
	"github.com/keelson/keelson/scheduler/plugins"
	"github.com/keelson/keelson/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The plugins below are written as those of the public ecosystem are, against k8s.io/kube-scheduler/framework alone.

// coscheduling holds the pods of a group back until as many as their label says have a place.
type coscheduling struct{ handle fwk.Handle }

var (
	_ fwk.QueueSortPlugin   = &coscheduling{}
	_ fwk.PreFilterPlugin   = &coscheduling{}
	_ fwk.PermitPlugin      = &coscheduling{}
	_ fwk.ReservePlugin     = &coscheduling{}
	_ fwk.EnqueueExtensions = &coscheduling{}
)

func newCoscheduling(_ context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	return &coscheduling{h}, nil
}

func group(p *corev1.Pod) (name string, members int) {
	_, _ = fmt.Sscanf(p.Labels["members"], "%d", &members)
	return p.Labels["group"], members
}

func (*coscheduling) Name() string                                 { return "Coscheduling" }
func (*coscheduling) Less(a, b fwk.QueuedEntityInfo) bool          { return a.GetPriority() > b.GetPriority() }
func (*coscheduling) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

func (*coscheduling) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{{Event: fwk.ClusterEvent{Resource: fwk.Pod, ActionType: fwk.Add | fwk.Delete}}}, nil
}

func (*coscheduling) PreFilter(_ context.Context, _ fwk.CycleState, p *corev1.Pod, nodes []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	if _, members := group(p); members > 0 && len(nodes) == 0 {
		return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "no nodes for the group")
	}
	return nil, nil
}

func (c *coscheduling) placed(name string) (n int) {
	all, err := c.handle.SnapshotSharedLister().NodeInfos().List()
	if err != nil {
		panic(err)
	}
	for _, info := range all {
		for _, p := range info.GetPods() {
			if g, _ := group(p.GetPod()); g == name {
				n++
			}
		}
	}
	return n
}

func (c *coscheduling) Permit(_ context.Context, _ fwk.CycleState, p *corev1.Pod, _ string) (*fwk.Status, time.Duration) {
	name, members := group(p)
	if name == "" {
		return nil, 0
	}
	if c.placed(name) < members {
		return fwk.NewStatus(fwk.Wait), time.Minute
	}
	c.handle.IterateOverWaitingPods(func(w fwk.WaitingPod) {
		if g, _ := group(w.GetPod()); g == name {
			w.Allow(c.Name())
		}
	})
	return nil, 0
}

func (c *coscheduling) Reserve(context.Context, fwk.CycleState, *corev1.Pod, string) *fwk.Status {
	return nil
}

func (c *coscheduling) Unreserve(_ context.Context, _ fwk.CycleState, p *corev1.Pod, _ string) {
	name, _ := group(p)
	c.handle.IterateOverWaitingPods(func(w fwk.WaitingPod) {
		if g, _ := group(w.GetPod()); g == name {
			w.Reject(c.Name(), "rejection in Unreserve")
		}
	})
}

// allocatable prefers nodes with the least of a resource.
type allocatable struct{}

var (
	_ fwk.ScorePlugin     = allocatable{}
	_ fwk.ScoreExtensions = allocatable{}
)

func (allocatable) Name() string                           { return "NodeResourcesAllocatable" }
func (a allocatable) ScoreExtensions() fwk.ScoreExtensions { return a }

func (allocatable) Score(_ context.Context, _ fwk.CycleState, _ *corev1.Pod, n fwk.NodeInfo) (int64, *fwk.Status) {
	return -n.GetAllocatable().GetMilliCPU(), nil
}

func (allocatable) NormalizeScore(_ context.Context, _ fwk.CycleState, _ *corev1.Pod, scores fwk.NodeScoreList) *fwk.Status {
	least, greatest := int64(math.MaxInt64), int64(math.MinInt64)
	for _, s := range scores {
		least, greatest = min(least, s.Score), max(greatest, s.Score)
	}
	for i, s := range scores {
		if greatest == least {
			scores[i].Score = fwk.MinScore
			continue
		}
		scores[i].Score = (s.Score-least)*(fwk.MaxScore-fwk.MinScore)/(greatest-least) + fwk.MinScore
	}
	return nil
}

// quota rejects nodes with as many pods of the pod's team as its PreFilter says.
type quota struct{ most int }

type quotaState struct{ team string }

func (s *quotaState) Clone() fwk.StateData { return s }

func (quota) Name() string                                 { return "TeamQuota" }
func (quota) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

func (quota) PreFilter(_ context.Context, state fwk.CycleState, p *corev1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	switch p.Labels["team"] {
	case "":
		return nil, fwk.NewStatus(fwk.Skip)
	case "banned":
		return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "team is banned")
	case "broken":
		return nil, fwk.AsStatus(errors.New("quota service is away"))
	case "pinned":
		return &fwk.PreFilterResult{NodeNames: sets.New("small")}, nil
	}
	state.Write("TeamQuota", &quotaState{p.Labels["team"]})
	return nil, nil
}

func (q quota) Filter(_ context.Context, state fwk.CycleState, p *corev1.Pod, n fwk.NodeInfo) *fwk.Status {
	if p.Labels["team"] == "pinned" {
		return nil
	}
	s, err := state.Read("TeamQuota")
	if err != nil {
		return fwk.AsStatus(err)
	}
	count := 0
	for _, other := range n.GetPods() {
		if other.GetPod().Labels["team"] == s.(*quotaState).team {
			count++
		}
	}
	if count >= q.most {
		return fwk.NewStatus(fwk.Unschedulable, "node(s) had the team's share")
	}
	return nil
}

func of(p fwk.Plugin) adapter.Factory {
	return func(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) { return p, nil }
}

func adapted(t *testing.T, factories ...adapter.Factory) scheduler.Profile {
	t.Helper()
	fw, err := adapter.New(adapter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	profile := plugins.Default()
	for _, f := range factories {
		p, err := fw.Plugin(t.Context(), f, nil)
		if err != nil {
			t.Fatal(err)
		}
		profile = append(profile, scheduler.Weighted{Plugin: p, Weight: 100})
	}
	return profile
}

func node(name, cpu string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.Allocatable = corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("10")}
	return n
}

func pod(name string, labels map[string]string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name), Labels: labels}}
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("100m")}}}}
	return p
}

func engine(t *testing.T, profile scheduler.Profile) *scheduler.Engine {
	t.Helper()
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: profile})
	if err != nil {
		t.Fatal(err)
	}
	e.SetNode(node("small", "2"))
	e.SetNode(node("large", "8"))
	return e
}

func TestScore(t *testing.T) {
	e := engine(t, adapted(t, of(allocatable{})))
	for i := range 5 {
		if d := e.Schedule(scheduler.NewPod(pod(fmt.Sprint(i), nil))); d.Node != "small" {
			t.Errorf("%+v", d)
		}
	}
}

func TestCycleState(t *testing.T) {
	e := engine(t, adapted(t, of(quota{2})))
	team := map[string]string{"team": "a"}
	for i := range 4 {
		if d := e.Schedule(scheduler.NewPod(pod(fmt.Sprint(i), team))); !d.Fits() {
			t.Fatal(d.Message())
		}
	}
	d := e.Schedule(scheduler.NewPod(pod("more", team)))
	if d.Message() != "0/2 nodes are available: 2 node(s) had the team's share." || d.Resolvable.Len() != 2 || d.Plugins[0] != "TeamQuota" {
		t.Errorf("%s %+v", d.Message(), d)
	}
	for team, want := range map[string]string{
		"":       "",
		"banned": "0/2 nodes are available: team is banned.",
		"broken": `0/2 nodes are available: running plugin "TeamQuota": quota service is away.`,
	} {
		d := e.Decide(scheduler.NewPod(pod("p", map[string]string{"team": team})))
		if got := d.Message(); d.Fits() != (want == "") || want != "" && got != want {
			t.Errorf("%q: %s, want %s", team, got, want)
		}
	}
	if d := e.Decide(scheduler.NewPod(pod("p", map[string]string{"team": "pinned"}))); d.Node != "small" || d.Feasible != 1 {
		t.Errorf("%+v", d)
	}
}

// TestHandle says what plugins are told that ask for too much.
func TestHandle(t *testing.T) {
	fw, err := adapter.New(adapter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for want, factory := range map[string]adapter.Factory{
		"doesn't give: ClientSet (set Options.ClientSet)": func(_ context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
			return allocatable{}, errors.Join(fmt.Errorf("%v", h.ClientSet().CoreV1() != nil))
		},
		"doesn't give: SharedDRAManager, SharedInformerFactory (set Options.Informers)": func(_ context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
			_, _ = h.SharedDRAManager(), h.SharedInformerFactory()
			return allocatable{}, nil
		},
		"constructor panicked: oh": func(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) { panic("oh") },
		"constructor returned nil": func(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) { return nil, nil },
		"adapter: arguments not liked": func(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) {
			return nil, errors.New("arguments not liked")
		},
		"QueueSort is not supported": of(onlySort{}),
		"none of the supported":      of(bare{}),
		"adapter: want a factory":    nil,
		"only while a decision is made": func(_ context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
			_, err := h.SnapshotSharedLister().NodeInfos().List()
			return nil, err
		},
		"RunScorePlugins is not supported": func(ctx context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
			_, s := h.RunScorePlugins(ctx, nil, nil, nil)
			return nil, s.AsError()
		},
		"adapter: nodes can be listed only": func(ctx context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
			return nil, h.RunFilterPluginsWithNominatedPods(ctx, nil, nil, nil).AsError()
		},
	} {
		if p, err := fw.Plugin(t.Context(), factory, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, error %v, want %s", p, err, want)
		}
	}
}

type bare struct{}

func (bare) Name() string { return "Bare" }

type onlySort struct{ bare }

func (onlySort) Less(a, b fwk.QueuedEntityInfo) bool { return false }

// recorder notes the steps it is asked at, and speaks with itself through the cycle state.
type recorder struct {
	mu    sync.Mutex
	steps []string
	hint  fwk.QueueingHintFn
}

type note string

func (n note) Clone() fwk.StateData { return n }

func (r *recorder) step(state fwk.CycleState, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if state != nil {
		before, err := state.Read("recorder")
		if err != nil {
			before = note("")
		}
		name += "<" + string(before.(note))
		state.Write("recorder", note(strings.TrimSuffix(strings.SplitN(name, "<", 2)[0], "!")))
	}
	r.steps = append(r.steps, name)
}

func (*recorder) Name() string                                 { return "Recorder" }
func (*recorder) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

func (r *recorder) PreFilter(_ context.Context, s fwk.CycleState, _ *corev1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	r.step(s, "PreFilter")
	return nil, nil
}

func (r *recorder) Reserve(_ context.Context, s fwk.CycleState, _ *corev1.Pod, _ string) *fwk.Status {
	r.step(s, "Reserve")
	return nil
}

func (r *recorder) Unreserve(_ context.Context, s fwk.CycleState, _ *corev1.Pod, _ string) {
	r.step(s, "Unreserve")
}

func (r *recorder) PreBindPreFlight(context.Context, fwk.CycleState, *corev1.Pod, string) (*fwk.PreBindPreFlightResult, *fwk.Status) {
	return nil, nil
}

func (r *recorder) PreBind(_ context.Context, s fwk.CycleState, p *corev1.Pod, _ string) *fwk.Status {
	r.step(s, "PreBind")
	if p.Labels["fail"] != "" && len(r.steps) < 6 {
		return fwk.AsStatus(errors.New("not yet"))
	}
	return nil
}

func (r *recorder) Bind(_ context.Context, s fwk.CycleState, _ *corev1.Pod, _ string) *fwk.Status {
	r.step(s, "Bind")
	return fwk.NewStatus(fwk.Skip)
}

func (r *recorder) PostBind(_ context.Context, s fwk.CycleState, _ *corev1.Pod, _ string) {
	r.step(s, "PostBind")
}

func (r *recorder) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeLabel}, QueueingHintFn: r.hint}}, nil
}

func TestHints(t *testing.T) {
	r := &recorder{hint: func(_ klog.Logger, p *corev1.Pod, old, now any) (fwk.QueueingHint, error) {
		if now.(*corev1.Node).Labels["for"] == p.Name && old.(*corev1.Node).Labels["for"] == "" {
			return fwk.Queue, nil
		}
		return fwk.QueueSkip, nil
	}}
	e := engine(t, adapted(t, of(r)))
	p := scheduler.NewPod(pod("p", nil))
	labelled := node("small", "2")
	labelled.Labels = map[string]string{"for": "p"}
	larger := node("small", "3")
	larger.Labels = labelled.Labels
	for i, c := range []struct {
		change scheduler.ClusterChange
		want   bool
	}{
		{e.SetNode(labelled), true},
		{e.SetNode(larger), false}, // of another kind
		{e.SetNode(node("new", "1")), false},
		{scheduler.ClusterChange{FreedPod: p}, false},
		{scheduler.ClusterChange{Namespace: &corev1.Namespace{}}, true}, // the framework has no word for that
	} {
		if got := e.Hint(p, []string{"Recorder"}, c.change); got != c.want {
			t.Errorf("%d: %v", i, got)
		}
	}
}

// cluster is an API server with a scheduler.
func cluster(t *testing.T, profile scheduler.Profile) client.Client {
	t.Helper()
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := apiserver.New(st, apiserver.Options{DisableAdmission: []string{"ServiceAccount"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	cache := srv.Cache(apiserver.Admin)
	wg.Go(func() { _ = srv.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := srv.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := scheduler.New(srv.Client(apiserver.Admin), cache, scheduler.Options{Profile: profile})
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() { _ = cache.Start(ctx) })
	wg.Go(func() { _ = s.Run(ctx) })
	c := srv.Client(apiserver.Admin)
	for _, n := range []*corev1.Node{node("small", "2"), node("large", "8")} {
		status := n.Status
		must(t, c.Create(t.Context(), n))
		n.Status = status
		must(t, c.Status().Update(t.Context(), n))
		n.Spec.Taints = nil
		must(t, c.Update(t.Context(), n))
	}
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, c client.Client, name string, labels map[string]string) *corev1.Pod {
	t.Helper()
	p := pod(name, labels)
	p.UID = ""
	must(t, c.Create(t.Context(), p))
	return p
}

func bound(t *testing.T, c client.Client, p *corev1.Pod) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if must(t, c.Get(t.Context(), client.ObjectKeyFromObject(p), p)); p.Spec.NodeName != "" {
			return
		}
	}
	t.Fatalf("%s is not bound: %+v", p.Name, p.Status.Conditions)
}

func TestCoscheduling(t *testing.T) {
	c := cluster(t, adapted(t, newCoscheduling))
	labels := map[string]string{"group": "g", "members": "3"}
	first, second := create(t, c, "1", labels), create(t, c, "2", labels)
	bound(t, c, create(t, c, "single", nil)) // which was decided after them
	for _, p := range []*corev1.Pod{first, second} {
		must(t, c.Get(t.Context(), client.ObjectKeyFromObject(p), p))
		if p.Spec.NodeName != "" {
			t.Errorf("%s did not wait for its group", p.Name)
		}
	}
	for _, p := range []*corev1.Pod{create(t, c, "3", labels), first, second} {
		bound(t, c, p)
	}
}

func TestSteps(t *testing.T) {
	for _, tc := range []struct {
		labels map[string]string
		want   string
	}{
		{nil, "PreFilter< Reserve<PreFilter PreBind<Reserve Bind<PreBind PostBind<Bind"},
		{map[string]string{"fail": "once"}, "PreFilter< Reserve<PreFilter PreBind<Reserve Unreserve<PreBind " +
			"PreFilter< Reserve<PreFilter PreBind<Reserve Bind<PreBind PostBind<Bind"},
	} {
		r := &recorder{}
		c := cluster(t, adapted(t, of(r), of(quota{9})))
		bound(t, c, create(t, c, "p", tc.labels))
		got := ""
		for end := time.Now().Add(10 * time.Second); got != tc.want && time.Now().Before(end); time.Sleep(time.Millisecond) {
			r.mu.Lock()
			got = strings.Join(r.steps, " ")
			r.mu.Unlock()
		}
		if got != tc.want {
			t.Errorf("got  %s\nwant %s", got, tc.want)
		}
	}
}
