package garbagecollector_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/garbagecollector"
	"github.com/keelson/keelson/controller/resources"
)

var kinds = resources.Static(
	resources.Resource{Kind: corev1.SchemeGroupVersion.WithKind("ConfigMap"), Resource: "configmaps", Namespaced: true},
	resources.Resource{Kind: corev1.SchemeGroupVersion.WithKind("Secret"), Resource: "secrets", Namespaced: true},
	resources.Resource{Kind: corev1.SchemeGroupVersion.WithKind("Node"), Resource: "nodes"},
)

func start(e *controllertest.Env, o garbagecollector.Options) {
	if o.Resources == nil {
		o.Resources = kinds
	}
	ctl, err := garbagecollector.New(e.Client, e.Cache, o)
	e.Check(err)
	e.Start(ctl.Run)
	e.Settle()
	if !ctl.Synced() {
		e.Fatal("not synced")
	}
}

func uid(name string) types.UID { return types.UID("uid-" + name) }

// object is a ConfigMap owned by ConfigMaps; a trailing "!" means blocking.
func object(name string, owners ...string) *corev1.ConfigMap {
	o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: uid(name)}}
	for _, owner := range owners {
		owner, block := strings.CutSuffix(owner, "!")
		o.OwnerReferences = append(o.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: owner, UID: uid(owner), BlockOwnerDeletion: &block})
	}
	return o
}

func left(e *controllertest.Env) string {
	var out []string
	for _, o := range controllertest.All[*corev1.ConfigMap](e.Cluster) {
		s := o.Name
		for _, r := range o.OwnerReferences {
			s += "<" + r.Name
		}
		if o.DeletionTimestamp != nil {
			s += "(deleting)"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func TestPolicies(t *testing.T) {
	for _, c := range []struct {
		name    string
		objects []client.Object
		delete  string
		policy  metav1.DeletionPropagation
		want    string
	}{
		{"background", []client.Object{object("a"), object("b", "a"), object("c", "b"), object("x")}, "a", metav1.DeletePropagationBackground, "x"},
		{"foreground", []client.Object{object("a"), object("b", "a!"), object("c", "b!"), object("x")}, "a", metav1.DeletePropagationForeground, "x"},
		{"foreground not blocked", []client.Object{object("a"), object("b", "a")}, "a", metav1.DeletePropagationForeground, ""},
		{"orphan", []client.Object{object("a"), object("b", "a"), object("c", "b")}, "a", metav1.DeletePropagationOrphan, "b c<b"},
		{"another owner", []client.Object{object("a"), object("o"), object("b", "a", "o")}, "a", metav1.DeletePropagationBackground, "b<o o"},
		{"another owner, foreground", []client.Object{object("a"), object("o"), object("b", "a!", "o")}, "a", metav1.DeletePropagationForeground, "b<o o"},
		{"circle", []client.Object{object("a", "c!"), object("b", "a!"), object("c", "b!")}, "a", metav1.DeletePropagationForeground, ""},
		{"absent owner", []client.Object{object("a"), object("b", "never"), object("x")}, "a", metav1.DeletePropagationBackground, "x"},
	} {
		for _, metadata := range []bool{false, true} {
			controllertest.Run(t, func(e *controllertest.Env) {
				start(e, garbagecollector.Options{MetadataOnly: metadata})
				e.Check(e.Client.Delete(e.Ctx, object(c.delete), client.PropagationPolicy(c.policy)))
				e.Settle()
				if got := left(e); got != c.want {
					t.Errorf("%s: left %q, expected %q", c.name, got, c.want)
				}
			}, c.objects...)
		}
	}
}

// TestForegroundWaits holds a dependent back by a finalizer.
func TestForegroundWaits(t *testing.T) {
	held := object("b", "a!")
	held.Finalizers = []string{"test/hold"}
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e, garbagecollector.Options{})
		e.Check(e.Client.Delete(e.Ctx, object("a"), client.PropagationPolicy(metav1.DeletePropagationForeground)))
		e.Advance(time.Minute)
		if got := left(e); got != "a(deleting) b<a(deleting)" {
			t.Errorf("left %q", got)
		}
		b, _ := controllertest.Get[*corev1.ConfigMap](e.Cluster, "ns", "b")
		b.Finalizers = slices.DeleteFunc(b.Finalizers, func(s string) bool { return s == "test/hold" })
		e.Check(e.Client.Update(e.Ctx, b))
		e.Settle()
		if got := left(e); got != "" {
			t.Errorf("left %q", got)
		}
	}, object("a"), held)
}

// TestOwnerReplaced: an owner of that name exists, but with another uid.
func TestOwnerReplaced(t *testing.T) {
	again := object("a")
	again.UID = "another"
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e, garbagecollector.Options{})
		if got := left(e); got != "a" {
			t.Errorf("left %q", got)
		}
	}, again, object("b", "a"))
}

