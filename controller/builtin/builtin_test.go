package builtin_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/builtin"
	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/leader"
)

const ca = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

// TestTogether takes a deployment with its service through a namespace's life.
func TestTogether(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		e.Cluster.GracefulPods = true
		e.Cluster.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()},
		}}})
		// A scheduler and a kubelet in one.
		e.Pods(func(p *corev1.Pod) *corev1.PodStatus {
			if p.Spec.NodeName == "" {
				e.Cluster.Bind(p, "n")
			}
			return controllertest.Ready(p)
		})
		set, err := builtin.New(e.Client, e.Cache, builtin.Options{
			RootCA: []byte(ca), ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
			// Nobody renews the node's lease here.
			Controllers: []string{"*"},
		})
		e.Check(err)
		e.Start(set.Run)
		e.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
		web := map[string]string{"app": "web"}
		three := int32(3)
		one := intstr.FromInt32(1)
		e.Create(&appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
			Spec: appsv1.DeploymentSpec{
				Replicas: &three, Selector: controllertest.Labels(web), Template: controllertest.Template("web:1", web),
				Strategy: appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &one, MaxUnavailable: &one}},
			},
		}, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
			Spec: corev1.ServiceSpec{
				Selector: web, ClusterIP: "10.96.0.1", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
				Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(80)}},
			},
		})
		e.Settle()
		if d, _ := controllertest.Get[*appsv1.Deployment](e.Cluster, "shop", "web"); d.Status.AvailableReplicas != 3 {
			t.Errorf("deployment %+v", d.Status)
		}
		if s := controllertest.All[*discoveryv1.EndpointSlice](e.Cluster); len(s) != 1 || len(s[0].Endpoints) != 3 {
			t.Errorf("slices %+v", s)
		}
		if n, _ := controllertest.Get[*corev1.Node](e.Cluster, "", "n"); n.Spec.PodCIDR != "10.244.0.0/24" {
			t.Errorf("pod CIDR %q", n.Spec.PodCIDR)
		}
		// Deleting the deployment takes its sets and pods with it.
		e.Check(e.Client.Delete(e.Ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}, client.PropagationPolicy(metav1.DeletePropagationForeground)))
		e.Settle()
		if n := len(controllertest.All[*corev1.Pod](e.Cluster)); n != 0 {
			t.Errorf("%d pods left", n)
		}
		if n := len(controllertest.All[*appsv1.Deployment](e.Cluster)); n != 0 {
			t.Error("the deployment is left")
		}
		e.Check(e.Client.Delete(e.Ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}))
		e.Advance(10 * time.Second)
		if _, ok := controllertest.Get[*corev1.Namespace](e.Cluster, "", "shop"); ok {
			t.Error("the namespace is left")
		}
	})
}

func TestSwitches(t *testing.T) {
	c := controllertest.NewCluster().Client()
	cc, err := controllertest.NewCache(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		on   []string
		want string // a name that must be on, or "-" and one that must be off
		err  string
	}{
		{nil, "deployment-controller", ""},
		{nil, "-root-ca-certificate-publisher-controller", ""},
		{[]string{"*", "-deployment-controller"}, "-deployment-controller", ""},
		{[]string{"*", "-deployment-controller"}, "replicaset-controller", ""},
		{[]string{"deployment-controller"}, "-replicaset-controller", ""},
		{[]string{"root-ca-certificate-publisher-controller"}, "", "needs Options.RootCA"},
		{[]string{"nonsense"}, "", `has "nonsense"`},
	} {
		set, err := builtin.New(c, cc, builtin.Options{Controllers: x.on})
		if x.err != "" {
			if err == nil || !strings.Contains(err.Error(), x.err) {
				t.Errorf("%v: %v", x.on, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", x.on, err)
			continue
		}
		name, off := strings.CutPrefix(x.want, "-")
		if got := strings.Contains(fmt.Sprint(set.Names()), name); got == off {
			t.Errorf("%v: got %v", x.on, set.Names())
		}
	}
}

// TestRestart runs the set under leader election twice in a row.
func TestRestart(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		set, err := builtin.New(e.Client, e.Cache, builtin.Options{Common: controller.Common{LeaderElection: &leader.Options{Identity: "a"}}})
		e.Check(err)
		for range 2 {
			ctx, cancel := context.WithCancel(e.Ctx)
			done := make(chan error)
			go func() { done <- set.Run(ctx) }()
			e.Advance(10 * time.Second)
			e.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "ns-"}})
			e.Settle()
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if n := len(controllertest.All[*corev1.ServiceAccount](e.Cluster)); n != 2 {
			t.Errorf("%d accounts, expected one in each namespace", n)
		}
	})
}
