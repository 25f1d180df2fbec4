package core

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/events"
)

func list(items ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for _, item := range items {
		name, amount, _ := strings.Cut(item, "=")
		out[corev1.ResourceName(name)] = resource.MustParse(amount)
	}
	return out
}

// check compares the mistakes of a creation, or of an update if old is given, after defaulting and preparation. Of diffs only
// the first line is compared.
func check(t *testing.T, k *kind.Kind, obj, old client.Object, want []string) {
	t.Helper()
	ctx := context.Background()
	prepare := func(o client.Object) {
		if k.Default != nil {
			k.Default(o)
		}
	}
	prepare(obj)
	var got []string
	if old == nil {
		k.PrepareForCreate(ctx, obj)
		got = texts(k.Validate(ctx, obj))
	} else {
		prepare(old)
		k.PrepareForUpdate(ctx, obj, old)
		got = texts(k.ValidateUpdate(ctx, obj, old))
	}
	for i := range got {
		got[i], _, _ = strings.Cut(got[i], "\n")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mistakes (-want +got):\n%s", diff)
	}
}

func TestNodes(t *testing.T) {
	k := kindOf(t, Group(testOptions(t)), "Node")
	old := &corev1.Node{Spec: corev1.NodeSpec{PodCIDR: "10.0.0.0/24", ProviderID: "a"}}
	for _, tc := range []struct {
		name     string
		obj, old *corev1.Node
		want     []string
	}{
		{"valid", &corev1.Node{Spec: corev1.NodeSpec{PodCIDR: "10.0.0.0/24", Taints: []corev1.Taint{{Key: "a", Effect: "NoSchedule"}, {Key: "a", Effect: "NoExecute"}}}}, nil, nil},
		{"taints", &corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "a", Effect: "NoSchedule"}, {Key: "a", Value: "b", Effect: "NoSchedule"}, {Key: "x"}, {Key: "y", Effect: "No"}}}}, nil, []string{
			`spec.taints[1]: Duplicate value: {"key":"a","value":"b","effect":"NoSchedule"}`, `spec.taints[2].effect: Required value`,
			`spec.taints[3].effect: Unsupported value: "No": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"`,
		}},
		{"ranges", &corev1.Node{Spec: corev1.NodeSpec{PodCIDRs: []string{"10.0.0.0/24", "10.1.0.0/24"}}}, nil, []string{
			`spec.podCIDRs: Invalid value: ["10.0.0.0/24","10.1.0.0/24"]: may specify no more than one CIDR for each IP family`,
		}},
		{"labels and taints change", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: corev1.NodeSpec{PodCIDR: "10.0.0.0/24", ProviderID: "a", Unschedulable: true}}, old, nil},
		{"range and provider change", &corev1.Node{Spec: corev1.NodeSpec{PodCIDR: "10.9.0.0/24", ProviderID: "b"}}, old, []string{
			`spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid`,
			`spec.providerID: Forbidden: node updates may not change providerID except from "" to valid`,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.old == nil {
				check(t, k, tc.obj, nil, tc.want)
			} else {
				check(t, k, tc.obj, tc.old.DeepCopy(), tc.want)
			}
		})
	}
	// A kubelet registers its node with a status, and reports it by another door later.
	n := &corev1.Node{Status: corev1.NodeStatus{Capacity: list("cpu=2")}}
	check(t, k, n, nil, nil)
	if n.Status.Allocatable.Cpu().Value() != 2 {
		t.Errorf("status of a new node: %+v", n.Status)
	}
	dup := &corev1.Node{Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: "Hostname", Address: "a"}, {Type: "Hostname", Address: "a"}}}}
	if got := texts(k.Status.Validate(context.Background(), dup, n)); len(got) != 1 || got[0] != `status.addresses[1]: Duplicate value: {"type":"Hostname","address":"a"}` {
		t.Errorf("addresses: %q", got)
	}
}

