package podspec

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// newPod is a defaulted pod that is valid, changed by mutate before defaulting.
func newPod(mutate func(p *corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example.org/web:1"}}},
	}
	if mutate != nil {
		mutate(p)
	}
	DefaultPod(p)
	return p
}

func list(items ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for _, item := range items {
		name, amount, _ := strings.Cut(item, "=")
		out[corev1.ResourceName(name)] = resource.MustParse(amount)
	}
	return out
}

func texts(errs field.ErrorList) []string {
	var out []string
	for _, err := range errs {
		out = append(out, err.Error())
	}
	return out
}

type podCase struct {
	name   string
	mutate func(p *corev1.Pod)
	want   []string
}

func runPodCases(t *testing.T, cases []podCase) {
	t.Helper()
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			p := newPod(tc.mutate)
			before := p.DeepCopy()
			if diff := cmp.Diff(tc.want, texts(ValidatePod(p))); diff != "" {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, p); diff != "" {
				t.Errorf("validation modifies the pod:\n%s", diff)
			}
		})
	}
}

func main0(p *corev1.Pod) *corev1.Container { return &p.Spec.Containers[0] }

func TestContainers(t *testing.T) {
	runPodCases(t, []podCase{
		{"valid", nil, nil},
		{"no containers", func(p *corev1.Pod) { p.Spec.Containers = nil }, []string{`spec.containers: Required value`}},
		{"no name, no image", func(p *corev1.Pod) { main0(p).Name, main0(p).Image = "", "" }, []string{
			`spec.containers[0].name: Required value`, `spec.containers[0].image: Required value`,
		}},
		{"bad name", func(p *corev1.Pod) { main0(p).Name = "A_b" }, []string{
			`spec.containers[0].name: Invalid value: "A_b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
		}},
		{"name twice", func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, *main0(p)) }, []string{
			`spec.containers[1].name: Duplicate value: "main"`,
		}},
		{"blank around image", func(p *corev1.Pod) { main0(p).Image = " x" }, []string{
			`spec.containers[0].image: Invalid value: " x": must not have leading or trailing whitespace`,
		}},
		{"pull policy", func(p *corev1.Pod) { main0(p).ImagePullPolicy = "Sometimes" }, []string{
			`spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"`,
		}},
		{"termination message policy", func(p *corev1.Pod) { main0(p).TerminationMessagePolicy = "x" }, []string{
			`spec.containers[0].terminationMessagePolicy: Unsupported value: "x": supported values: "File", "FallbackToLogsOnError"`,
		}},
		{"ports", func(p *corev1.Pod) {
			main0(p).Ports = []corev1.ContainerPort{
				{Name: "web", ContainerPort: 80}, {Name: "web", ContainerPort: 81}, {ContainerPort: 0}, {ContainerPort: 70000, HostPort: -1, Protocol: "ICMP"},
			}
		}, []string{
			`spec.containers[0].ports[1].name: Duplicate value: "web"`,
			`spec.containers[0].ports[2].containerPort: Required value`,
			`spec.containers[0].ports[3].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive`,
			`spec.containers[0].ports[3].hostPort: Invalid value: -1: must be between 1 and 65535, inclusive`,
			`spec.containers[0].ports[3].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"`,
		}},
		{"host ports in conflict", func(p *corev1.Pod) {
			main0(p).Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}, {ContainerPort: 81, HostPort: 80}}
		}, []string{`spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//80"`}},
		{"host network", func(p *corev1.Pod) {
			p.Spec.HostNetwork = true
			main0(p).Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 81}}
		}, []string{"spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true"}},
		{"restart rules", func(p *corev1.Pod) {
			main0(p).RestartPolicyRules = []corev1.ContainerRestartRule{{Action: "Stop"}}
		}, []string{
			`spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used`,
			`spec.containers[0].restartPolicyRules[0].action: Unsupported value: "Stop": supported values: "Restart", "RestartAllContainers"`,
			`spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified`,
		}},
		{"init container with a probe", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{
				Name: "main", Image: "i", ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(1)}}},
				Lifecycle: &corev1.Lifecycle{},
			}}
		}, []string{
			`spec.initContainers[0].name: Duplicate value: "main"`,
			`spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always`,
			`spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always`,
		}},
		{"sidecar with a probe", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{
				Name: "side", Image: "i", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways),
				ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(1)}}},
			}}
		}, nil},
		{"ephemeral container on create", func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "i"}}}
		}, []string{`spec.ephemeralContainers: Forbidden: cannot be set on create`}},
	})
}

