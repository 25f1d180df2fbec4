package core

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
)

func newService(name string, mutate func(s *corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}},
	}
	if mutate != nil {
		mutate(s)
	}
	defaultService(s)
	return s
}

func texts(errs field.ErrorList) []string {
	var out []string
	for _, err := range errs {
		out = append(out, err.Error())
	}
	return out
}

func create(t *testing.T, m *memory, k *kind.Kind, s *corev1.Service) error {
	t.Helper()
	ctx := context.Background()
	k.PrepareForCreate(ctx, s)
	if errs := k.Validate(ctx, s); len(errs) > 0 {
		return fmt.Errorf("invalid: %q", texts(errs))
	}
	return m.commit(k, s, nil)
}

func update(t *testing.T, m *memory, k *kind.Kind, old *corev1.Service, change func(s *corev1.Service)) (*corev1.Service, error) {
	t.Helper()
	s := old.DeepCopy()
	change(s)
	k.Default(s)
	ctx := context.Background()
	k.PrepareForUpdate(ctx, s, old)
	if errs := k.ValidateUpdate(ctx, s, old); len(errs) > 0 {
		return nil, fmt.Errorf("invalid: %q", texts(errs))
	}
	if err := m.commit(k, s, old); err != nil {
		return nil, err
	}
	return s, nil
}

