package namespace_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/namespace"
	"github.com/keelson/keelson/controller/resources"
)

func start(e *controllertest.Env, l resources.Lister) {
	ctl, err := namespace.New(e.Client, e.Cache, namespace.Options{Resources: l})
	e.Check(err)
	e.Start(ctl.Run)
	e.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "doomed"}}, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other"}})
	e.Settle()
}

func in(ns, name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: ns, Name: name} }

func doom(e *controllertest.Env) {
	e.Check(e.Client.Delete(e.Ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "doomed"}}))
	e.Settle()
}

func conditions(e *controllertest.Env) string {
	ns, ok := controllertest.Get[*corev1.Namespace](e.Cluster, "", "doomed")
	if !ok {
		return "gone"
	}
	var out []string
	for _, c := range ns.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			out = append(out, string(c.Type)+" "+c.Reason+" "+c.Message)
		}
	}
	return strings.Join(out, "\n")
}

func TestEmptied(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e, nil)
		e.Create(&corev1.ConfigMap{ObjectMeta: in("doomed", "a")}, &corev1.Secret{ObjectMeta: in("doomed", "b")}, &corev1.Pod{ObjectMeta: in("doomed", "p")},
			&corev1.ConfigMap{ObjectMeta: in("other", "a")})
		doom(e)
		if c := conditions(e); c != "gone" {
			t.Error(c)
		}
		if n := len(controllertest.All[*corev1.ConfigMap](e.Cluster)); n != 1 {
			t.Errorf("%d ConfigMaps, expected that of the other namespace", n)
		}
	})
}

func TestWaits(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Cluster.GracefulPods = true
		start(e, nil)
		e.Create(&corev1.Pod{ObjectMeta: in("doomed", "p"), Spec: corev1.PodSpec{NodeName: "n"}}, &corev1.ConfigMap{ObjectMeta: in("doomed", "a")})
		doom(e)
		if c := conditions(e); c != "NamespaceContentRemaining SomeResourcesRemain Some resources are remaining: pods. has 1 resource instances" {
			t.Error(c)
		}
		if _, ok := controllertest.Get[*corev1.ConfigMap](e.Cluster, "doomed", "a"); !ok {
			t.Error("the ConfigMap went before the pod")
		}
		controllertest.Edit(e.Cluster, "doomed", "a", func(c *corev1.ConfigMap) { c.Finalizers = []string{"test/hold"} })
		e.Cluster.Remove(&corev1.Pod{ObjectMeta: in("doomed", "p")})
		e.Settle()
		if c := conditions(e); !strings.Contains(c, "NamespaceFinalizersRemaining SomeFinalizersRemain Some content in the namespace has finalizers remaining: test/hold in 1 resource instances") ||
			!strings.Contains(c, "configmaps. has 1 resource instances") {
			t.Error(c)
		}
		cm, _ := controllertest.Get[*corev1.ConfigMap](e.Cluster, "doomed", "a")
		cm.Finalizers = nil
		e.Check(e.Client.Update(e.Ctx, cm))
		e.Advance(10 * time.Second)
		if c := conditions(e); c != "gone" {
			t.Error(c)
		}
	})
}

func TestFailures(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		known := resources.Known(e.Client)
		var failing atomic.Bool
		groups := &discovery.ErrGroupDiscoveryFailed{Groups: map[schema.GroupVersion]error{{Group: "metrics.k8s.io", Version: "v1"}: errors.New("no answer")}}
		start(e, resources.Func(func(ctx context.Context) ([]resources.Resource, error) {
			l, _ := known.Resources(ctx)
			if failing.Load() {
				return l, groups
			}
			return l, nil
		}))
		failing.Store(true)
		e.Create(&corev1.ConfigMap{ObjectMeta: in("doomed", "a")})
		e.Cluster.React(func(c controllertest.Call) error {
			if c.Verb == "deletecollection" && c.Kind.Kind == "ConfigMap" {
				return errors.New("not today")
			}
			return nil
		})
		doom(e)
		c := conditions(e)
		if !strings.Contains(c, "NamespaceDeletionDiscoveryFailure DiscoveryFailed") || !strings.Contains(c, "metrics.k8s.io/v1: no answer") ||
			!strings.Contains(c, "NamespaceDeletionContentFailure ContentDeletionFailed Failed to delete all resource types, 1 remaining: not today") {
			t.Error(c)
		}
		e.Cluster.React(nil)
		failing.Store(false)
		e.Advance(20 * time.Minute)
		if c := conditions(e); c != "gone" {
			t.Error(c)
		}
	})
}
