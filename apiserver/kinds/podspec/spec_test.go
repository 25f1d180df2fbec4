package podspec

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/utils/ptr"
)

func TestScalars(t *testing.T) {
	many := make([]string, 33)
	for i := range many {
		many[i] = "a.b"
	}
	runPodCases(t, []podCase{
		{"policies", func(p *corev1.Pod) { p.Spec.RestartPolicy, p.Spec.DNSPolicy = "Sometimes", "Mine" }, []string{
			`spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"`,
			`spec.dnsPolicy: Unsupported value: "Mine": supported values: "ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"`,
		}},
		{"no DNS", func(p *corev1.Pod) { p.Spec.DNSPolicy = corev1.DNSNone }, []string{
			"spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
		}},
		{"no name servers", func(p *corev1.Pod) {
			p.Spec.DNSPolicy, p.Spec.DNSConfig = corev1.DNSNone, &corev1.PodDNSConfig{}
		}, []string{"spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None"}},
		{"DNS", func(p *corev1.Pod) {
			p.Spec.DNSConfig = &corev1.PodDNSConfig{
				Nameservers: []string{"10.0.0.1", "x"}, Searches: append([]string{".", "_svc.example.org.", "a b"}, many...), Options: []corev1.PodDNSConfigOption{{}},
			}
		}, []string{
			`spec.dnsConfig.nameservers[1]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`,
			`spec.dnsConfig.searches: Invalid value: [".","_svc.example.org.","a b"` + strings.Repeat(`,"a.b"`, 33) + `]: must not have more than 32 search paths`,
			`spec.dnsConfig.searches[2]: Invalid value: "a b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')`,
			`spec.dnsConfig.options[0]: Required value: must not be empty`,
		}},
		{"names", func(p *corev1.Pod) {
			p.Spec.ServiceAccountName, p.Spec.NodeName, p.Spec.Hostname, p.Spec.PriorityClassName = "A", "B", "a.b", "C"
			p.Spec.ActiveDeadlineSeconds = ptr.To[int64](0)
			p.Spec.HostAliases = []corev1.HostAlias{{IP: "1", Hostnames: []string{"ok"}}}
			p.Spec.PreemptionPolicy = ptr.To[corev1.PreemptionPolicy]("x")
			p.Spec.OS = &corev1.PodOS{Name: "plan9"}
		}, []string{
			`spec.serviceAccountName: Invalid value: "A": ` + subdomain, `spec.nodeName: Invalid value: "B": ` + subdomain,
			`spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive`,
			`spec.hostname: Invalid value: "a.b": must not contain dots`,
			`spec.hostAliases[0].ip: Invalid value: "1": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`,
			`spec.priorityClassName: Invalid value: "C": ` + subdomain,
			`spec.preemptionPolicy: Unsupported value: "x": supported values: "PreemptLowerPriority", "Never"`,
			`spec.os: Unsupported value: "plan9": supported values: "linux", "windows"`,
		}},
		{"tolerations", func(p *corev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{
				{Operator: "Exists"},
				{Operator: "Equal", Value: "x"},
				{Key: "a", Operator: "Exists", Value: "x"},
				{Key: "a", TolerationSeconds: ptr.To[int64](3)},
				{Key: "a b", Operator: "Gt", Effect: "No"},
			}
		}, []string{
			"spec.tolerations[1].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
			"spec.tolerations[2].operator: Invalid value: \"x\": value must be empty when `operator` is 'Exists'",
			"spec.tolerations[3].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
			`spec.tolerations[4].key: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
			`spec.tolerations[4].operator: Unsupported value: "Gt": supported values: "Equal", "Exists"`,
			`spec.tolerations[4].effect: Unsupported value: "No": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"`,
		}},
		{"gates", func(p *corev1.Pod) {
			p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "a"}, {Name: "a"}}
			p.Spec.NodeName = "n"
		}, []string{
			`spec.schedulingGates[1]: Duplicate value: "a"`,
			`spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared`,
		}},
		{"mirror pod", func(p *corev1.Pod) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x", deletionCost: "many"}
		}, []string{
			`metadata.annotations[kubernetes.io/config.mirror]: Invalid value: "x": must set spec.nodeName if mirror pod annotation is set`,
			`metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "many": must be a 32bit integer`,
		}},
		{"overhead", func(p *corev1.Pod) { p.Spec.Overhead = list("cpu=-1") }, []string{
			`spec.overhead.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0`,
		}},
	})
}