func TestServiceValidation(t *testing.T) {
	k := kindOf(t, Group(testOptions(t, "10.96.0.0/16")), "Service")
	type S = corev1.Service
	for _, tc := range []struct {
		name   string
		mutate func(s *S)
		want   []string
	}{
		{"valid", nil, nil},
		{"headless without ports", func(s *S) { s.Spec.ClusterIP, s.Spec.Ports = "None", nil }, nil},
		{"no ports", func(s *S) { s.Spec.Ports = nil }, []string{`spec.ports: Required value`}},
		{"ports", func(s *S) {
			s.Spec.Ports = []corev1.ServicePort{
				{Port: 80, Protocol: "HTTP"}, {Name: "a", Port: 0, TargetPort: intstr.FromString("x_")}, {Name: "a", Port: 90, AppProtocol: ptr.To("a b")}, {Name: "b", Port: 90},
			}
		}, []string{
			`spec.ports[0].name: Required value`,
			`spec.ports[0].protocol: Unsupported value: "HTTP": supported values: "SCTP", "TCP", "UDP"`,
			`spec.ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive`,
			`spec.ports[1].targetPort: Invalid value: "x_": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)`,
			`spec.ports[2].name: Duplicate value: "a"`,
			`spec.ports[2].appProtocol: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
			`spec.ports[3]: Duplicate value: {"protocol":"TCP","port":90,"targetPort":0}`,
		}},
		{"type", func(s *S) { s.Spec.Type = "Magic" }, []string{`spec.type: Unsupported value: "Magic": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"`}},
		{"node port of ClusterIP", func(s *S) { s.Spec.Ports[0].NodePort = 30000 }, []string{"spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"}},
		{"headless NodePort", func(s *S) { s.Spec.Type, s.Spec.ClusterIP = corev1.ServiceTypeNodePort, "None" }, []string{
			`spec.clusterIPs[0]: Invalid value: ["None"]: may not be set to 'None' for NodePort services`,
		}},
		{"external name", func(s *S) { s.Spec.Type, s.Spec.Ports = corev1.ServiceTypeExternalName, nil }, []string{`spec.externalName: Required value`}},
		{"external name with address", func(s *S) {
			s.Spec.Type, s.Spec.ExternalName, s.Spec.ClusterIP = corev1.ServiceTypeExternalName, "example.org.", "10.96.0.1"
		}, []string{`spec.clusterIPs: Forbidden: may not be set for ExternalName services`}},
		{"kubelet's port", func(s *S) { s.Spec.Type, s.Spec.Ports[0].Port = corev1.ServiceTypeLoadBalancer, 10250 }, []string{
			`spec.ports[0]: Invalid value: 10250: may not expose port 10250 externally since it is used by kubelet`,
		}},
		{"affinity", func(s *S) {
			s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
			s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr.To[int32](86401)}}
		}, []string{`spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400`}},
		{"external addresses", func(s *S) { s.Spec.ExternalIPs = []string{"127.0.0.1", "x", "0.0.0.0", "169.254.1.1"} }, []string{
			`spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)`,
			`spec.externalIPs[1]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`,
			`spec.externalIPs[2]: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0)`,
			`spec.externalIPs[3]: Invalid value: "169.254.1.1": may not be in the link-local range (169.254.0.0/16, fe80::/10)`,
		}},
		{"load balancer's fields", func(s *S) {
			s.Spec.LoadBalancerSourceRanges, s.Spec.LoadBalancerClass, s.Spec.AllocateLoadBalancerNodePorts = []string{"10.0.0.0/8"}, ptr.To("x"), ptr.To(true)
			s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = "Local", 30000
		}, []string{
			"spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
			"spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
			"spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
			`spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services`,
			"spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
		}},
		{"policies", func(s *S) {
			s.Spec.InternalTrafficPolicy, s.Spec.TrafficDistribution = ptr.To[corev1.ServiceInternalTrafficPolicy]("x"), ptr.To("Far")
		}, []string{
			`spec.internalTrafficPolicy: Unsupported value: "x": supported values: "Cluster", "Local"`,
			`spec.trafficDistribution: Unsupported value: "Far": supported values: "PreferClose", "PreferSameZone", "PreferSameNode"`,
		}},
		{"addresses", func(s *S) { s.Spec.ClusterIPs = []string{"10.96.0.1"} }, []string{
			"spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: must be empty when `clusterIP` is not specified",
		}},
		{"two of one family", func(s *S) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "10.96.0.1", []string{"10.96.0.1", "10.96.0.2"} }, []string{
			`spec.clusterIPs: Invalid value: ["10.96.0.1","10.96.0.2"]: may specify no more than one IP for each IP family`,
		}},
		{"family", func(s *S) {
			s.Spec.ClusterIP, s.Spec.IPFamilies, s.Spec.IPFamilyPolicy = "10.96.0.1", []corev1.IPFamily{"IPv6"}, ptr.To(corev1.IPFamilyPolicySingleStack)
		}, []string{"spec.clusterIPs[0]: Invalid value: \"10.96.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newService("web", tc.mutate)
			k.PrepareForCreate(context.Background(), s)
			if diff := cmp.Diff(tc.want, texts(k.Validate(context.Background(), s))); diff != "" {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestServiceAllocation(t *testing.T) {
	k := kindOf(t, Group(testOptions(t, "10.96.0.0/24")), "Service")
	m := newMemory()
	web := newService("web", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort })
	if err := create(t, m, k, web); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(web.Spec.ClusterIP, "10.96.0.") || !slices.Equal(web.Spec.ClusterIPs, []string{web.Spec.ClusterIP}) || web.Spec.Ports[0].NodePort == 0 {
		t.Fatalf("not allocated: %+v", web.Spec)
	}
	if web.Spec.IPFamilyPolicy == nil || *web.Spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack || !slices.Equal(web.Spec.IPFamilies, []corev1.IPFamily{"IPv4"}) {
		t.Errorf("families: %v %v", web.Spec.IPFamilyPolicy, web.Spec.IPFamilies)
	}
	for _, tc := range []struct {
		name   string
		mutate func(s *corev1.Service)
		want   string
	}{
		{
			"same address", func(s *corev1.Service) { s.Spec.ClusterIP = web.Spec.ClusterIP },
			`Service "other" is invalid: spec.clusterIPs: Invalid value: ["` + web.Spec.ClusterIP + `"]: failed to allocate IP ` + web.Spec.ClusterIP + `: provided IP is already allocated`,
		},
		{
			"address outside", func(s *corev1.Service) { s.Spec.ClusterIP = "1.2.3.4" },
			`Service "other" is invalid: spec.clusterIPs: Invalid value: ["1.2.3.4"]: failed to allocate IP 1.2.3.4: the provided network does not match the current range`,
		},
		{
			"same node port", func(s *corev1.Service) {
				s.Spec.Type = "NodePort"
				s.Spec.Ports[0].NodePort = web.Spec.Ports[0].NodePort
			},
			fmt.Sprintf(`Service "other" is invalid: spec.ports[0].nodePort: Invalid value: %d: provided port is already allocated`, web.Spec.Ports[0].NodePort),
		},
		{
			"node port outside", func(s *corev1.Service) { s.Spec.Type = "NodePort"; s.Spec.Ports[0].NodePort = 80 },
			`Service "other" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767`,
		},
		{
			"other family", func(s *corev1.Service) { s.Spec.IPFamilies = []corev1.IPFamily{"IPv6"} },
			`Service "other" is invalid: spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster`,
		},
		{
			"dual-stack", func(s *corev1.Service) { s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack) },
			`Service "other" is invalid: spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := create(t, m, k, newService("other", tc.mutate))
			if err == nil || err.Error() != tc.want {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
			if err != nil && !apierrors.IsInvalid(err) {
				t.Errorf("not an Invalid error: %T", err)
			}
		})
	}
	// A PUT that leaves out what was allocated keeps it.
	kept, err := update(t, m, k, web, func(s *corev1.Service) {
		s.Spec.ClusterIP, s.Spec.ClusterIPs, s.Spec.IPFamilies, s.Spec.IPFamilyPolicy, s.Spec.Ports[0].NodePort = "", nil, nil, nil, 0
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(web.Spec, kept.Spec); diff != "" {
		t.Errorf("spec changed (-before +after):\n%s", diff)
	}
	if _, err := update(t, m, k, kept, func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "10.96.0.9", []string{"10.96.0.9"} }); err == nil ||
		!strings.Contains(err.Error(), `spec.clusterIPs[0]: Invalid value: [\"10.96.0.9\"]: may not change once set`) {
		t.Errorf("address changed: %v", err)
	}
	// Becoming ClusterIP frees the node port, which another Service can then have.
	port := kept.Spec.Ports[0].NodePort
	plain, err := update(t, m, k, kept, func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
	if err != nil {
		t.Fatal(err)
	}
	if plain.Spec.Ports[0].NodePort != 0 || plain.Spec.ExternalTrafficPolicy != "" {
		t.Errorf("kept what its type has not: %+v", plain.Spec)
	}
	other := newService("other", func(s *corev1.Service) { s.Spec.Type, s.Spec.Ports[0].NodePort = "NodePort", port })
	if err := create(t, m, k, other); err != nil {
		t.Errorf("freed port: %v", err)
	}
	named, err := update(t, m, k, plain, func(s *corev1.Service) {
		s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, "example.org"
	})
	if err != nil {
		t.Fatal(err)
	}
	if named.Spec.ClusterIP != "" || len(named.Spec.ClusterIPs) != 0 || named.Spec.IPFamilyPolicy != nil {
		t.Errorf("an ExternalName Service keeps its addresses: %+v", named.Spec)
	}
	reuse := newService("reuse", func(s *corev1.Service) { s.Spec.ClusterIP = web.Spec.ClusterIP })
	if err := create(t, m, k, reuse); err != nil {
		t.Errorf("freed address: %v", err)
	}
	// Removal frees all.
	if err := m.commit(k, nil, reuse); err != nil {
		t.Fatal(err)
	}
	if err := create(t, m, k, newService("again", func(s *corev1.Service) { s.Spec.ClusterIP = web.Spec.ClusterIP })); err != nil {
		t.Errorf("after removal: %v", err)
	}
}

func TestServiceDualStack(t *testing.T) {
	k := kindOf(t, Group(testOptions(t, "fd00::/108", "10.96.0.0/24")), "Service")
	m := newMemory()
	s := newService("one", nil)
	if err := create(t, m, k, s); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Spec.IPFamilies, []corev1.IPFamily{"IPv6"}) {
		t.Errorf("the first range is the default, got %v", s.Spec.IPFamilies)
	}
	s, err := update(t, m, k, s, func(s *corev1.Service) { s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyPreferDualStack) })
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Spec.ClusterIPs) != 2 || !strings.HasPrefix(s.Spec.ClusterIPs[0], "fd00::") || !strings.HasPrefix(s.Spec.ClusterIPs[1], "10.96.0.") {
		t.Fatalf("upgraded to %v", s.Spec.ClusterIPs)
	}
	second := s.Spec.ClusterIPs[1]
	s, err = update(t, m, k, s, func(s *corev1.Service) { s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicySingleStack) })
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Spec.ClusterIPs) != 1 || len(s.Spec.IPFamilies) != 1 {
		t.Errorf("downgraded to %v %v", s.Spec.ClusterIPs, s.Spec.IPFamilies)
	}
	both := newService("both", func(s *corev1.Service) {
		s.Spec.ClusterIP, s.Spec.ClusterIPs = second, []string{second, "fd00::77"}
	})
	if err := create(t, m, k, both); err != nil {
		t.Fatalf("freed second address: %v", err)
	}
	if *both.Spec.IPFamilyPolicy != corev1.IPFamilyPolicyRequireDualStack || !slices.Equal(both.Spec.IPFamilies, []corev1.IPFamily{"IPv4", "IPv6"}) {
		t.Errorf("%v %v", *both.Spec.IPFamilyPolicy, both.Spec.IPFamilies)
	}
	headless := newService("headless", func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.Selector = "None", nil })
	if err := create(t, m, k, headless); err != nil {
		t.Fatal(err)
	}
	if *headless.Spec.IPFamilyPolicy != corev1.IPFamilyPolicyRequireDualStack || len(headless.Spec.IPFamilies) != 2 || !slices.Equal(headless.Spec.ClusterIPs, []string{"None"}) {
		t.Errorf("headless without selector: %+v", headless.Spec)
	}
}

