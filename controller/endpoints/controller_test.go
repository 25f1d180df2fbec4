package endpoints_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/endpoints"
)

type object = corev1.Endpoints //nolint:staticcheck // what is tested

func service(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"team": "a"}},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"}, ClusterIP: "10.96.0.10", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("http")}},
		},
	}
}

func pod(name, ip string, port int32, ready bool) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: port, Protocol: corev1.ProtocolTCP}}}}},
		Status:     *controllertest.ReadyStatus(ip),
	}
	if !ready {
		p.Status.Conditions[3].Status = corev1.ConditionFalse
	}
	return p
}

func start(e *controllertest.Env) {
	ctl, err := endpoints.New(e.Client, e.Cache, endpoints.Options{})
	e.Check(err)
	e.Start(ctl.Run)
	e.Settle()
}

func describe(e *controllertest.Env, name string) string {
	ep, ok := controllertest.Get[*object](e.Cluster, "default", name)
	if !ok {
		return "none"
	}
	var out []string
	for _, s := range ep.Subsets {
		part := ""
		for _, a := range s.Addresses {
			part += a.IP + "=" + a.TargetRef.Name + " "
		}
		for _, a := range s.NotReadyAddresses {
			part += "!" + a.IP + "=" + a.TargetRef.Name + " "
		}
		for _, p := range s.Ports {
			part += fmt.Sprintf("%s:%d", p.Name, p.Port)
		}
		out = append(out, part)
	}
	return strings.Join(out, "; ")
}

func TestSubsets(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e)
		e.Create(service("web"))
		e.Cluster.Put(pod("a", "10.0.0.2", 8080, true))
		e.Cluster.Put(pod("b", "10.0.0.1", 8080, true))
		e.Cluster.Put(pod("c", "10.0.0.3", 9090, true))
		e.Cluster.Put(pod("d", "10.0.0.4", 8080, false))
		e.Settle()
		if got := describe(e, "web"); got != "10.0.0.1=b 10.0.0.2=a !10.0.0.4=d http:8080; 10.0.0.3=c http:9090" {
			t.Error(got)
		}
		ep, _ := controllertest.Get[*object](e.Cluster, "default", "web")
		if ep.Labels["team"] != "a" || ep.Labels["endpoints.kubernetes.io/managed-by"] != "endpoint-controller" {
			t.Errorf("meta %+v", ep.ObjectMeta)
		}
		e.Cluster.Calls()
		e.Advance(time.Hour)
		if c := e.Cluster.Calls(); len(c) > 0 {
			t.Errorf("an idle controller made %d requests, such as %+v", len(c), c[0])
		}
		e.Check(e.Client.Delete(e.Ctx, service("web")))
		e.Settle()
		if got := describe(e, "web"); got != "none" {
			t.Error(got)
		}
	})
}

func TestOverCapacity(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		for i := range 900 {
			e.Cluster.Put(pod(fmt.Sprint("r", i), fmt.Sprintf("10.1.%d.%d", i/250, i%250), 80, true))
		}
		for i := range 300 {
			e.Cluster.Put(pod(fmt.Sprint("n", i), fmt.Sprintf("10.2.%d.%d", i/250, i%250), 80, false))
		}
		start(e)
		e.Create(service("web"))
		e.Settle()
		ep, _ := controllertest.Get[*object](e.Cluster, "default", "web")
		if n, m := len(ep.Subsets[0].Addresses), len(ep.Subsets[0].NotReadyAddresses); n != 900 || m != 100 || ep.Annotations[corev1.EndpointsOverCapacity] != "truncated" {
			t.Errorf("%d ready and %d others, annotations %v", n, m, ep.Annotations)
		}
	})
}