const subdomain = `a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`

func TestSecurity(t *testing.T) {
	runPodCases(t, []podCase{
		{"pod", func(p *corev1.Pod) {
			p.Spec.HostPID, p.Spec.ShareProcessNamespace, p.Spec.HostNetwork = true, ptr.To(true), true
			p.Spec.SecurityContext = &corev1.PodSecurityContext{
				RunAsUser: ptr.To[int64](-1), FSGroup: ptr.To[int64](1 << 40), SupplementalGroups: []int64{-2},
				Sysctls:             []corev1.Sysctl{{Name: "net.ipv4.x"}, {Name: "A"}, {}, {Name: "kernel.sem"}, {Name: "kernel.sem"}},
				FSGroupChangePolicy: ptr.To[corev1.PodFSGroupChangePolicy]("x"), SeccompProfile: &corev1.SeccompProfile{Type: "Localhost"},
				AppArmorProfile: &corev1.AppArmorProfile{Type: "RuntimeDefault", LocalhostProfile: ptr.To("x")},
			}
		}, []string{
			`spec.securityContext.fsGroup: Invalid value: 1099511627776: must be between 0 and 2147483647, inclusive`,
			`spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive`,
			`spec.securityContext.supplementalGroups[0]: Invalid value: -2: must be between 0 and 2147483647, inclusive`,
			`spec.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled`,
			`spec.securityContext.sysctls[0].name: Invalid value: "net.ipv4.x": may not be specified when 'hostNetwork' is true`,
			`spec.securityContext.sysctls[1].name: Invalid value: "A": must have at most 253 characters and match regex ([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?`,
			`spec.securityContext.sysctls[2].name: Required value`,
			`spec.securityContext.sysctls[4].name: Duplicate value: "kernel.sem"`,
			`spec.securityContext.fsGroupChangePolicy: Unsupported value: "x": supported values: "Always", "OnRootMismatch"`,
			`spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost`,
			`spec.securityContext.appArmorProfile.localhostProfile: Invalid value: "x": can only be set when AppArmor type is Localhost`,
		}},
		{"container", func(p *corev1.Pod) {
			main0(p).SecurityContext = &corev1.SecurityContext{
				Privileged: ptr.To(true), AllowPrivilegeEscalation: ptr.To(false), ProcMount: ptr.To(corev1.UnmaskedProcMount),
			}
		}, []string{
			"spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
			"spec.containers[0].securityContext: Invalid value: {\"privileged\":true,\"allowPrivilegeEscalation\":false,\"procMount\":\"Unmasked\"}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
		}},
		{"user namespace", func(p *corev1.Pod) { p.Spec.HostUsers, p.Spec.HostNetwork, p.Spec.HostIPC = ptr.To(false), true, true }, []string{
			"spec.hostNetwork: Forbidden: when `hostUsers` is false", "spec.hostIPC: Forbidden: when `hostUsers` is false",
		}},
		{"windows", func(p *corev1.Pod) {
			p.Spec.OS = &corev1.PodOS{Name: corev1.Windows}
			p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To[int64](1)}
			main0(p).SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(false)}
		}, []string{
			`spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod`,
			`spec.containers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod`,
		}},
		{"host process", func(p *corev1.Pod) {
			main0(p).SecurityContext = &corev1.SecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{HostProcess: ptr.To(true)}}
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "b", Image: "b"})
		}, []string{
			`spec: Invalid value: "": If pod contains any hostProcess containers then all containers must be HostProcess containers`,
			`spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers`,
		}},
	})
}

