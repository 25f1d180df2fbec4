package endpointslice_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/endpointslice"
)

func service() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Labels: map[string]string{"team": "a"}},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"}, ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10"}, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("http")}},
		},
	}
}

func pod(name, ip string, ready bool) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{
			Name: "main", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
		}}},
		Status: *controllertest.ReadyStatus(ip),
	}
	if !ready {
		p.Status.Conditions[3].Status = corev1.ConditionFalse
	}
	return p
}

func start(e *controllertest.Env, o endpointslice.Options) {
	e.Cluster.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	ctl, err := endpointslice.New(e.Client, e.Cache, o)
	e.Check(err)
	e.Start(ctl.Run)
	e.Settle()
}

func endpoints(e *controllertest.Env) string {
	var out []string
	for _, s := range controllertest.All[*discoveryv1.EndpointSlice](e.Cluster) {
		for _, ep := range s.Endpoints {
			out = append(out, fmt.Sprintf("%s:%d ready=%v", ep.Addresses[0], *s.Ports[0].Port, *ep.Conditions.Ready))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func TestFollowsPods(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e, endpointslice.Options{})
		e.Create(service())
		e.Cluster.Put(pod("a", "10.0.0.1", true))
		e.Cluster.Put(pod("b", "10.0.0.2", false))
		e.Settle()
		if got := endpoints(e); got != "10.0.0.1:8080 ready=true, 10.0.0.2:8080 ready=false" {
			t.Error(got)
		}
		s := controllertest.All[*discoveryv1.EndpointSlice](e.Cluster)[0]
		if s.Labels[discoveryv1.LabelManagedBy] != endpointslice.ManagedBy || s.Labels[discoveryv1.LabelServiceName] != "web" || s.Labels["team"] != "a" ||
			s.GenerateName != "web-" || len(s.OwnerReferences) != 1 || s.OwnerReferences[0].Kind != "Service" {
			t.Errorf("slice %+v", s.ObjectMeta)
		}
		controllertest.Edit(e.Cluster, "default", "b", func(p *corev1.Pod) { p.Status = *controllertest.ReadyStatus("10.0.0.2") })
		controllertest.Edit(e.Cluster, "default", "a", func(p *corev1.Pod) { p.Labels = nil })
		e.Settle()
		if got := endpoints(e); got != "10.0.0.2:8080 ready=true" {
			t.Error(got)
		}
		// A slice that somebody else changed or deleted comes back.
		e.Cluster.Remove(controllertest.All[*discoveryv1.EndpointSlice](e.Cluster)[0])
		e.Settle()
		if got := endpoints(e); got != "10.0.0.2:8080 ready=true" {
			t.Errorf("after the slice was deleted: %s", got)
		}
		e.Cluster.Calls()
		e.Advance(time.Hour)
		if c := e.Cluster.Calls(); len(c) > 0 {
			t.Errorf("an idle controller made %d requests, such as %+v", len(c), c[0])
		}
	})
}

func TestManyPods(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e, endpointslice.Options{MaxEndpoints: 50})
		e.Create(service())
		n := 0
		e.Cluster.React(func(c controllertest.Call) error {
			if n++; c.Kind.Kind == "EndpointSlice" && n%4 == 0 {
				return errors.New("injected")
			}
			return nil
		})
		for i := range 120 {
			e.Cluster.Put(pod(fmt.Sprint("p", i), fmt.Sprintf("10.0.1.%d", i), true))
		}
		e.Settle()
		e.Cluster.React(nil)
		e.Advance(time.Hour)
		if got := len(strings.Split(endpoints(e), ", ")); got != 120 {
			t.Errorf("%d endpoints", got)
		}
		if n := len(controllertest.All[*discoveryv1.EndpointSlice](e.Cluster)); n < 3 || n > 6 {
			t.Errorf("%d slices", n)
		}
	})
}
