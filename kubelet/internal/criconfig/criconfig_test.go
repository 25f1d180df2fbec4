package criconfig

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/internal/env"
)

func ptr[T any](v T) *T { return &v }

func pod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "img"}}}}
}

func TestDNS(t *testing.T) {
	host, err := ParseResolvConf(strings.NewReader("# x\nnameserver 1.1.1.1\nsearch corp.example. .\noptions timeout:1 rotate\n"))
	if err != nil {
		t.Fatal(err)
	}
	cluster := []string{"10.96.0.10"}
	for _, tc := range []struct {
		name                       string
		edit                       func(*corev1.Pod)
		servers, searches, options string
	}{
		{"cluster first", func(p *corev1.Pod) {}, "10.96.0.10", "ns.svc.cluster.local svc.cluster.local cluster.local corp.example .", "ndots:5"},
		{"default", func(p *corev1.Pod) { p.Spec.DNSPolicy = corev1.DNSDefault }, "1.1.1.1", "corp.example .", "timeout:1 rotate"},
		{"cluster first in the host's network", func(p *corev1.Pod) { p.Spec.HostNetwork = true }, "1.1.1.1", "corp.example .", "timeout:1 rotate"},
		{"with host net", func(p *corev1.Pod) { p.Spec.HostNetwork = true; p.Spec.DNSPolicy = corev1.DNSClusterFirstWithHostNet }, "10.96.0.10", "ns.svc.cluster.local svc.cluster.local cluster.local corp.example .", "ndots:5"},
		{"none, own config", func(p *corev1.Pod) {
			p.Spec.DNSPolicy = corev1.DNSNone
			p.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"9.9.9.9", "9.9.9.9"}, Searches: []string{"a"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr("2")}, {Name: "edns0"}}}
		}, "9.9.9.9", "a", "edns0 ndots:2"},
		{"options merge", func(p *corev1.Pod) {
			p.Spec.DNSConfig = &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr("1")}}}
		}, "10.96.0.10", "ns.svc.cluster.local svc.cluster.local cluster.local corp.example .", "ndots:1"},
		{"no more than three servers", func(p *corev1.Pod) {
			p.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"1", "2", "3"}}
		}, "10.96.0.10 1 2", "ns.svc.cluster.local svc.cluster.local cluster.local corp.example .", "ndots:5"},
	} {
		p := pod()
		tc.edit(p)
		got, _ := DNS(p, host, cluster, "cluster.local")
		if s := strings.Join(got.Servers, " "); s != tc.servers {
			t.Errorf("%s: servers %q, want %q", tc.name, s, tc.servers)
		}
		if s := strings.Join(got.Searches, " "); s != tc.searches {
			t.Errorf("%s: searches %q, want %q", tc.name, s, tc.searches)
		}
		if s := strings.Join(got.Options, " "); s != tc.options {
			t.Errorf("%s: options %q, want %q", tc.name, s, tc.options)
		}
	}
}