func TestAffinity(t *testing.T) {
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	runPodCases(t, []podCase{
		{"node", func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
					MatchExpressions: []corev1.NodeSelectorRequirement{
						{Key: "a", Operator: "In"},
						{Key: "a", Operator: "Exists", Values: []string{"x"}},
						{Key: "a", Operator: "Gt", Values: []string{"1", "2"}},
						{Key: "a", Operator: "Like"},
						{Key: "a", Operator: "In", Values: []string{"b c"}},
					},
					MatchFields: []corev1.NodeSelectorRequirement{{Key: "spec.x", Operator: "In", Values: []string{"n"}}},
				}}},
				PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 101}},
			}}
		}, []string{
			affinityPath("node") + "nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
			affinityPath("node") + "nodeSelectorTerms[0].matchExpressions[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
			affinityPath("node") + "nodeSelectorTerms[0].matchExpressions[2].values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'",
			affinityPath("node") + `nodeSelectorTerms[0].matchExpressions[3].operator: Invalid value: "Like": not a valid selector operator`,
			affinityPath("node") + `nodeSelectorTerms[0].matchExpressions[4].values[0]: Invalid value: "b c": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`,
			affinityPath("node") + `nodeSelectorTerms[0].matchFields[0].key: Invalid value: "spec.x": not a valid field selector key`,
			`spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100`,
		}},
		{"no terms", func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{}}}
		}, []string{affinityPath("node") + "nodeSelectorTerms: Required value: must have at least one node selector term"}},
		{"pod", func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
					{TopologyKey: "zone", LabelSelector: selector, MatchLabelKeys: []string{"a"}, MismatchLabelKeys: []string{"a"}},
					{TopologyKey: "zone", MatchLabelKeys: []string{"a"}, Namespaces: []string{"A"}},
				},
				PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 0, PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: "z", LabelSelector: selector}}},
			}}
		}, []string{
			affinityPath("podAnti")[:len(affinityPath("podAnti"))-1] + `[0]: Invalid value: ["a"]: exists in both matchLabelKeys and mismatchLabelKeys`,
			affinityPath("podAnti")[:len(affinityPath("podAnti"))-1] + `[1].namespace: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
			affinityPath("podAnti")[:len(affinityPath("podAnti"))-1] + `[1].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set`,
			`spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100`,
		}},
		{"spread", func(p *corev1.Pod) {
			p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{
				{MaxSkew: 0, TopologyKey: "", WhenUnsatisfiable: "Maybe"},
				{MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: corev1.ScheduleAnyway, MinDomains: ptr.To[int32](2), LabelSelector: selector, MatchLabelKeys: []string{"app"}},
				{MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: corev1.ScheduleAnyway, NodeTaintsPolicy: ptr.To[corev1.NodeInclusionPolicy]("x")},
			}
		}, []string{
			`spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero`,
			`spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty`,
			`spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Maybe": supported values: "DoNotSchedule", "ScheduleAnyway"`,
			`spec.topologySpreadConstraints[1].minDomains: Invalid value: 2: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway`,
			`spec.topologySpreadConstraints[1].matchLabelKeys[0]: Invalid value: "app": exists in both matchLabelKeys and labelSelector`,
			`spec.topologySpreadConstraints[2].{topologyKey, whenUnsatisfiable}: Duplicate value: "{zone, ScheduleAnyway}"`,
			`spec.topologySpreadConstraints[2].nodeTaintsPolicy: Unsupported value: "x": supported values: "Honor", "Ignore"`,
		}},
	})
}

func affinityPath(kind string) string {
	return "spec.affinity." + kind + "Affinity.requiredDuringSchedulingIgnoredDuringExecution."
}

