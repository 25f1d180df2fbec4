package decisions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/informers"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	featuregatetesting "k8s.io/component-base/featuregate/testing"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/features"
	kubescheduler "k8s.io/kubernetes/pkg/scheduler"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	clientfake "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/config"
)

// groupVerdict is what became of a group.
type groupVerdict struct {
	// Bound are nodes by pod, Nominated those of pods that aren't bound.
	Bound, Nominated map[string]string
	// Failed are the messages by pod, each once.
	Failed map[string][]string
	// Victims are the messages of pods that were removed.
	Victims map[string]string
	// Condition of the group.
	Condition string
}

func newGroupVerdict() *groupVerdict {
	return &groupVerdict{Bound: map[string]string{}, Nominated: map[string]string{}, Failed: map[string][]string{}, Victims: map[string]string{}}
}

func (v *groupVerdict) failed(pod, reason, message, nominated string) {
	if m := reason + ": " + message; !slices.Contains(v.Failed[pod], m) {
		v.Failed[pod] = append(v.Failed[pod], m)
		slices.Sort(v.Failed[pod])
	}
	v.Nominated[pod] = nominated
}

func (v *groupVerdict) condition(o *schedulingv1beta1.PodGroup) {
	for _, c := range o.Status.Conditions {
		v.Condition = fmt.Sprintf("%s=%s %s, generation %d: %s", c.Type, c.Status, c.Reason, c.ObservedGeneration, c.Message)
	}
}

// groupProfile leaves the choice of a node to the pods.
const groupProfile = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n" +
	"profiles: [{plugins: {score: {disabled: [{name: '*'}], enabled: [{name: NodeAffinity, weight: 100}]}}}]\n"

// theirs is what kube-scheduler does with the group, until it is bound or has to wait.
func (c *groupCase) theirs(t *testing.T, x *extenderServer) *groupVerdict {
	t.Helper()
	obj, err := runtime.Decode(scheme.Codecs.UniversalDecoder(), []byte(groupProfile))
	if err != nil {
		t.Fatal(err)
	}
	u := newUpstream(t, obj.(*schedulerconfig.KubeSchedulerConfiguration).Profiles, kubescheduler.WithExtenders(x.theirs(c)...))
	v := newGroupVerdict()
	var mu sync.Mutex
	tried, failed := 0, 0
	var conditions []metav1.Condition
	next, fail := u.sched.NextEntity, u.sched.FailureHandler
	u.sched.NextEntity = func(l klog.Logger) (framework.QueuedEntityInfo, error) {
		e, err := next(l)
		if err == nil {
			e.ForEachPodInfo(func(*framework.QueuedPodInfo) bool { tried++; return true })
		}
		return e, err
	}
	u.sched.FailureHandler = func(ctx context.Context, f framework.Framework, p *framework.QueuedPodInfo, s *fwk.Status, n *fwk.NominatingInfo, start time.Time) {
		reason, nominated := corev1.PodReasonSchedulerError, p.Pod.Status.NominatedNodeName
		if s.IsRejected() {
			reason = corev1.PodReasonUnschedulable
		}
		if n.Mode() == fwk.ModeOverride {
			nominated = n.NominatedNodeName
		}
		mu.Lock()
		failed++
		v.failed(p.Pod.Name, reason, alone.ReplaceAllString(s.Message(), "plugin(s) [NodeAffinity]"), nominated)
		mu.Unlock()
		fail(ctx, f, p, s, n, start)
	}
	u.client.PrependReactor("*", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		switch a := a.(type) {
		case clienttesting.CreateAction:
			if b, ok := a.GetObject().(*corev1.Binding); ok {
				v.Bound[b.Name] = b.Target.Name
				return true, b, nil
			}
		case clienttesting.DeleteAction:
			v.Victims[a.GetName()] += ""
			return true, nil, nil
		case clienttesting.PatchAction:
			if a.GetResource().Resource == "podgroups" {
				var o schedulingv1beta1.PodGroup
				if err := json.Unmarshal(a.GetPatch(), &o); err != nil {
					return true, nil, err
				}
				v.condition(&o)
				conditions = o.Status.Conditions
				return true, &o, nil
			}
			var p corev1.Pod
			if err := json.Unmarshal(a.GetPatch(), &p); err != nil {
				return true, nil, err
			}
			for _, cond := range p.Status.Conditions {
				if cond.Type == corev1.DisruptionTarget {
					v.Victims[a.GetName()] = cond.Message
				}
			}
			return true, &p, nil
		}
		return false, nil, nil
	})
	var group *schedulingv1beta1.PodGroup
	for _, o := range c.objects {
		if err := u.set(o.DeepCopyObject().(client.Object)); err != nil {
			t.Fatal(err)
		}
		if g, ok := o.(*schedulingv1beta1.PodGroup); ok && g.Name == "g" {
			group = g.DeepCopy()
		}
	}
	bound := func() int {
		maps.Copy(v.Bound, x.boundBy("theirs"))
		return len(v.Bound)
	}
	for len(u.sched.SchedulingQueue.PodsInActiveQ()) > 0 {
		before := len(v.Bound)
		u.sched.ScheduleOne(klog.NewContext(context.Background(), klog.Logger{}))
		until(t, "bound by kube-scheduler", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return bound()+failed == tried
		})
		if len(v.Bound) == before {
			break
		}
		// The group has its condition, so that it stays.
		group = group.DeepCopy()
		group.ResourceVersion += "0"
		group.Status.Conditions = conditions
		if err := u.set(group); err != nil {
			t.Fatal(err)
		}
	}
	return v.same(x)
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("never %s", what)
		}
	}
}

