package serviceaccount_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/serviceaccount"
)

func TestDefaultAccount(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		ctl, err := serviceaccount.New(e.Client, e.Cache, serviceaccount.Options{})
		e.Check(err)
		e.Start(ctl.Run)
		e.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
		e.Settle()
		sa, ok := controllertest.Get[*corev1.ServiceAccount](e.Cluster, "a", "default")
		if !ok {
			t.Fatal("no account")
		}
		e.Check(e.Client.Delete(e.Ctx, sa))
		e.Settle()
		if _, ok := controllertest.Get[*corev1.ServiceAccount](e.Cluster, "a", "default"); !ok {
			t.Error("a deleted account did not come back")
		}
		e.Check(e.Client.Delete(e.Ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}}))
		e.Settle()
		e.Check(e.Client.Delete(e.Ctx, sa))
		e.Settle()
		if _, ok := controllertest.Get[*corev1.ServiceAccount](e.Cluster, "a", "default"); ok {
			t.Error("made an account in a namespace that is going away")
		}
	})
}
