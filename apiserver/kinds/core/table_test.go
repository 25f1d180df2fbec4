package core

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
)

// line prints a table of one row as kubectl get -o wide would, with a bar between cells.
func line(k *kind.Kind, obj client.Object) string {
	var cells []string
	for i, cell := range k.Row(obj, now) {
		text := fmt.Sprint(cell)
		if k.Columns[i].Priority > 0 {
			text = "(" + text + ")"
		}
		cells = append(cells, text)
	}
	return strings.Join(cells, " | ")
}

func header(k *kind.Kind) string {
	var cells []string
	for _, column := range k.Columns {
		text := strings.ToUpper(column.Name)
		if column.Priority > 0 {
			text = "(" + text + ")"
		}
		cells = append(cells, text)
	}
	return strings.Join(cells, " | ")
}

func TestHeaders(t *testing.T) {
	group := Group(testOptions(t))
	want := map[string]string{
		"ConfigMap":             "NAME | DATA | AGE",
		"Endpoints":             "NAME | ENDPOINTS | AGE",
		"Event":                 "LAST SEEN | TYPE | REASON | OBJECT | (SUBOBJECT) | (SOURCE) | MESSAGE | (FIRST SEEN) | (COUNT) | (NAME)",
		"LimitRange":            "NAME | CREATED AT",
		"Namespace":             "NAME | STATUS | AGE",
		"Node":                  "NAME | STATUS | ROLES | AGE | VERSION | (INTERNAL-IP) | (EXTERNAL-IP) | (OS-IMAGE) | (KERNEL-VERSION) | (CONTAINER-RUNTIME)",
		"PersistentVolume":      "NAME | CAPACITY | ACCESS MODES | RECLAIM POLICY | STATUS | CLAIM | STORAGECLASS | VOLUMEATTRIBUTESCLASS | REASON | AGE | (VOLUMEMODE)",
		"PersistentVolumeClaim": "NAME | STATUS | VOLUME | CAPACITY | ACCESS MODES | STORAGECLASS | VOLUMEATTRIBUTESCLASS | AGE | (VOLUMEMODE)",
		"Pod":                   "NAME | READY | STATUS | RESTARTS | AGE | (IP) | (NODE) | (NOMINATED NODE) | (READINESS GATES)",
		"PodTemplate":           "NAME | CONTAINERS | IMAGES | POD LABELS",
		"ReplicationController": "NAME | DESIRED | CURRENT | READY | AGE | (CONTAINERS) | (IMAGES) | (SELECTOR)",
		"ResourceQuota":         "NAME | REQUEST | LIMIT | AGE",
		"Secret":                "NAME | TYPE | DATA | AGE",
		"Service":               "NAME | TYPE | CLUSTER-IP | EXTERNAL-IP | PORT(S) | AGE | (SELECTOR)",
		"ServiceAccount":        "NAME | SECRETS | AGE",
	}
	got := map[string]string{}
	for _, k := range group.Kinds {
		got[k.GVK.Kind] = header(k)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
}

func TestPodRows(t *testing.T) {
	k := kindOf(t, Group(testOptions(t)), "Pod")
	ago := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	waiting := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
	ended := func(code, signal int32, reason string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Signal: signal, Reason: reason}}
	}
	containers := func(n int) []corev1.Container {
		out := make([]corev1.Container, n)
		for i := range out {
			out[i].Name = fmt.Sprint("c", i)
		}
		return out
	}
	for _, tc := range []struct {
		name string
		pod  func(p *corev1.Pod)
		want string
	}{
		{"pending", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }, "p | 0/1 | Pending | 0"},
		{"gated", func(p *corev1.Pod) {
			p.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Reason: corev1.PodReasonSchedulingGated}}}
		}, "p | 0/1 | SchedulingGated | 0"},
		{"creating", func(p *corev1.Pod) {
			p.Status = corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{State: waiting("ContainerCreating")}}}
		}, "p | 0/1 | ContainerCreating | 0"},
		{"running", func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: running, Ready: true}}
		}, "p | 1/1 | Running | 0"},
		{"crashing", func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: waiting("CrashLoopBackOff"), RestartCount: 3, LastTerminationState: corev1.ContainerState{
				Terminated: &corev1.ContainerStateTerminated{FinishedAt: ago(5 * time.Minute)},
			}}}
		}, "p | 0/1 | CrashLoopBackOff | 3 (5m ago)"},
		{"completed", func(p *corev1.Pod) {
			p.Status = corev1.PodStatus{Phase: corev1.PodSucceeded, ContainerStatuses: []corev1.ContainerStatus{{State: ended(0, 0, "Completed")}}}
		}, "p | 0/1 | Completed | 0"},
		{"one of two ended", func(p *corev1.Pod) {
			p.Spec.Containers = containers(2)
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: ended(0, 0, "Completed")}, {State: running, Ready: true}}
		}, "p | 1/2 | NotReady | 0"},
		{"exit code", func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: ended(3, 0, "")}}
		}, "p | 0/1 | ExitCode:3 | 0"},
		{"signal", func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: ended(137, 9, "")}}
		}, "p | 0/1 | Signal:9 | 0"},
		{"evicted", func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted" }, "p | 0/1 | Evicted | 0"},
		{"terminating", func(p *corev1.Pod) {
			p.DeletionTimestamp = ptr.To(ago(time.Second))
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: running, Ready: true}}
		}, "p | 1/1 | Terminating | 0"},
		{"node lost", func(p *corev1.Pod) {
			p.DeletionTimestamp = ptr.To(ago(time.Second))
			p.Status.Reason = "NodeLost"
		}, "p | 0/1 | Unknown | 0"},
		{"ended while deleted", func(p *corev1.Pod) {
			p.DeletionTimestamp = ptr.To(ago(time.Second))
			p.Status = corev1.PodStatus{Phase: corev1.PodSucceeded, ContainerStatuses: []corev1.ContainerStatus{{State: ended(0, 0, "Completed")}}}
		}, "p | 0/1 | Completed | 0"},
		{"initializing", func(p *corev1.Pod) {
			p.Spec.InitContainers = containers(2)
			p.Status = corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: []corev1.ContainerStatus{{Name: "c0", State: ended(0, 0, "")}, {Name: "c1", State: running}}}
		}, "p | 0/1 | Init:1/2 | 0"},
		{"initialization failed", func(p *corev1.Pod) {
			p.Spec.InitContainers = containers(1)
			p.Status = corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: []corev1.ContainerStatus{{Name: "c0", State: ended(1, 0, "Error"), RestartCount: 2}}}
		}, "p | 0/1 | Init:Error | 2"},
		{"initialization crashing", func(p *corev1.Pod) {
			p.Spec.InitContainers = containers(1)
			p.Status = corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: []corev1.ContainerStatus{{Name: "c0", State: waiting("CrashLoopBackOff")}}}
		}, "p | 0/1 | Init:CrashLoopBackOff | 0"},
		{"initialization exit code", func(p *corev1.Pod) {
			p.Spec.InitContainers = containers(1)
			p.Status = corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: []corev1.ContainerStatus{{Name: "c0", State: ended(2, 0, "")}}}
		}, "p | 0/1 | Init:ExitCode:2 | 0"},
		{"sidecar", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "s", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}, {Name: "i"}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "s", State: running, Started: ptr.To(true), Ready: true, RestartCount: 1}, {Name: "i", State: ended(0, 0, "Completed"), RestartCount: 4}}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: running, Ready: true}}
		}, "p | 2/2 | Running | 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: containers(1)}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
			tc.pod(p)
			got := line(k, p)
			if want := tc.want + " | <unknown> | (<none>) | (<none>) | (<none>) | (<none>)"; got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
		})
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", CreationTimestamp: metav1.NewTime(now.Add(-49 * time.Hour))}, Spec: corev1.PodSpec{NodeName: "n", ReadinessGates: []corev1.PodReadinessGate{{ConditionType: "a"}, {ConditionType: "b"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}, NominatedNodeName: "m", Conditions: []corev1.PodCondition{{Type: "a", Status: corev1.ConditionTrue}}},
	}
	if got, want := line(k, p), "p | 0/0 | Running | 0 | 2d1h | (10.0.0.1) | (n) | (m) | (1/2)"; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestRows(t *testing.T) {
	group := Group(testOptions(t))
	created := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	quantity := resource.MustParse
	for _, tc := range []struct {
		obj  client.Object
		want string
	}{
		{&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge"}},
			Spec:       corev1.NodeSpec{Unschedulable: true},
			Status: corev1.NodeStatus{
				Conditions: []corev1.NodeCondition{{Type: "Ready", Status: "True"}}, Addresses: []corev1.NodeAddress{{Type: "InternalIP", Address: "10.0.0.1"}},
				NodeInfo: corev1.NodeSystemInfo{KubeletVersion: "v1.37.0", OSImage: "Debian", KernelVersion: "6.1"},
			},
		}, "n | Ready,SchedulingDisabled | edge,worker | <unknown> | v1.37.0 | (10.0.0.1) | (<none>) | (Debian) | (6.1) | (<unknown>)"},
		{&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, "n | Unknown | <none> | <unknown> |  | (<none>) | (<none>) | (<unknown>) | (<unknown>) | (<unknown>)"},
		{&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.ServiceSpec{
			Type: "NodePort", ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1"}, Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080, Protocol: "TCP"}, {Port: 53, Protocol: "UDP"}}, Selector: map[string]string{"a": "b"},
		}}, "s | NodePort | 10.96.0.1 | <none> | 80:30080/TCP,53/UDP | <unknown> | (a=b)"},
		{&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.ServiceSpec{Type: "LoadBalancer", ClusterIPs: []string{"10.96.0.1"}}}, "s | LoadBalancer | 10.96.0.1 | <pending> | <none> | <unknown> | (<none>)"},
		{&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.ServiceSpec{Type: "LoadBalancer", ExternalIPs: []string{"1.1.1.1"}},
			Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "2.2.2.2"}, {Hostname: "h"}}}},
		}, "s | LoadBalancer | <none> | 2.2.2.2,h,1.1.1.1 | <none> | <unknown> | (<none>)"},
		{&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.ServiceSpec{Type: "ExternalName", ExternalName: "example.org"}}, "s | ExternalName | <none> | example.org | <none> | <unknown> | (<none>)"},
		{&corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "e"}}, "e | <none> | <unknown>"},
		{&corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "e"}, Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: "1.1.1.1"}, {IP: "::1"}, {IP: "3.3.3.3"}, {IP: "4.4.4.4"}}, Ports: []corev1.EndpointPort{{Port: 80}},
		}}}, "e | 1.1.1.1:80,[::1]:80,3.3.3.3:80 + 1 more... | <unknown>"},
		{&corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: "ev"}, InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "web", FieldPath: "spec.containers{c}"}, Reason: "Started", Type: "Normal", Message: " hello\n",
			Source: corev1.EventSource{Component: "kubelet", Host: "n"}, FirstTimestamp: metav1.NewTime(now.Add(-time.Hour)), LastTimestamp: metav1.NewTime(now.Add(-time.Minute)), Count: 7,
		}, "60s | Normal | Started | pod/web | (spec.containers{c}) | (kubelet, n) | hello | (60m) | (7) | (ev)"},
		{&corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: "ev"}, InvolvedObject: corev1.ObjectReference{Kind: "Node", Name: "n"}, EventTime: metav1.NewMicroTime(now.Add(-time.Hour)), ReportingController: "x", ReportingInstance: "y",
			Series: &corev1.EventSeries{Count: 3, LastObservedTime: metav1.NewMicroTime(now.Add(-time.Second))},
		}, "1s |  |  | node/n | () | (x, y) |  | (60m) | (3) | (ev)"},
		{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}, Status: corev1.NamespaceStatus{Phase: "Active"}}, "ns | Active | <unknown>"},
		{&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Type: "Opaque", Data: map[string][]byte{"a": nil}}, "s | Opaque | 1 | <unknown>"},
		{&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Data: map[string]string{"a": ""}, BinaryData: map[string][]byte{"b": nil}}, "c | 2 | <unknown>"},
		{&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "sa"}}, "sa | 0 | <unknown>"},
		{&corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "l", CreationTimestamp: created}}, "l | 2026-01-02T03:04:05Z"},
		{&corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Status: corev1.ResourceQuotaStatus{
			Hard: corev1.ResourceList{"limits.cpu": quantity("2"), "pods": quantity("10"), "requests.cpu": quantity("1")}, Used: corev1.ResourceList{"pods": quantity("3")},
		}}, "q | pods: 3/10, requests.cpu: 0/1 | limits.cpu: 0/2 | <unknown>"},
		{&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{"storage": quantity("1Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{"ReadWriteMany", "ReadWriteOnce"}, PersistentVolumeReclaimPolicy: "Retain",
			ClaimRef: &corev1.ObjectReference{Namespace: "ns", Name: "c"}, StorageClassName: "fast",
		}, Status: corev1.PersistentVolumeStatus{Phase: "Bound"}}, "pv | 1Gi | RWO,RWX | Retain | Bound | ns/c | fast | <unset> |  | <unknown> | (<unset>)"},
		{&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv", VolumeMode: ptr.To(corev1.PersistentVolumeFilesystem), StorageClassName: ptr.To("fast")}, Status: corev1.PersistentVolumeClaimStatus{
			Phase: "Bound", Capacity: corev1.ResourceList{"storage": quantity("1Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{"ReadWriteOnce"},
		}}, "c | Bound | pv | 1Gi | RWO | fast | <unset> | <unknown> | (Filesystem)"},
		{&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Status: corev1.PersistentVolumeClaimStatus{Phase: "Pending"}}, "c | Pending |  |  |  |  | <unset> | <unknown> | (<unset>)"},
		{&corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "rc"}, Spec: corev1.ReplicationControllerSpec{
			Replicas: ptr.To[int32](3), Selector: map[string]string{"a": "b"}, Template: &corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "x", Image: "i"}, {Name: "y", Image: "j"}}}},
		}, Status: corev1.ReplicationControllerStatus{Replicas: 2, ReadyReplicas: 1}}, "rc | 3 | 2 | 1 | <unknown> | (x,y) | (i,j) | (a=b)"},
		{&corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Name: "t"}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "x", Image: "i"}}}}}, "t | x | i | a=b"},
	} {
		name := strings.TrimPrefix(fmt.Sprintf("%T", tc.obj), "*v1.")
		if got := line(kindOf(t, group, name), tc.obj); got != tc.want {
			t.Errorf("%s\n got %s\nwant %s", name, got, tc.want)
		}
	}
}

// Ages are told at the moment that the server's clock has.
func TestAges(t *testing.T) {
	then := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	meta := metav1.ObjectMeta{Name: "x", CreationTimestamp: metav1.NewTime(then)}
	for _, obj := range []client.Object{&corev1.ConfigMap{ObjectMeta: meta}, &corev1.Pod{ObjectMeta: meta}, &corev1.Node{ObjectMeta: meta}, &corev1.Service{ObjectMeta: meta}} {
		found := false
		for _, k := range Group(testOptions(t)).Kinds {
			if k.GVK.Kind != reflect.TypeOf(obj).Elem().Name() {
				continue
			}
			for _, cell := range k.Row(obj, then.Add(3*time.Hour)) {
				found = found || cell == "3h"
			}
		}
		if !found {
			t.Errorf("%T: no cell says 3h", obj)
		}
	}
}