func TestServiceNodePortsShared(t *testing.T) {
	k := kindOf(t, Group(testOptions(t, "10.96.0.0/24")), "Service")
	s := newService("dns", func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		s.Spec.Ports = []corev1.ServicePort{{Name: "tcp", Port: 53}, {Name: "udp", Port: 53, Protocol: "UDP"}, {Name: "web", Port: 80}}
	})
	if err := create(t, newMemory(), k, s); err != nil {
		t.Fatal(err)
	}
	p := s.Spec.Ports
	if p[0].NodePort != p[1].NodePort || p[0].NodePort == p[2].NodePort || p[2].NodePort == 0 {
		t.Errorf("node ports %d %d %d", p[0].NodePort, p[1].NodePort, p[2].NodePort)
	}
	if h := s.Spec.HealthCheckNodePort; h == 0 || h == p[0].NodePort || h == p[2].NodePort {
		t.Errorf("health check port %d", h)
	}
	off := newService("off", func(s *corev1.Service) {
		s.Spec.Type, s.Spec.AllocateLoadBalancerNodePorts = corev1.ServiceTypeLoadBalancer, ptr.To(false)
	})
	if err := create(t, newMemory(), k, off); err != nil || off.Spec.Ports[0].NodePort != 0 {
		t.Errorf("node port %d though not to be allocated, %v", off.Spec.Ports[0].NodePort, err)
	}
}