func TestEnvironment(t *testing.T) {
	ref := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	runPodCases(t, []podCase{
		{"relaxed names", func(p *corev1.Pod) { main0(p).Env = []corev1.EnvVar{{Name: "a.b-c d"}} }, nil},
		{"bad names", func(p *corev1.Pod) { main0(p).Env = []corev1.EnvVar{{Name: ""}, {Name: "a=b"}} }, []string{
			`spec.containers[0].env[0].name: Required value`,
			`spec.containers[0].env[1].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII characters other than '='`,
		}},
		{"every source", func(p *corev1.Pod) {
			main0(p).Env = []corev1.EnvVar{
				{Name: "A", ValueFrom: ref("metadata.labels['app']")},
				{Name: "B", ValueFrom: ref("status.podIPs")},
				{Name: "C", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu", Divisor: resource.MustParse("1m")}}},
				{Name: "D", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "k"}}},
				{Name: "E", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "k"}}},
			}
		}, nil},
		{"bad sources", func(p *corev1.Pod) {
			main0(p).Env = []corev1.EnvVar{
				{Name: "A", ValueFrom: ref("spec.foo")},
				{Name: "B", ValueFrom: ref("status.phase")},
				{Name: "C", ValueFrom: ref("metadata.name['x']")},
				{Name: "D", ValueFrom: &corev1.EnvVarSource{}},
				{Name: "E", Value: "v", ValueFrom: ref("metadata.name")},
				{Name: "F", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.disk"}}},
				{Name: "G", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu", Divisor: resource.MustParse("10m")}}},
				{Name: "H", ValueFrom: &corev1.EnvVarSource{FieldRef: ref("metadata.name").FieldRef, SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "k/"}}},
			}
		}, []string{
			`spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.foo": error converting fieldPath: field label not supported: spec.foo`,
			`spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Unsupported value: "status.phase": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"`,
			`spec.containers[0].env[2].valueFrom.fieldRef.fieldPath: Invalid value: "metadata.name['x']": error converting fieldPath: field label does not support subscript: metadata.name['x']`,
			"spec.containers[0].env[3].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
			"spec.containers[0].env[4].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
			`spec.containers[0].env[5].valueFrom.resourceFieldRef.resource: Unsupported value: "limits.disk": supported values: "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"`,
			`spec.containers[0].env[6].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.cpu": only divisor's values 1m and 1 are supported with the cpu resource`,
			`spec.containers[0].env[7].valueFrom.secretKeyRef.key: Invalid value: "k/": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')`,
			`spec.containers[0].env[7].valueFrom: Invalid value: "": may not have more than one field specified at a time`,
		}},
		{"env from", func(p *corev1.Pod) {
			main0(p).EnvFrom = []corev1.EnvFromSource{
				{},
				{ConfigMapRef: &corev1.ConfigMapEnvSource{}},
				{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}, ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}},
			}
		}, []string{
			"spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
			`spec.containers[0].envFrom[1].configMapRef.name: Required value`,
			`spec.containers[0].envFrom: Invalid value: "": may not have more than one field specified at a time`,
		}},
	})
}