func TestUpdates(t *testing.T) {
	gated := func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "a"}, {Name: "b"}} }
	for _, tc := range []struct {
		name   string
		base   func(p *corev1.Pod)
		change func(p *corev1.Pod)
		// want are the beginnings of the mistakes.
		want []string
	}{
		{"nothing", nil, func(*corev1.Pod) {}, nil},
		{"image", nil, func(p *corev1.Pod) { main0(p).Image = "other:2" }, nil},
		{"no image", nil, func(p *corev1.Pod) { main0(p).Image = "" }, []string{`spec.containers[0].image: Required value`, `spec.containers[0].image: Required value`}},
		{"bad toleration added", nil, func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Operator: "Near"}} }, []string{
			"spec.tolerations[0].operator: Invalid value: \"Near\": operator must be Exists when `key` is empty",
			`spec.tolerations[0].operator: Unsupported value: "Near"`,
		}},
		{"labels", nil, func(p *corev1.Pod) { p.Labels["x"] = "y" }, nil},
		{"another container", nil, func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, *main0(p))
			p.Spec.Containers[1].Name = "more"
		}, []string{
			`spec.containers: Forbidden: pod updates may not add or remove containers`,
		}},
		{"command", nil, func(p *corev1.Pod) { main0(p).Command = []string{"x"} }, []string{`spec: Forbidden: ` + updateRefused + "\n"}},
		{"node", nil, func(p *corev1.Pod) { p.Spec.NodeName = "x" }, []string{`spec: Forbidden: ` + updateRefused + "\n"}},
		{"deadline set", nil, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](5) }, nil},
		{"deadline later", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](5) }, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](6) }, []string{
			`spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value`,
		}},
		{"deadline gone", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](5) }, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = nil }, []string{
			`spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value`,
		}},
		{"toleration added", nil, func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Operator: "Exists"}} }, nil},
		{"toleration gone", func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Operator: "Exists"}} }, func(p *corev1.Pod) { p.Spec.Tolerations = nil }, []string{
			`spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds`,
		}},
		{"negative grace to 1", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](-5) }, func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1) }, nil},
		{"grace", nil, func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1) }, []string{`spec: Forbidden: ` + updateRefused + "\n"}},
		{"gate gone", gated, func(p *corev1.Pod) { p.Spec.SchedulingGates = p.Spec.SchedulingGates[1:] }, nil},
		{"gate new", gated, func(p *corev1.Pod) { p.Spec.SchedulingGates[1].Name = "c" }, []string{
			`spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new scheduling gate 'c'`,
		}},
		{"gated: node selector narrower", gated, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b"} }, nil},
		{"gated: node selector wider", func(p *corev1.Pod) { gated(p); p.Spec.NodeSelector = map[string]string{"a": "b"} }, func(p *corev1.Pod) { p.Spec.NodeSelector = nil }, []string{
			`spec.nodeSelector: Invalid value: null: only additions to spec.nodeSelector are allowed (no mutations or deletions)`,
		}},
		{"not gated: node selector", nil, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b"} }, []string{`spec: Forbidden: ` + updateRefused + "\n"}},
		{"gated: node affinity", gated, func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "a", Operator: "Exists"}}}},
			}}}
		}, nil},
		{"mirror annotation", nil, func(p *corev1.Pod) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		}, []string{`metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not add mirror pod annotation`, `metadata.annotations[kubernetes.io/config.mirror]: Invalid value`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			old := newPod(tc.base)
			pod := old.DeepCopy()
			tc.change(pod)
			got := texts(ValidatePodUpdate(pod, old))
			if len(got) != len(tc.want) {
				t.Fatalf("got %q, want %q", got, tc.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], tc.want[i]) {
					t.Errorf("got %q, want %q", got[i], tc.want[i])
				}
			}
		})
	}
}