func TestContainerConfig(t *testing.T) {
	p := pod()
	p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr(int64(1000)), FSGroup: ptr(int64(7)), SupplementalGroups: []int64{5}, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
	c := &p.Spec.Containers[0]
	c.Command, c.Args = []string{"run", "$(A)"}, []string{"$$(A)"}
	c.Resources = corev1.ResourceRequirements{
		Requests: corev1.ResourceList{"cpu": resource.MustParse("250m"), "memory": resource.MustParse("256Mi")},
		Limits:   corev1.ResourceList{"cpu": resource.MustParse("500m"), "memory": resource.MustParse("512Mi"), "hugepages-2Mi": resource.MustParse("4Mi")},
	}
	c.SecurityContext = &corev1.SecurityContext{
		RunAsUser: ptr(int64(2000)), AllowPrivilegeEscalation: ptr(false), ReadOnlyRootFilesystem: ptr(true),
		Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}, Drop: []corev1.Capability{"ALL"}},
	}
	got, err := Container{Pod: p, Container: c, Attempt: 3, ImageRef: "sha256:1", Env: []env.Var{{Name: "A", Value: "1"}}, MemoryCapacity: 1 << 30, WithLog: true, QOS: corev1.PodQOSBurstable}.Config()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]any{[]string{"run", "1"}, []string{"$(A)"}, "c/3.log", "img"}, []any{got.Command, got.Args, got.LogPath, got.Image.UserSpecifiedImage}); diff != "" {
		t.Error(diff)
	}
	r := got.Linux.Resources
	if r.CpuShares != 256 || r.CpuQuota != 50000 || r.CpuPeriod != 100000 || r.MemoryLimitInBytes != 512<<20 || r.OomScoreAdj != 750 {
		t.Errorf("resources %v", r)
	}
	if len(r.HugepageLimits) != 1 || r.HugepageLimits[0].PageSize != "2MB" || r.HugepageLimits[0].Limit != 4<<20 {
		t.Errorf("huge pages %v", r.HugepageLimits)
	}
	s := got.Linux.SecurityContext
	if s.RunAsUser.Value != 2000 || !s.NoNewPrivs || !s.ReadonlyRootfs || s.Seccomp.ProfileType != runtimeapi.SecurityProfile_RuntimeDefault || len(s.MaskedPaths) == 0 {
		t.Errorf("security %v", s)
	}
	if diff := cmp.Diff([]int64{5, 7}, s.SupplementalGroups); diff != "" {
		t.Error(diff)
	}
}

func TestNonRoot(t *testing.T) {
	for _, tc := range []struct {
		user      *int64
		imageUID  *int64
		imageUser string
		want      string
	}{
		{user: ptr(int64(0)), want: `container's runAsUser breaks non-root policy (pod: "p_ns(u)", container: c)`},
		{user: ptr(int64(5))},
		{imageUID: ptr(int64(0)), want: `container has runAsNonRoot and image will run as root (pod: "p_ns(u)", container: c)`},
		{want: `container has runAsNonRoot and image will run as root (pod: "p_ns(u)", container: c)`},
		{imageUID: ptr(int64(9))},
		{imageUser: "www", want: `container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root (pod: "p_ns(u)", container: c)`},
	} {
		p := pod()
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: ptr(true), RunAsUser: tc.user}
		_, err := Container{Pod: p, Container: &p.Spec.Containers[0], ImageUID: tc.imageUID, ImageUser: tc.imageUser}.Config()
		if got := errString(err); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc, got, tc.want)
		}
	}
}

func errString(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestSandbox(t *testing.T) {
	p := pod()
	p.Labels = map[string]string{"app": "x"}
	p.Spec.Subdomain, p.Spec.Hostname = "sub", "host"
	p.Spec.ShareProcessNamespace = ptr(true)
	p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net/core.somaxconn", Value: "1"}}}
	p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080, Protocol: corev1.ProtocolUDP}}
	h, err := Hostname(p, "cluster.local", "node")
	if err != nil {
		t.Fatal(err)
	}
	got := Sandbox{Pod: p, Attempt: 2, LogRoot: "/logs"}.Config(h)
	if got.Hostname != "host" || got.LogDirectory != "/logs/ns_p_u" || got.Metadata.Attempt != 2 || got.Labels["io.kubernetes.pod.uid"] != "u" || got.Labels["app"] != "x" {
		t.Errorf("%v", got)
	}
	if got.Linux.Sysctls["net.core.somaxconn"] != "1" || got.PortMappings[0].Protocol != runtimeapi.Protocol_UDP || got.Linux.SecurityContext.NamespaceOptions.Pid != runtimeapi.NamespaceMode_POD {
		t.Errorf("%v", got)
	}
	p.Spec.SetHostnameAsFQDN = ptr(true)
	if h, _ = Hostname(p, "cluster.local", "node"); h != "host.sub.ns.svc.cluster.local" {
		t.Error(h)
	}
	hosts := string(HostsFile(p, []string{"10.0.0.5"}, "host", Domain(p, "cluster.local"), nil))
	if !strings.Contains(hosts, "10.0.0.5\thost.sub.ns.svc.cluster.local\thost\n") {
		t.Error(hosts)
	}
}