func TestNamespaces(t *testing.T) {
	k := kindOf(t, Group(testOptions(t)), "Namespace")
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{corev1.LabelMetadataName: "lie"}}, Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{"example.org/x"}}}
	k.Default(ns)
	k.PrepareForCreate(context.Background(), ns)
	if ns.Labels[corev1.LabelMetadataName] != "a" || len(ns.Spec.Finalizers) != 2 || !k.HoldsRemoval(ns) {
		t.Errorf("created %+v", ns)
	}
	for phase, want := range map[corev1.NamespacePhase][]string{
		corev1.NamespaceActive:      nil,
		corev1.NamespaceTerminating: {"status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"},
	} {
		now := ns.DeepCopy()
		now.Status.Phase = phase
		if diff := cmp.Diff(want, texts(k.Status.Validate(context.Background(), now, ns))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", phase, diff)
		}
	}
	bad := ns.DeepCopy()
	bad.Spec.Finalizers = []corev1.FinalizerName{"a b"}
	if got := texts(k.Subresources["finalize"].Validate(context.Background(), bad, ns)); len(got) == 0 || !strings.HasPrefix(got[0], `spec.finalizers[0]: Invalid value: "a b": `) {
		t.Errorf("finalizers: %q", got)
	}
	if messages := k.NameValidation("A.b", false); len(messages) == 0 {
		t.Error("a name that is no label is accepted")
	}
}

func TestConfigMapsAndSecrets(t *testing.T) {
	group := Group(testOptions(t))
	m, s := kindOf(t, group, "ConfigMap"), kindOf(t, group, "Secret")
	const key = ": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
	big := strings.Repeat("x", corev1.MaxSecretSize+1)
	frozen := &corev1.ConfigMap{Immutable: ptr.To(true), Data: map[string]string{"a": "b"}}
	for _, tc := range []struct {
		name     string
		k        *kind.Kind
		obj, old client.Object
		want     []string
	}{
		{"config map", m, &corev1.ConfigMap{Data: map[string]string{"a/b": "", "c": ""}, BinaryData: map[string][]byte{"c": nil}}, nil, []string{
			`data[a/b]: Invalid value: "a/b"` + key, `data[c]: Invalid value: "c": duplicate of key present in binaryData`,
		}},
		{"large config map", m, &corev1.ConfigMap{Data: map[string]string{"a": big}}, nil, []string{`[]: Too long: may not be more than 1048576 bytes`}},
		{"frozen config map", m, &corev1.ConfigMap{Data: map[string]string{"a": "c"}}, frozen, []string{
			"immutable: Forbidden: field is immutable when `immutable` is set", "data: Forbidden: field is immutable when `immutable` is set",
		}},
		{"frozen config map, labelled", m, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"x": "y"}}, Immutable: ptr.To(true), Data: map[string]string{"a": "b"}}, frozen, nil},
		{"secret", s, &corev1.Secret{Data: map[string][]byte{"a b": nil}}, nil, []string{`data[a b]: Invalid value: "a b"` + key}},
		{"large secret", s, &corev1.Secret{StringData: map[string]string{"a": big}}, nil, []string{`data: Too long: may not be more than 1048576 bytes`}},
		{"token", s, &corev1.Secret{Type: corev1.SecretTypeServiceAccountToken}, nil, []string{`metadata.annotations[kubernetes.io/service-account.name]: Required value`}},
		{"docker config", s, &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{".dockerconfigjson": []byte("x")}}, nil, []string{
			`data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": invalid character 'x' looking for beginning of value`,
		}},
		{"no docker config", s, &corev1.Secret{Type: corev1.SecretTypeDockercfg}, nil, []string{`data[.dockercfg]: Required value`}},
		{"basic auth", s, &corev1.Secret{Type: corev1.SecretTypeBasicAuth}, nil, []string{`data[username]: Required value`, `data[password]: Required value`}},
		{"basic auth without user", s, &corev1.Secret{Type: corev1.SecretTypeBasicAuth, StringData: map[string]string{"password": "x"}}, nil, nil},
		{"ssh", s, &corev1.Secret{Type: corev1.SecretTypeSSHAuth}, nil, []string{`data[ssh-privatekey]: Required value`}},
		{"tls", s, &corev1.Secret{Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": nil}}, nil, []string{`data[tls.key]: Required value`}},
		{"own type", s, &corev1.Secret{Type: "example.org/any"}, nil, nil},
		{"type changes", s, &corev1.Secret{Type: "x"}, &corev1.Secret{Type: "y"}, []string{`type: Invalid value: "x": field is immutable`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.old == nil {
				check(t, tc.k, tc.obj, nil, tc.want)
			} else {
				check(t, tc.k, tc.obj, tc.old.DeepCopyObject().(client.Object), tc.want)
			}
		})
	}
}