// same leaves out what differs for no reason.
func (v *groupVerdict) same(x *extenderServer) *groupVerdict {
	out := &groupVerdict{Bound: maps.Clone(v.Bound), Nominated: maps.Clone(v.Nominated), Failed: map[string][]string{}, Victims: maps.Clone(v.Victims), Condition: x.sameFor(v.Condition)}
	for pod := range out.Bound {
		delete(out.Nominated, pod)
	}
	for pod, messages := range v.Failed {
		for _, m := range messages {
			out.Failed[pod] = append(out.Failed[pod], x.sameFor(m))
		}
	}
	return out
}

// ours is what Keelson does, until it is as wanted, or for a while.
func (c *groupCase) ours(t *testing.T, x *extenderServer, want *groupVerdict) *groupVerdict {
	t.Helper()
	cfg, err := config.Read([]byte(groupProfile), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cc := &informertest.FakeInformers{Scheme: clientscheme.Scheme, InformersByGVK: map[schema.GroupVersionKind]toolscache.SharedIndexInformer{}}
	is := newInformers(informers.NewSharedInformerFactory(nil, 0))
	for typ, i := range is {
		gvks, _, err := clientscheme.Scheme.ObjectKinds(reflect.New(typ.Elem()).Interface().(runtime.Object))
		if err != nil {
			t.Fatal(err)
		}
		cc.InformersByGVK[gvks[0]] = syncedInformer{i}
	}
	var mu sync.Mutex
	v := newGroupVerdict()
	var group *schedulingv1beta1.PodGroup
	first := map[string]string{}
	for _, o := range c.objects {
		o = o.DeepCopyObject().(client.Object)
		if p, ok := o.(*corev1.Pod); ok {
			first[p.Name] = p.Status.NominatedNodeName
			o = merged(p)
		}
		if err := is[reflect.TypeOf(o)].set(o); err != nil {
			t.Fatal(err)
		}
		if g, ok := o.(*schedulingv1beta1.PodGroup); ok && g.Name == "g" {
			group = g.DeepCopy()
		}
	}
	cl := interceptor.NewClient(clientfake.NewFakeClient(), interceptor.Funcs{
		Get: func(_ context.Context, _ client.WithWatch, _ client.ObjectKey, o client.Object, _ ...client.GetOption) error {
			mu.Lock()
			defer mu.Unlock()
			group.DeepCopyInto(o.(*schedulingv1beta1.PodGroup))
			return nil
		},
		Delete: func(_ context.Context, _ client.WithWatch, o client.Object, _ ...client.DeleteOption) error {
			mu.Lock()
			defer mu.Unlock()
			v.Victims[o.GetName()] += ""
			return nil
		},
		SubResourceCreate: func(_ context.Context, _ client.Client, _ string, o, sub client.Object, _ ...client.SubResourceCreateOption) error {
			mu.Lock()
			defer mu.Unlock()
			v.Bound[o.GetName()] = sub.(*corev1.Binding).Target.Name
			return nil
		},
		SubResourceUpdate: func(_ context.Context, _ client.Client, _ string, o client.Object, _ ...client.SubResourceUpdateOption) error {
			mu.Lock()
			defer mu.Unlock()
			if o.GetResourceVersion() != group.ResourceVersion {
				return apierrors.NewConflict(schedulingv1beta1.Resource("podgroups"), o.GetName(), errors.New("it has been modified"))
			}
			group = o.(*schedulingv1beta1.PodGroup).DeepCopy()
			group.ResourceVersion += "0"
			v.condition(group)
			return nil
		},
		SubResourcePatch: func(_ context.Context, _ client.Client, _ string, o client.Object, _ client.Patch, _ ...client.SubResourcePatchOption) error {
			mu.Lock()
			defer mu.Unlock()
			p := o.(*corev1.Pod)
			for _, cond := range p.Status.Conditions {
				switch cond.Type {
				case corev1.PodScheduled:
					nominated := p.Status.NominatedNodeName
					if before, ok := v.Nominated[p.Name]; ok && nominated == first[p.Name] {
						nominated = before // it is left as it is, and two reports may come in any order
					}
					v.failed(p.Name, cond.Reason, cond.Message, nominated)
				case corev1.DisruptionTarget:
					v.Victims[p.Name] = cond.Message
				}
			}
			return nil
		},
	})
	s, err := scheduler.New(cl, cc, scheduler.Options{Profiles: cfg.Scheduler.Profiles, Extenders: x.ours(t, c), Seed: c.seed + 1, Recorder: &record.FakeRecorder{}, InitialBackoff: time.Hour, MaxBackoff: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var got *groupVerdict
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(300 * time.Microsecond) {
		mu.Lock()
		maps.Copy(v.Bound, x.boundBy("ours"))
		got = v.same(x)
		mu.Unlock()
		if gocmp.Equal(want, got, cmpopts.EquateEmpty()) {
			break
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	maps.Copy(v.Bound, x.boundBy("ours"))
	return v.same(x)
}

// syncedInformer says that its handlers know all.
type syncedInformer struct{ *informer }

func (i syncedInformer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	reg, err := i.informer.AddEventHandler(h)
	return syncedHandler{reg}, err
}

func (i syncedInformer) RemoveEventHandler(reg toolscache.ResourceEventHandlerRegistration) error {
	return i.informer.RemoveEventHandler(reg.(syncedHandler).ResourceEventHandlerRegistration)
}

type syncedHandler struct {
	toolscache.ResourceEventHandlerRegistration
}

func (syncedHandler) HasSynced() bool { return true }

func (c *groupCase) compare(t *testing.T, x *extenderServer) (*groupVerdict, string) {
	x.begin(c)
	want := c.theirs(t, x)
	return want, gocmp.Diff(want, c.ours(t, x, want), cmpopts.EquateEmpty())
}

// TestGroups compares what becomes of random pod groups, in random clusters with random extenders: nodes, messages, nominations, victims and the group's
// condition. KEELSON_GROUPS is how many to compare, KEELSON_SEED the first seed.
func TestGroups(t *testing.T) {
	featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.GenericWorkload, true)
	featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.SchedulerAsyncPreemption, false)
	x := newExtenderServer(t)
	var bound, partly, unfit, failed, rooms int
	first := uint64(limit(t, "KEELSON_SEED", 0))
	for seed := first; seed < first+uint64(limit(t, "KEELSON_GROUPS", 300)); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := (&generator{Rand: rand.New(rand.NewPCG(seed, 5))}).groupCase(seed)
			want, diff := c.compare(t, x)
			switch {
			case len(want.Victims) > 0:
				rooms++
			case len(want.Bound) > 0 && len(want.Nominated) > 0:
				partly++
			case len(want.Bound) > 0:
				bound++
			case len(want.Condition) > 0:
				unfit++
			default:
				failed++
			}
			if diff == "" {
				return
			}
			for changed := os.Getenv("KEELSON_MINIMAL") != "0"; changed; { // leave out what it doesn't need
				changed = false
				for i := range c.objects {
					less := *c
					if less.objects = slices.Delete(slices.Clone(c.objects), i, i+1); keyOf(c.objects[i]) == "*v1beta1.PodGroup d/g" {
						continue
					}
					if _, d := less.compare(t, x); d != "" && !t.Failed() {
						c.objects, diff, changed = less.objects, d, true
						break
					}
				}
			}
			objects := map[string]client.Object{}
			for _, o := range c.objects {
				objects[keyOf(o)] = o
			}
			t.Fatalf("seed %d: kube-scheduler says (-), Keelson (+):\n%s\nextenders %+v\n%s", seed, diff, c.extenders, dump(t, objects))
		})
		if t.Failed() {
			break
		}
	}
	t.Logf("%d bound, %d in part, %d unfit, %d made room, %d not tried", bound, partly, unfit, rooms, failed)
}