func TestProbes(t *testing.T) {
	http := func(path string, port intstr.IntOrString) corev1.ProbeHandler {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: port}}
	}
	runPodCases(t, []podCase{
		{"valid", func(p *corev1.Pod) {
			main0(p).LivenessProbe = &corev1.Probe{ProbeHandler: http("/", intstr.FromString("web"))}
			main0(p).ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}, SuccessThreshold: 2}
			main0(p).StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 8080}}}
		}, nil},
		{"no handler", func(p *corev1.Pod) { main0(p).LivenessProbe = &corev1.Probe{} }, []string{
			`spec.containers[0].livenessProbe: Required value: must specify a handler type`,
		}},
		{"two handlers", func(p *corev1.Pod) {
			main0(p).LivenessProbe = &corev1.Probe{ProbeHandler: http("/", intstr.FromInt32(80)), SuccessThreshold: 2}
			main0(p).LivenessProbe.Exec = &corev1.ExecAction{Command: []string{"x"}}
		}, []string{
			`spec.containers[0].livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type`,
			`spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1`,
		}},
		{"numbers", func(p *corev1.Pod) {
			main0(p).ReadinessProbe = &corev1.Probe{
				ProbeHandler: http("/", intstr.FromInt32(0)), InitialDelaySeconds: -1, PeriodSeconds: -2, TerminationGracePeriodSeconds: ptr.To[int64](0),
			}
			main0(p).ReadinessProbe.HTTPGet.Scheme = "FTP"
		}, []string{
			`spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive`,
			`spec.containers[0].readinessProbe.httpGet.scheme: Unsupported value: "FTP": supported values: "HTTP", "HTTPS"`,
			`spec.containers[0].readinessProbe.initialDelaySeconds: Invalid value: -1: must be greater than or equal to 0`,
			`spec.containers[0].readinessProbe.periodSeconds: Invalid value: -2: must be greater than or equal to 0`,
			`spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0`,
			`spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 0: must not be set for readinessProbes`,
		}},
		{"hooks", func(p *corev1.Pod) {
			main0(p).Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{}}, PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 31}}}
		}, []string{
			`spec.containers[0].lifecycle.postStart.exec.command: Required value`,
			`spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)`,
		}},
	})
}

func TestResources(t *testing.T) {
	set := func(limits, requests corev1.ResourceList) func(p *corev1.Pod) {
		return func(p *corev1.Pod) {
			main0(p).Resources = corev1.ResourceRequirements{Limits: limits, Requests: requests}
		}
	}
	runPodCases(t, []podCase{
		{"valid", set(list("cpu=1", "memory=1Gi", "example.org/gpu=2"), list("cpu=500m", "example.org/gpu=2")), nil},
		{"request above limit", set(list("cpu=1"), list("cpu=2")), []string{
			`spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1`,
		}},
		{"negative", set(nil, list("cpu=-1")), []string{
			`spec.containers[0].resources.requests[cpu]: Invalid value: "-1": must be greater than or equal to 0`,
		}},
		{"unknown name", set(nil, list("disk=1")), []string{
			`spec.containers[0].resources.requests[disk]: Invalid value: "disk": must be a standard resource type or fully qualified`,
			`spec.containers[0].resources.requests[disk]: Invalid value: "disk": must be a standard resource for containers`,
		}},
		{"quota's name", set(nil, list("pods=1")), []string{
			`spec.containers[0].resources.requests[pods]: Invalid value: "pods": must be a standard resource for containers`,
		}},
		{"fraction of a device", set(list("example.org/gpu=500m"), nil), []string{
			`spec.containers[0].resources.limits[example.org/gpu]: Invalid value: "500m": must be an integer`,
			`spec.containers[0].resources.requests[example.org/gpu]: Invalid value: "500m": must be an integer`,
		}},
		{"device without limit", set(nil, list("example.org/gpu=1")), []string{
			`spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources`,
		}},
		{"device limit differs", set(list("example.org/gpu=2"), list("example.org/gpu=1")), []string{
			`spec.containers[0].resources.requests: Invalid value: "1": must be equal to example.org/gpu limit of 2`,
		}},
		{"huge pages alone", set(list("hugepages-2Mi=4Mi"), nil), []string{
			`spec.containers[0].resources: Forbidden: HugePages require cpu or memory`,
		}},
		{"huge pages in part", set(list("hugepages-2Mi=3Mi", "cpu=1"), nil), []string{
			`spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi`,
			`spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi`,
		}},
		{"claims", func(p *corev1.Pod) {
			p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "a", ResourceClaimName: ptr.To("x")}, {Name: "b"}}
			main0(p).Resources.Claims = []corev1.ResourceClaim{{Name: "a"}, {Name: "c"}, {Name: "a"}}
		}, []string{
			"spec.resourceClaims[1]: Invalid value: {\"name\":\"b\"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
			`spec.containers[0].resources.claims[1]: Not found: "c": must be one of the names in pod.spec.resourceClaims: a, b`,
			`spec.containers[0].resources.claims[2]: Duplicate value: "a"`,
		}},
		{"pod level", func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: list("cpu=1", "ephemeral-storage=1Gi"), Limits: list("memory=1Gi")}
			main0(p).Resources = corev1.ResourceRequirements{Requests: list("cpu=2"), Limits: list("memory=2Gi")}
		}, []string{
			`spec.resources.requests[ephemeral-storage]: Unsupported value: "ephemeral-storage": supported values: "cpu", "hugepages-", "memory"`,
			`spec.resources.requests: Invalid value: "2Gi": must be less than or equal to memory limit of 1Gi`,
			`spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 2`,
			`spec.resources.containers[0][memory].limits: Invalid value: "2Gi": must be less than or equal to pod limits of 1Gi`,
		}},
		{"resize policy", func(p *corev1.Pod) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			main0(p).ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: "cpu", RestartPolicy: corev1.RestartContainer}, {ResourceName: "gpu", RestartPolicy: "x"}}
		}, []string{
			"spec.containers[0].resizePolicy[0].restartPolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when `restartPolicy` is 'Never'",
			`spec.containers[0].resizePolicy[1].resourceName: Unsupported value: "gpu": supported values: "cpu", "memory"`,
			`spec.containers[0].resizePolicy[1].restartPolicy: Unsupported value: "x": supported values: "NotRequired", "RestartContainer"`,
			"spec.containers[0].resizePolicy[1].restartPolicy: Invalid value: \"x\": must be 'NotRequired' when `restartPolicy` is 'Never'",
		}},
	})
}