func TestScopes(t *testing.T) {
	elsewhere := object("wrong")
	elsewhere.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "other", UID: uid("other")}}
	other := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "other", UID: uid("other")}}
	cluster := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "n", OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "gone", UID: "gone"}}}}
	ofNode := object("ofnode")
	ofNode.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n", UID: "n"}}
	ofUnknown := object("ofunknown")
	ofUnknown.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Widget", Name: "w", UID: "w"}}
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e, garbagecollector.Options{})
		e.Advance(time.Minute)
		// An owner in another namespace is none; a cluster-scoped object's
		// namespaced owner, and one of a kind not served, can't be told.
		if got := left(e); got != "ofnode<n ofunknown<w other" {
			t.Errorf("left %q", got)
		}
		if len(controllertest.All[*corev1.Node](e.Cluster)) != 1 {
			t.Error("the node has been collected")
		}
		if ev := strings.Join(e.Events(), "\n"); !strings.Contains(ev, `OwnerRefInvalidNamespace: ownerRef [v1/ConfigMap, namespace: ns, name: other, uid: uid-other] does not exist in namespace "ns"`) {
			t.Errorf("events:\n%s", ev)
		}
		e.Check(e.Client.Delete(e.Ctx, cluster))
		e.Settle()
		if got := left(e); got != "ofunknown<w other" {
			t.Errorf("left %q", got)
		}
	}, elsewhere, other, cluster, ofNode, ofUnknown)
}

// TestNothingWithoutALiveRead: while owners can't be read, nothing is deleted.
func TestNothingWithoutALiveRead(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Cluster.React(func(c controllertest.Call) error {
			if c.Verb == "get" {
				return errors.New("unreachable")
			}
			return nil
		})
		start(e, garbagecollector.Options{})
		e.Advance(time.Minute)
		if got := left(e); got != "b<never" {
			t.Errorf("left %q", got)
		}
		e.Cluster.React(nil)
		e.Advance(20 * time.Minute)
		if got := left(e); got != "" {
			t.Errorf("left %q", got)
		}
	}, object("b", "never"))
}

func TestManyDependents(t *testing.T) {
	var objs []client.Object
	objs = append(objs, object("a"))
	for i := range 2000 {
		objs = append(objs, object(fmt.Sprint("d", i), "a"))
	}
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Cluster.Calls()
		start(e, garbagecollector.Options{})
		if n := len(e.Cluster.Calls()); n > 20 {
			t.Errorf("%d requests to start", n)
		}
		e.Check(e.Client.Delete(e.Ctx, object("a")))
		e.Settle()
		if got := left(e); got != "" {
			t.Errorf("left %q", got)
		}
	}, objs...)
}

// TestConverges compares with the rule: what is left has a live owner or never
// had one.
func TestConverges(t *testing.T) {
	for seed := range uint64(10) {
		controllertest.Run(t, func(e *controllertest.Env) {
			r := controllertest.NewRand(seed)
			start(e, garbagecollector.Options{})
			e.Cluster.React(func(c controllertest.Call) error {
				if c.Verb != "watch" && c.Verb != "list" && r.IntN(8) == 0 {
					return errors.New("injected")
				}
				return nil
			})
			owned := map[string]bool{}
			for i := range 120 {
				all := controllertest.All[*corev1.ConfigMap](e.Cluster)
				if r.IntN(3) > 0 || len(all) == 0 {
					var refs []metav1.OwnerReference
					for range r.IntN(3) {
						if len(all) > 0 {
							o, block := all[r.IntN(len(all))], r.IntN(2) == 0
							refs = append(refs, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: o.Name, UID: o.UID, BlockOwnerDeletion: &block})
						}
					}
					name := fmt.Sprint("o", i)
					owned[name] = len(refs) > 0
					_ = e.Client.Create(e.Ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, OwnerReferences: refs}})
				} else {
					p := []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground}[r.IntN(2)]
					_ = e.Client.Delete(e.Ctx, all[r.IntN(len(all))], client.PropagationPolicy(p))
				}
				e.Advance(time.Duration(r.IntN(20)) * time.Millisecond)
			}
			e.Cluster.React(nil)
			e.Advance(time.Hour)
			all := controllertest.All[*corev1.ConfigMap](e.Cluster)
			alive := map[types.UID]bool{}
			for _, o := range all {
				alive[o.UID] = true
			}
			for _, o := range all {
				ok := !owned[o.Name]
				for _, ref := range o.OwnerReferences {
					ok = ok || alive[ref.UID]
				}
				if !ok || o.DeletionTimestamp != nil {
					t.Errorf("seed %d: %s is left with owners %v, deletion %v", seed, o.Name, o.OwnerReferences, o.DeletionTimestamp)
				}
			}
		})
	}
}