func TestEvents(t *testing.T) {
	k := kindOf(t, Group(testOptions(t)), "Event")
	check(t, k, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "a"}, InvolvedObject: corev1.ObjectReference{Namespace: "a"}}, nil, nil)
	check(t, k, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default"}, InvolvedObject: corev1.ObjectReference{Kind: "Node"}}, nil, nil)
	check(t, k, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "a"}, InvolvedObject: corev1.ObjectReference{Namespace: "b"}}, nil, []string{
		`involvedObject.namespace: Invalid value: "b": does not match event.namespace`,
	})
	want := []string{
		`eventTime: Required value`, `type: Invalid value: "": has invalid value: Loud`, `reportingController: Required value`, `reportingInstance: Required value`, `action: Required value`,
		`reason: Invalid value: "": can have at most 128 characters`, `message: Invalid value: "": can have at most 1024 characters`, `count: Invalid value: "": needs to be unset`,
	}
	if diff := cmp.Diff(want, texts(events.Validate(&corev1.Event{Type: "Loud", Count: 1, Reason: strings.Repeat("x", 129), Message: strings.Repeat("x", 1025)}, nil))); diff != "" {
		t.Errorf("events.k8s.io (-want +got):\n%s", diff)
	}
	old := &corev1.Event{Reason: "a", Series: &corev1.EventSeries{Count: 1}}
	now := old.DeepCopy()
	now.Series.Count = 2
	if got := texts(events.Validate(now, old)); got != nil {
		t.Errorf("a series goes on: %q", got)
	}
	now.Reason = "b"
	if diff := cmp.Diff([]string{`reason: Invalid value: "b": field is immutable`}, texts(events.Validate(now, old))); diff != "" {
		t.Errorf("another reason (-want +got):\n%s", diff)
	}
	if ttl := k.TTLSeconds(old); ttl != 3600 {
		t.Errorf("kept for %d seconds", ttl)
	}
}

func TestEndpoints(t *testing.T) {
	bad := func() *corev1.Endpoints {
		return &corev1.Endpoints{Subsets: []corev1.EndpointSubset{
			{Ports: []corev1.EndpointPort{{Port: 80}}},
			{
				Addresses: []corev1.EndpointAddress{{IP: "127.0.0.1"}, {IP: "x", Hostname: "A"}}, NotReadyAddresses: []corev1.EndpointAddress{{IP: "10.0.0.1", NodeName: ptr.To("N")}},
				Ports: []corev1.EndpointPort{{Port: 0, Protocol: "X"}, {Name: "a", Port: 1}},
			},
		}}
	}
	name := `a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`
	loopback := `subsets[1].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)`
	rest := []string{
		`subsets[1].addresses[1].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`, `subsets[1].addresses[1].hostname: Invalid value: "A": ` + name,
		`subsets[1].addresses[1].ip: Invalid value: "x": must be a valid IP address`,
		`subsets[1].notReadyAddresses[0].nodeName: Invalid value: "N": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
		`subsets[1].ports[0].name: Required value`, `subsets[1].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive`,
		`subsets[1].ports[0].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"`,
	}
	first := "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"
	opts := testOptions(t)
	check(t, kindOf(t, Group(opts), "Endpoints"), bad(), nil, append([]string{first, loopback}, rest...))
	opts.AllowLoopback = true
	check(t, kindOf(t, Group(opts), "Endpoints"), bad(), nil, append([]string{first}, rest...))
}