func TestSubresources(t *testing.T) {
	debug := corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "i"}}
	old := newPod(func(p *corev1.Pod) {
		p.Status.QOSClass = corev1.PodQOSBurstable
		p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "i", Resources: corev1.ResourceRequirements{Requests: list("cpu=1")}}}
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{debug}
		main0(p).Resources = corev1.ResourceRequirements{Requests: list("cpu=1"), Limits: list("cpu=2")}
	})
	for _, tc := range []struct {
		name   string
		check  func(pod, old *corev1.Pod) field.ErrorList
		change func(p *corev1.Pod)
		want   []string
	}{
		{"ephemeral added", ValidateEphemeralUpdate, func(p *corev1.Pod) {
			more := *p.Spec.EphemeralContainers[0].DeepCopy()
			more.Name, more.TargetContainerName = "debug2", "main"
			p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, more)
		}, nil},
		{"ephemeral with a port", ValidateEphemeralUpdate, func(p *corev1.Pod) {
			more := *p.Spec.EphemeralContainers[0].DeepCopy()
			more.Name, more.TargetContainerName = "main", "nope"
			more.Ports = []corev1.ContainerPort{{ContainerPort: 1, Protocol: "TCP"}}
			p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, more)
		}, []string{
			`spec.ephemeralContainers[1].name: Duplicate value: "main"`, `spec.ephemeralContainers[1].targetContainerName: Not found: "nope"`,
			`spec.ephemeralContainers[1].ports: Forbidden: cannot be set for an Ephemeral Container`,
		}},
		{"ephemeral removed", ValidateEphemeralUpdate, func(p *corev1.Pod) { p.Spec.EphemeralContainers = nil }, []string{
			"spec.ephemeralContainers: Forbidden: existing ephemeral containers \"debug\" may not be removed\n",
		}},
		{"resize", ValidateResize, func(p *corev1.Pod) { main0(p).Resources.Requests = list("cpu=1500m") }, nil},
		{"resize to another class", ValidateResize, func(p *corev1.Pod) {
			main0(p).Resources, p.Spec.InitContainers[0].Resources = corev1.ResourceRequirements{}, corev1.ResourceRequirements{}
		}, []string{
			`spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing`,
			`spec.initContainers[0].resources.requests: Forbidden: resource requests cannot be removed`,
			`spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed`,
			`spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed`,
		}},
		{"resize of an init container", ValidateResize, func(p *corev1.Pod) { p.Spec.InitContainers[0].Resources.Requests = list("cpu=2") }, nil},
		{"resize with another name", ValidateResize, func(p *corev1.Pod) { main0(p).Name = "x" }, []string{`spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize`}},
		{"resize of the pod", ValidateResize, func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: list("cpu=4"), Limits: list("cpu=4")}
		}, nil},
		{"resize of something else", ValidateResize, func(p *corev1.Pod) { main0(p).Resources.Requests["example.org/x"] = list("a=1")["a"] }, []string{
			`spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources`,
			`spec: Forbidden: only cpu and memory resources are mutable`,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pod := old.DeepCopy()
			tc.change(pod)
			got := texts(tc.check(pod, old))
			if len(got) != len(tc.want) {
				t.Fatalf("got %q, want %q", got, tc.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], tc.want[i]) {
					t.Errorf("got %q, want %q", got[i], tc.want[i])
				}
			}
		})
	}
}

func TestQOSClass(t *testing.T) {
	for _, tc := range []struct {
		limits, requests corev1.ResourceList
		want             corev1.PodQOSClass
	}{
		{nil, nil, corev1.PodQOSBestEffort},
		{nil, list("example.org/gpu=0"), corev1.PodQOSBestEffort},
		{nil, list("cpu=1"), corev1.PodQOSBurstable},
		{list("cpu=1"), nil, corev1.PodQOSBurstable},
		{list("cpu=1", "memory=1Gi"), nil, corev1.PodQOSGuaranteed},
		{list("cpu=1", "memory=1Gi"), list("cpu=500m"), corev1.PodQOSBurstable},
	} {
		p := newPod(func(p *corev1.Pod) {
			main0(p).Resources = corev1.ResourceRequirements{Limits: tc.limits, Requests: tc.requests}
		})
		if got := QOSClass(p); got != tc.want {
			t.Errorf("limits %v, requests %v: %s, want %s", tc.limits, tc.requests, got, tc.want)
		}
	}
}