// TestServicesOfTwoServers runs random creates, updates and removals through two servers on one store: claims keep
// values unique, and what one frees the other can use.
func TestServicesOfTwoServers(t *testing.T) {
	m := newMemory()
	servers := []*kind.Kind{
		kindOf(t, Group(testOptions(t, "10.96.0.0/27")), "Service"), kindOf(t, Group(testOptions(t, "10.96.0.0/27")), "Service"),
	}
	var wg sync.WaitGroup
	for g := range 6 {
		k := servers[g%2]
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 7))
			var mine []*corev1.Service
			for i := range 150 {
				if len(mine) > 3 || len(mine) > 0 && r.IntN(3) == 0 {
					s := mine[0]
					mine = mine[1:]
					if err := m.commit(k, nil, s); err != nil {
						t.Errorf("removal: %v", err)
					}
					continue
				}
				s := newService(fmt.Sprintf("s%d-%d", g, i), func(s *corev1.Service) {
					if r.IntN(2) == 0 {
						s.Spec.Type = corev1.ServiceTypeNodePort
					}
					if r.IntN(4) == 0 {
						s.Spec.ClusterIP = fmt.Sprintf("10.96.0.%d", 1+r.IntN(30))
						s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
					}
				})
				if err := m.commit(k, s, nil); err != nil {
					if !apierrors.IsInvalid(err) && !strings.Contains(err.Error(), "range is full") {
						t.Errorf("creation: %v", err)
					}
					continue
				}
				mine = append(mine, s)
			}
			for _, s := range mine {
				if err := m.commit(k, nil, s); err != nil {
					t.Errorf("removal: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if len(m.claims) > 0 || len(m.objects) > 0 {
		t.Errorf("left behind: %v, %d objects", m.claims, len(m.objects))
	}
	// Nothing is leaked: either server can now fill the whole range.
	for _, k := range servers {
		var all []client.Object
		for i := range 30 {
			s := newService(fmt.Sprintf("all%d", i), nil)
			if err := m.commit(k, s, nil); err != nil {
				t.Fatalf("service %d: %v", i, err)
			}
			all = append(all, s)
		}
		for _, s := range all {
			if err := m.commit(k, nil, s); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestServiceDryRun(t *testing.T) {
	k := kindOf(t, Group(testOptions(t, "10.96.0.0/30")), "Service")
	m := newMemory()
	ctx := kind.WithAccess(context.Background(), m)
	for range 5 {
		s := newService("dry", nil)
		done, err := k.Begin(ctx, s, nil, true)
		if err != nil {
			t.Fatal(err)
		}
		done(false)
		if s.Spec.ClusterIP == "" {
			t.Error("the answer to a dry run has no address")
		}
	}
	for i := range 2 {
		if err := create(t, m, k, newService(fmt.Sprint("s", i), nil)); err != nil {
			t.Errorf("dry runs used the range up: %v", err)
		}
	}
}