func TestVolumesAndClaims(t *testing.T) {
	group := Group(testOptions(t))
	pv, pvc := kindOf(t, group, "PersistentVolume"), kindOf(t, group, "PersistentVolumeClaim")
	volume := func(mutate func(s *corev1.PersistentVolumeSpec)) *corev1.PersistentVolume {
		v := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{
			Capacity: list("storage=1Gi"), AccessModes: []corev1.PersistentVolumeAccessMode{"ReadWriteOnce"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/data"}},
		}}
		if mutate != nil {
			mutate(&v.Spec)
		}
		return v
	}
	claim := func(mutate func(c *corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
		c := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{"ReadWriteOnce"}, Resources: corev1.VolumeResourceRequirements{Requests: list("storage=2Gi")}, StorageClassName: ptr.To("fast"),
		}}
		if mutate != nil {
			mutate(c)
		}
		return c
	}
	bound := claim(func(c *corev1.PersistentVolumeClaim) {
		c.Spec.VolumeName, c.Status.Phase, c.Status.Capacity = "v", corev1.ClaimBound, list("storage=2Gi")
	})
	changed := func(mutate func(c *corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
		c := bound.DeepCopy()
		mutate(c)
		return c
	}
	const frozen = `spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims`
	for _, tc := range []struct {
		name     string
		k        *kind.Kind
		obj, old client.Object
		want     []string
	}{
		{"volume", pv, volume(nil), nil, nil},
		{"empty volume", pv, &corev1.PersistentVolume{}, nil, []string{`spec.accessModes: Required value`, `spec.capacity: Required value`, `spec: Required value: must specify a volume type`}},
		{"bad volume", pv, volume(func(s *corev1.PersistentVolumeSpec) {
			s.Capacity, s.AccessModes = list("storage=0", "cpu=1"), []corev1.PersistentVolumeAccessMode{"ReadWriteOncePod", "ReadOnlyMany", "X"}
			s.NFS, s.PersistentVolumeReclaimPolicy, s.VolumeMode = &corev1.NFSVolumeSource{}, "Burn", ptr.To[corev1.PersistentVolumeMode]("Tape")
		}), nil, []string{
			`spec.accessModes: Unsupported value: "X": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"`,
			`spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes`,
			`spec.capacity: Unsupported value: {"cpu":"1","storage":"0"}: supported values: "storage"`,
			`spec.capacity[storage]: Invalid value: "0": must be greater than zero`,
			`spec.persistentVolumeReclaimPolicy: Unsupported value: "Burn": supported values: "Delete", "Recycle", "Retain"`,
			`spec.nfs: Forbidden: may not specify more than 1 volume type`,
			`spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem"`,
		}},
		{"local volume", pv, volume(func(s *corev1.PersistentVolumeSpec) {
			s.PersistentVolumeSource = corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/a/../b"}}
		}), nil, []string{`spec.local.path: Invalid value: "/a/../b": must not contain '..'`, `spec.nodeAffinity: Required value: Local volume requires node affinity`}},
		{"volume's source changes", pv, volume(func(s *corev1.PersistentVolumeSpec) { s.HostPath.Path = "/x" }), volume(nil), []string{
			`spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation`,
		}},
		{"claim", pvc, claim(nil), nil, nil},
		{"empty claim", pvc, &corev1.PersistentVolumeClaim{}, nil, []string{`spec.accessModes: Required value: at least 1 access mode is required`, `spec.resources[storage]: Required value`}},
		{"claim's source", pvc, claim(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "Pod"}
		}), nil, []string{
			`spec.dataSource.name: Required value`, `spec.dataSource: Invalid value: "Pod": must be 'PersistentVolumeClaim' when referencing the default apiGroup`,
			`spec.dataSourceRef.name: Required value`, `spec.dataSourceRef: Invalid value: "Pod": must be 'PersistentVolumeClaim' when referencing the default apiGroup`,
		}},
		{"claim is bound", pvc, claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "v" }), claim(nil), nil},
		{"bound claim grows", pvc, changed(func(c *corev1.PersistentVolumeClaim) { c.Spec.Resources.Requests = list("storage=3Gi") }), bound, nil},
		{"bound claim shrinks", pvc, changed(func(c *corev1.PersistentVolumeClaim) { c.Spec.Resources.Requests = list("storage=1Gi") }), bound, []string{
			`spec.resources.requests.storage: Forbidden: field can not be less than status.capacity`,
		}},
		{"bound claim changes its class", pvc, changed(func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = ptr.To("slow") }), bound, []string{frozen}},
		{"free claim grows", pvc, claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.Resources.Requests = list("storage=3Gi") }), claim(nil), []string{frozen}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.old == nil {
				check(t, tc.k, tc.obj, nil, tc.want)
			} else {
				check(t, tc.k, tc.obj, tc.old.DeepCopyObject().(client.Object), tc.want)
			}
		})
	}
}