func TestDefaults(t *testing.T) {
	for image, want := range map[string]corev1.PullPolicy{
		"nginx": "Always", "nginx:latest": "Always", "nginx:1": "IfNotPresent", "r.io:5000/nginx": "Always", "r.io:5000/nginx:1": "IfNotPresent",
		"nginx@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855":        "IfNotPresent",
		"nginx:latest@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855": "Always",
		"UPPER:latest": "IfNotPresent",
	} {
		if got := pullPolicyFor(image); got != want {
			t.Errorf("%s: %s, want %s", image, got, want)
		}
	}
	p := newPod(func(p *corev1.Pod) {
		p.Spec.DeprecatedServiceAccount = "robot"
		p.Spec.Volumes = []corev1.Volume{{Name: "v"}}
		main0(p).Resources.Limits = list("cpu=1", "memory=1.0001")
		main0(p).LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{}}}
		p.Spec.HostNetwork = true
		main0(p).Ports = []corev1.ContainerPort{{ContainerPort: 80}}
	})
	want := &corev1.PodSpec{
		Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		Containers: []corev1.Container{{
			Name: "main", Image: "example.org/web:1", ImagePullPolicy: "IfNotPresent", TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: "File",
			Ports:     []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80, Protocol: "TCP"}},
			Resources: corev1.ResourceRequirements{Limits: list("cpu=1", "memory=1001m"), Requests: list("cpu=1", "memory=1001m")},
			LivenessProbe: &corev1.Probe{
				ProbeHandler:   corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Scheme: "HTTP"}},
				TimeoutSeconds: 1, PeriodSeconds: 10, SuccessThreshold: 1, FailureThreshold: 3,
			},
		}},
		RestartPolicy: "Always", TerminationGracePeriodSeconds: ptr.To[int64](30), DNSPolicy: "ClusterFirst", ServiceAccountName: "robot",
		DeprecatedServiceAccount: "robot", HostNetwork: true, SecurityContext: &corev1.PodSecurityContext{}, SchedulerName: "default-scheduler", EnableServiceLinks: ptr.To(true),
	}
	if diff := cmp.Diff(want, &p.Spec); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

func TestDefaultPodLevelResources(t *testing.T) {
	p := newPod(func(p *corev1.Pod) {
		p.Spec.Resources = &corev1.ResourceRequirements{Limits: list("cpu=2", "memory=1Gi")}
		main0(p).Resources = corev1.ResourceRequirements{Requests: list("cpu=1"), Limits: list("hugepages-2Mi=4Mi")}
	})
	want := &corev1.ResourceRequirements{Limits: list("cpu=2", "memory=1Gi", "hugepages-2Mi=4Mi"), Requests: list("cpu=1", "memory=1Gi", "hugepages-2Mi=4Mi")}
	if diff := cmp.Diff(want, p.Spec.Resources); diff != "" {
		t.Errorf("pod-level resources (-want +got):\n%s", diff)
	}
}