func TestVolumes(t *testing.T) {
	volume := func(name string, source corev1.VolumeSource) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: source}
	}
	volumes := func(v ...corev1.Volume) func(p *corev1.Pod) { return func(p *corev1.Pod) { p.Spec.Volumes = v } }
	secret := corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}
	mount := func(m ...corev1.VolumeMount) func(p *corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{volume("data", corev1.VolumeSource{}), volume("s", secret)}
			main0(p).VolumeMounts = m
		}
	}
	runPodCases(t, []podCase{
		{"valid", mount(corev1.VolumeMount{Name: "data", MountPath: "/data", SubPath: "a/b"}, corev1.VolumeMount{Name: "s", MountPath: "/s", ReadOnly: true}), nil},
		{"unknown volume", mount(corev1.VolumeMount{Name: "nope", MountPath: "/data"}), []string{`spec.containers[0].volumeMounts[0].name: Not found: "nope"`}},
		{"mistakes of mounts", mount(
			corev1.VolumeMount{Name: "data", MountPath: "/data"}, corev1.VolumeMount{Name: "s", MountPath: "/data"},
			corev1.VolumeMount{Name: "data", MountPath: "/x", SubPath: "../up"}, corev1.VolumeMount{Name: "data", MountPath: "/y", SubPath: "/abs"},
			corev1.VolumeMount{Name: "data", MountPath: "/z", SubPath: "a", SubPathExpr: "b"}, corev1.VolumeMount{Name: "data"},
			corev1.VolumeMount{Name: "data", MountPath: "/p", MountPropagation: ptr.To(corev1.MountPropagationBidirectional)},
			corev1.VolumeMount{Name: "data", MountPath: "/r", RecursiveReadOnly: ptr.To(corev1.RecursiveReadOnlyEnabled)},
		), []string{
			`spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/data": must be unique`,
			`spec.containers[0].volumeMounts.subPath: Invalid value: "../up": must not contain '..'`,
			`spec.containers[0].volumeMounts.subPath: Invalid value: "/abs": must be a relative path`,
			`spec.containers[0].volumeMounts[4].subPathExpr: Invalid value: "b": subPathExpr and subPath are mutually exclusive`,
			`spec.containers[0].volumeMounts[5].mountPath: Required value`,
			`spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers`,
			`spec.containers[0].volumeMounts[7].recursiveReadOnly: Forbidden: may only be specified when readOnly is true`,
		}},
		{"devices", func(p *corev1.Pod) {
			mount()(p)
			p.Spec.Volumes = append(p.Spec.Volumes, volume("pvc", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}))
			main0(p).VolumeDevices = []corev1.VolumeDevice{{Name: "pvc", DevicePath: "/dev/a"}, {Name: "data", DevicePath: "/dev/../b"}}
		}, []string{
			`spec.containers[0].volumeDevices[1].name: Invalid value: "data": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode`,
			`spec.containers[0].volumeDevices[1].devicePath: Invalid value: "/dev/../b": can not contain backsteps ('..')`,
		}},
		{"two sources", volumes(volume("v", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}, Secret: secret.Secret})), []string{
			`spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type`,
		}},
		{"names", volumes(volume("v", secret), volume("v", secret), volume("", secret), volume("V", secret)), []string{
			`spec.volumes[1].name: Duplicate value: "v"`, `spec.volumes[2].name: Required value`,
			`spec.volumes[3].name: Invalid value: "V": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
		}},
		{"hostPath", volumes(volume("a", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{}}), volume("b", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/a/../b", Type: ptr.To[corev1.HostPathType]("Pipe")}})), []string{
			`spec.volumes[0].hostPath.path: Required value`, `spec.volumes[1].hostPath.path: Invalid value: "/a/../b": must not contain '..'`,
			`spec.volumes[1].hostPath.type: Unsupported value: "Pipe": supported values: "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"`,
		}},
		{"secret", volumes(volume("a", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{DefaultMode: ptr.To[int32](0o1777), Items: []corev1.KeyToPath{{Key: "k", Path: "/x"}, {Key: "", Path: "..x"}, {Key: "k", Path: "a/../b"}}}})), []string{
			`spec.volumes[0].secret.secretName: Required value`,
			`spec.volumes[0].secret.defaultMode: Invalid value: 1023: must be a number between 0 and 0777 (octal), both inclusive`,
			`spec.volumes[0].secret.items[0].path: Invalid value: "/x": must be a relative path`,
			`spec.volumes[0].secret.items[1].key: Required value`,
			`spec.volumes[0].secret.items[1].path: Invalid value: "..x": must not start with '..'`,
			`spec.volumes[0].secret.items[2].path: Invalid value: "a/../b": must not contain '..'`,
		}},
		{"projected", volumes(volume("a", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](60)}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}, Items: []corev1.KeyToPath{{Key: "k", Path: "token"}}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "x", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}}}, Secret: &corev1.SecretProjection{}},
		}}})), []string{
			`spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes`,
			`spec.volumes[0].projected.sources[1].configMap: Invalid value: "c": conflicting duplicate paths`,
			`spec.volumes[0].projected.sources[2].secret.name: Required value`,
			`spec.volumes[0].projected.sources[2].downwardAPI: Forbidden: may not specify more than 1 volume type`,
		}},
		{"ephemeral", volumes(volume("a", corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}), volume("b", corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
			VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{"RWO"}}},
		}})), []string{
			`spec.volumes[0].ephemeral.volumeClaimTemplate: Required value`,
			`spec.volumes[1].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set for an ephemeral volume`,
			`spec.volumes[1].ephemeral.volumeClaimTemplate.spec.accessModes: Unsupported value: "RWO": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"`,
			`spec.volumes[1].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value`,
		}},
		{"others", volumes(
			volume("nfs", corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Path: "rel"}}), volume("pvc", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}}),
			volume("csi", corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{}}), volume("image", corev1.VolumeSource{Image: &corev1.ImageVolumeSource{}}),
			volume("empty", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: ptr.To(resource.MustParse("-1"))}}),
		), []string{
			`spec.volumes[0].nfs.server: Required value`, `spec.volumes[0].nfs.path: Invalid value: "rel": must be an absolute path`,
			`spec.volumes[1].persistentVolumeClaim.claimName: Required value`,
			`spec.volumes[2].csi.driver: Required value`,
			`spec.volumes[2].csi.driver: Invalid value: "": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
			`spec.volumes[3].image.reference: Required value`,
			`spec.volumes[4].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity`,
		}},
	})
}