func TestLimitsAndQuotas(t *testing.T) {
	group := Group(testOptions(t))
	limits, quota := kindOf(t, group, "LimitRange"), kindOf(t, group, "ResourceQuota")
	l := &corev1.LimitRange{Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: "Container", Max: list("cpu=2"), Min: list("memory=1Gi")}}}}
	check(t, limits, l, nil, nil)
	if diff := cmp.Diff(corev1.LimitRangeItem{Type: "Container", Max: list("cpu=2"), Min: list("memory=1Gi"), Default: list("cpu=2"), DefaultRequest: list("cpu=2", "memory=1Gi")}, l.Spec.Limits[0]); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
	check(t, limits, &corev1.LimitRange{Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
		{Type: "Pod", Default: list("cpu=1"), Min: list("cpu=2"), Max: list("cpu=1")},
		{Type: "Pod"},
		{Type: "Thing"},
		{Type: "PersistentVolumeClaim"},
		{Type: "Container", Max: list("cpu=1"), Default: list("cpu=2"), DefaultRequest: list("cpu=3"), MaxLimitRequestRatio: list("cpu=500m")},
	}}}, nil, []string{
		"spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
		`spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1`,
		`spec.limits[0].default[cpu]: Invalid value: "2": min value 2 is greater than default value 1`,
		`spec.limits[1].type: Duplicate value: "Pod"`,
		`spec.limits[2].type: Invalid value: "Thing": must be a standard limit type or fully qualified`,
		`spec.limits[3]: Required value: either minimum or maximum storage value is required, but neither was provided`,
		`spec.limits[4].defaultRequest[cpu]: Invalid value: "3": default request value 3 is greater than max value 1`,
		`spec.limits[4].defaultRequest[cpu]: Invalid value: "3": default request value 3 is greater than default limit value 2`,
		`spec.limits[4].default[cpu]: Invalid value: "2": default value 2 is greater than max value 1`,
		`spec.limits[4].maxLimitRequestRatio[cpu]: Invalid value: "500m": ratio 500m is less than 1`,
	})
	check(t, quota, &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Hard: list("pods=3", "requests.cpu=1", "count/deployments.apps=2", "hugepages-2Mi=2Mi")}}, nil, nil)
	check(t, quota, &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{
		Hard: list("pods=-1", "cpu=1", "disk=1", "services=500m"), Scopes: []corev1.ResourceQuotaScope{"BestEffort", "NotBestEffort", "Mine"},
	}}, nil, []string{
		`spec.hard[disk]: Invalid value: "disk": must be a standard resource type or fully qualified`,
		`spec.hard[disk]: Invalid value: "disk": must be a standard resource for quota`,
		`spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0`,
		`spec.hard[services]: Invalid value: "500m": must be an integer`,
		`spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Mine"]: unsupported scope applied to resource`,
		`spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Mine"]: unsupported scope applied to resource`,
		`spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Mine"]: unsupported scope applied to resource`,
		`spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Mine"]: unsupported scope applied to resource`,
		`spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Mine"]: unsupported scope applied to resource`,
		`spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Mine"]: unsupported scope`,
		`spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Mine"]: conflicting scopes`,
	})
}

func TestReplicationControllers(t *testing.T) {
	k := kindOf(t, Group(testOptions(t)), "ReplicationController")
	rc := &corev1.ReplicationController{Spec: corev1.ReplicationControllerSpec{Template: &corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}}}
	check(t, k, rc, nil, nil)
	if *rc.Spec.Replicas != 1 || rc.Spec.Selector["a"] != "b" || rc.Labels["a"] != "b" || rc.Generation != 1 {
		t.Errorf("defaults %+v", rc)
	}
	bad := rc.DeepCopy()
	bad.Spec.Replicas, bad.Spec.Selector, bad.Spec.Template.Spec.RestartPolicy = ptr.To[int32](-1), map[string]string{"a": "c"}, "Never"
	check(t, k, bad, nil, []string{
		`spec.replicas: Invalid value: -1: must be greater than or equal to 0`,
		"spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
		`spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`,
	})
	scaled := rc.DeepCopy()
	k.Scale.Set(scaled, 5)
	check(t, k, scaled, rc, nil)
	if scaled.Generation != 2 {
		t.Errorf("generation %d", scaled.Generation)
	}
	if spec, status, selector := k.Scale.Get(scaled); spec != 5 || status != 0 || selector != "a=b" {
		t.Errorf("scale %d %d %s", spec, status, selector)
	}
	status := rc.DeepCopy()
	status.Status = corev1.ReplicationControllerStatus{Replicas: 1, ReadyReplicas: 2, AvailableReplicas: 3}
	if got := texts(k.Status.Validate(context.Background(), status, rc)); len(got) != 3 {
		t.Errorf("status: %q", got)
	}
}