func TestTemplate(t *testing.T) {
	template := &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: " "}}}}
	DefaultTemplate(template)
	path := field.NewPath("spec", "template")
	if got := texts(ValidateTemplate(template, path, Options{})); got != nil {
		t.Errorf("valid template: %q", got)
	}
	template.Spec.RestartPolicy, template.Spec.ActiveDeadlineSeconds = corev1.RestartPolicyNever, ptr.To[int64](1)
	got := texts(ValidateReplicatedTemplate(template, labels.SelectorFromSet(labels.Set{"app": "other"}), "ReplicaSet", path, Options{}))
	want := []string{
		"spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
		`spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`,
		`spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mistakes (-want +got):\n%s", diff)
	}
}

type recorder []string

func (r *recorder) AddWarning(_, text string) { *r = append(*r, text) }

func TestPrepareDropsLoudly(t *testing.T) {
	template := &corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		EvictionResponders: []corev1.EvictionResponder{{}},
		Volumes:            []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Mode: ptr.To[int32](0o700)}}}},
		Containers:         []corev1.Container{{Name: "c", Lifecycle: &corev1.Lifecycle{StopSignal: ptr.To(corev1.SIGUSR1)}, VolumeMounts: []corev1.VolumeMount{{BindMountOptions: []string{"noexec"}}}}},
	}}
	old := template.DeepCopy()
	var warnings recorder
	ctx := warning.WithWarningRecorder(context.Background(), &warnings)
	PrepareTemplate(ctx, template, nil, field.NewPath("spec", "template"))
	want := recorder{
		"spec.template.spec.evictionResponders: dropped, the feature EvictionRequestAPI is not supported",
		"spec.template.spec.volumes[0].emptyDir.mode: dropped, the feature EmptyDirVolumeMode is not supported",
		"spec.template.spec.containers[0].volumeMounts[0].bindMountOptions: dropped, the feature VolumeBindMountOptions is not supported",
		"spec.template.spec.containers[0].lifecycle.stopSignal: dropped, the feature ContainerStopSignals is not supported",
	}
	if diff := cmp.Diff(want, warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if s := template.Spec; s.EvictionResponders != nil || s.Volumes[0].EmptyDir.Mode != nil || s.Containers[0].Lifecycle.StopSignal != nil {
		t.Error("not dropped")
	}
	again := old.DeepCopy()
	PrepareTemplate(ctx, again, old, field.NewPath("spec", "template"))
	if again.Spec.EvictionResponders == nil || len(warnings) != len(want) {
		t.Error("what is stored was dropped")
	}
}

func TestWarnings(t *testing.T) {
	p := newPod(func(p *corev1.Pod) {
		p.Annotations = map[string]string{seccompPod: "x"}
		p.Spec.NodeSelector = map[string]string{"beta.kubernetes.io/os": "linux"}
		p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "a"}, {Name: "a"}, {}}
		p.Spec.HostAliases = []corev1.HostAlias{{IP: "1.2.3.4"}, {IP: "1.2.3.4"}}
		p.Spec.Volumes = []corev1.Volume{{Name: "g", VolumeSource: corev1.VolumeSource{GitRepo: &corev1.GitRepoVolumeSource{Repository: "r"}}}}
		main0(p).Env = []corev1.EnvVar{{Name: "A"}, {Name: "A"}}
		main0(p).Ports = []corev1.ContainerPort{{ContainerPort: 80}, {ContainerPort: 80}}
		main0(p).Resources.Requests = list("memory=100m")
	})
	want := []string{
		`metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the "seccompProfile" field instead`,
		`spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead`,
		`spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+`,
		`spec.hostAliases[1].ip: duplicate ip "1.2.3.4"`,
		`spec.imagePullSecrets[1].name: duplicate name "a"`, `spec.imagePullSecrets[2].name: invalid empty name ""`,
		`spec.containers[0].resources.requests[memory]: fractional byte value "100m" is invalid, must be an integer`,
		`spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply`,
		`spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]`,
	}
	if diff := cmp.Diff(want, PodWarnings(context.Background(), p, nil)); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	// Of a pod it has become 1 already.
	template := &corev1.PodTemplateSpec{Spec: corev1.PodSpec{TerminationGracePeriodSeconds: ptr.To[int64](-1)}}
	want = []string{`template.spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1`}
	if diff := cmp.Diff(want, TemplateWarnings(context.Background(), template, nil, field.NewPath("template"))); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if again := PodWarnings(context.Background(), p, p); len(again) > 0 {
		t.Errorf("an update that changes nothing warns: %q", again)
	}
}

func TestPrepareAppArmor(t *testing.T) {
	p := newPod(func(p *corev1.Pod) {
		p.Annotations = map[string]string{appArmor + "main": "localhost/mine", appArmor + "kept": "unconfined"}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "kept", Image: "i", SecurityContext: &corev1.SecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}}}, corev1.Container{Name: "other", Image: "i"})
	})
	PrepareAppArmor(p)
	if diff := cmp.Diff(&corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: ptr.To("mine")}, main0(p).SecurityContext.AppArmorProfile); diff != "" {
		t.Errorf("from the annotation (-want +got):\n%s", diff)
	}
	if p.Spec.Containers[1].SecurityContext.AppArmorProfile.Type != corev1.AppArmorProfileTypeRuntimeDefault || p.Spec.Containers[2].SecurityContext != nil {
		t.Errorf("containers %+v", p.Spec.Containers[1:])
	}
}
