package rootca_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/rootca"
)

const ca = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

func TestPublishes(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		ctl, err := rootca.New(e.Client, e.Cache, rootca.Options{CA: []byte(ca)})
		e.Check(err)
		e.Start(ctl.Run)
		e.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
		e.Settle()
		published := func() string {
			cm, _ := controllertest.Get[*corev1.ConfigMap](e.Cluster, "a", rootca.Name)
			if cm == nil || !strings.HasPrefix(cm.Annotations["kubernetes.io/description"], "Contains a CA bundle") {
				return ""
			}
			return cm.Data["ca.crt"]
		}
		if published() != ca {
			t.Fatalf("published %q", published())
		}
		controllertest.Edit(e.Cluster, "a", rootca.Name, func(c *corev1.ConfigMap) { c.Data["ca.crt"] = "forged" })
		e.Settle()
		if published() != ca {
			t.Errorf("a change was left: %q", published())
		}
		e.Check(e.Client.Delete(e.Ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: rootca.Name}}))
		e.Settle()
		if published() != ca {
			t.Error("a deleted ConfigMap did not come back")
		}
	})
}

func TestNewRefuses(t *testing.T) {
	if _, err := rootca.New(controllertest.NewCluster().Client(), nil, rootca.Options{CA: []byte("x")}); err == nil || !strings.HasPrefix(err.Error(), "rootca: Options.CA") {
		t.Error(err)
	}
}
