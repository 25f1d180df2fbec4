package sim_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/scheduler/sim"
)

func storageClass(name string, mode storagev1.VolumeBindingMode, provisioner string) *storagev1.StorageClass {
	return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: &mode}
}

func claimSpec(class, size string) corev1.PersistentVolumeClaimSpec {
	return corev1.PersistentVolumeClaimSpec{
		StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources: corev1.VolumeResourceRequirements{Requests: resources("storage", size)},
	}
}

func claim(name, class, size string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: name}, Spec: claimSpec(class, size)}
}

// volume is one in a zone, or with "" anywhere.
func volume(name, class, size, zone string) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
	pv.Spec = corev1.PersistentVolumeSpec{StorageClassName: class, Capacity: resources("storage", size), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}}
	pv.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	if zone != "" {
		pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{zone}}},
		}}}}
	}
	return pv
}

func mounts(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}})
	}
}

func ownVolume(class, size string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "own", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
			VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: claimSpec(class, size)},
		}}})
	}
}

func set(at time.Duration, objects ...client.Object) (out []sim.Event) {
	for _, o := range objects {
		out = append(out, sim.Event{At: at, Kind: sim.SetObject, Object: o})
	}
	return out
}

func comes(at time.Duration, name string, t *corev1.Pod, run time.Duration) sim.Event {
	return sim.Event{At: at, Pods: []sim.Pod{{Namespace: "d", Name: name, Template: t, Run: run}}}
}

// TestVolumes: claims are bound to volumes that exist, or that are made after a delay, at once or for their first pod; pods wait for them and go where they are.
func TestVolumes(t *testing.T) {
	const wait, now = storagev1.VolumeBindingWaitForFirstConsumer, storagev1.VolumeBindingImmediate
	in := func(zone string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelTopologyZone: zone} }
	}
	for name, c := range map[string]struct {
		events []sim.Event
		want   string
	}{
		"immediate, a volume that exists": {
			append(set(0, storageClass("fast", now, "kubernetes.io/no-provisioner"), volume("big", "fast", "100Gi", "a"), volume("small", "fast", "10Gi", "b"), claim("data", "fast", "8Gi")),
				comes(time.Second, "p", template("x", mounts("data")), time.Minute)),
			`0 claim d/data volume=small
				1 bind d/p node=n1
				61 finish d/p`,
		},
		"immediate, a volume that comes later": {
			append(append(set(0, storageClass("fast", now, "kubernetes.io/no-provisioner"), claim("data", "fast", "8Gi")), set(10*time.Second, volume("late", "fast", "9Gi", "a"))...),
				comes(time.Second, "p", template("x", mounts("data")), time.Minute)),
			`1 wait d/p: 0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
				10 claim d/data volume=late
				10 bind d/p node=n0
				70 finish d/p`,
		},
		"immediate, made after the delay": {
			append(set(0, storageClass("net", now, "example.com/disk"), claim("data", "net", "8Gi")), comes(time.Second, "p", template("x", mounts("data"), in("b")), time.Minute)),
			`1 wait d/p: 0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
				4 claim d/data volume=pvc-object-1
				4 bind d/p node=n1
				64 finish d/p`,
		},
		"the first pod decides, with a volume that exists": {
			append(set(0, storageClass("local", wait, "kubernetes.io/no-provisioner"), volume("va", "local", "10Gi", "a"), volume("vb", "local", "10Gi", "b"), claim("data", "local", "8Gi")),
				comes(time.Second, "p", template("x", mounts("data"), in("b")), time.Minute)),
			`1 bind d/p node=n1
				1 claim d/data volume=vb
				61 finish d/p`,
		},
		"the first pod decides, and the next follow the volume": {
			append(set(0, storageClass("zonal", wait, "example.com/disk"), claim("data", "zonal", "8Gi")),
				comes(time.Second, "p", template("x", mounts("data"), in("b")), time.Minute), comes(20*time.Second, "q", template("x", mounts("data")), time.Minute)),
			`1 bind d/p node=n1
				5 claim d/data volume=pvc-object-1
				20 bind d/q node=n1
				65 finish d/p
				80 finish d/q`,
		},
		"volumes of the pods' own come and go with them": {
			append(set(0, storageClass("zonal", wait, "example.com/disk")),
				sim.Event{At: time.Second, Pods: []sim.Pod{{Namespace: "d", Name: "p", Template: template("x", ownVolume("zonal", "1Gi"), in("a")), Run: time.Minute}, {Namespace: "d", Name: "q", Template: template("x", ownVolume("zonal", "1Gi"), in("a")), Run: time.Minute}}},
				sim.Event{At: 30 * time.Second, Kind: sim.FailNode, Name: "n0"}, sim.Event{At: 40 * time.Second, Kind: sim.RecoverNode, Name: "n0"}),
			`1 bind d/p node=n0
				1 bind d/q node=n0
				5 claim d/p-own volume=pvc-object-1
				5 claim d/q-own volume=pvc-object-2
				30 evict d/q
				30 evict d/p
				31 wait d/q: 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
				31 wait d/p: 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
				40 bind d/q node=n0
				40 bind d/p node=n0
				44 claim d/q-own volume=pvc-object-9
				44 claim d/p-own volume=pvc-object-10
				104 finish d/q
				104 finish d/p`,
		},
		"nobody makes the volume": {
			append(set(0, storageClass("local", wait, "kubernetes.io/no-provisioner"), claim("data", "local", "8Gi")), comes(time.Second, "p", template("x", mounts("data")), time.Minute)),
			`1 wait d/p: 0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.`,
		},
		"the claim comes after the pod": {
			append(set(10*time.Second, storageClass("zonal", wait, "example.com/disk"), claim("data", "zonal", "8Gi")), comes(time.Second, "p", template("x", mounts("data"), in("a")), time.Minute)),
			`1 wait d/p: 0/2 nodes are available: persistentvolumeclaim "data" not found. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
				10 bind d/p node=n0
				14 claim d/data volume=pvc-object-1
				74 finish d/p`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			events := []sim.Event{{Kind: sim.AddNode, Node: testNode("n0", "a")}, {Kind: sim.AddNode, Node: testNode("n1", "b")}}
			var log bytes.Buffer
			_, err := run(t, sim.Events(name, append(events, c.events...)), sim.Options{Log: &log, Check: true, ProvisionDelay: 4 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(brief(c.want), brief(log.String())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// brief leaves out of a log what doesn't matter here.
func brief(log string) string {
	var out []string
	for line := range strings.Lines(log) {
		line = strings.TrimSpace(line)
		at, rest, _ := strings.Cut(line, " ")
		at, _, _ = strings.Cut(at, ".")
		what, _, _ := strings.Cut(rest, " ")
		switch what {
		case "bind", "evict", "finish":
			rest, _, _ = strings.Cut(rest, " score=")
			if what != "bind" {
				rest, _, _ = strings.Cut(rest, " node=")
			}
		case "wait", "claim":
		default:
			continue
		}
		out = append(out, at+" "+rest)
	}
	return strings.Join(out, "\n")
}

// TestNamespaces: affinity to pods of other namespaces goes by those namespaces' labels.
func TestNamespaces(t *testing.T) {
	near := template("near", func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			TopologyKey: corev1.LabelHostname, LabelSelector: selecting("db"), NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "blue"}},
		}}}}
	})
	byName := template("byname", func(p *corev1.Pod) {
		p.Spec.Affinity = near.Spec.Affinity.DeepCopy()
		p.Spec.Affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].NamespaceSelector.MatchLabels = map[string]string{corev1.LabelMetadataName: "other"}
	})
	events := []sim.Event{{Kind: sim.AddNode, Node: testNode("n0", "a")}, {Kind: sim.AddNode, Node: testNode("n1", "b")}}
	events = append(events, sim.Event{At: 1, Pods: []sim.Pod{{Namespace: "other", Name: "db", Template: template("db")}}}, comes(time.Second, "near", near, 0), comes(time.Second, "byname", byName, 0))
	blue := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other", Labels: map[string]string{"team": "blue"}}}
	events = append(events, set(30*time.Second, blue)...)
	var log bytes.Buffer
	if _, err := run(t, sim.Events("namespaces", events), sim.Options{Log: &log, Check: true}); err != nil {
		t.Fatal(err)
	}
	if s := log.String(); !strings.Contains(s, "1.000000 bind d/byname") || !strings.Contains(s, "1.000000 wait d/near") || !strings.Contains(s, "30.000000 bind d/near") {
		t.Error(s)
	}
}

// TestObjectsRefused: what can't be simulated isn't taken.
func TestObjectsRefused(t *testing.T) {
	for _, kind := range []sim.EventKind{sim.SetObject, sim.DeleteObject} {
		_, err := run(t, sim.Events("bad", []sim.Event{{Kind: kind, Object: &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}}}), sim.Options{})
		if err == nil || !strings.Contains(err.Error(), "a *v1.Secret can't be simulated") {
			t.Error(err)
		}
		if _, err := run(t, sim.Events("bad", []sim.Event{{Kind: kind}}), sim.Options{}); err == nil {
			t.Errorf("%v without object", kind)
		}
	}
}

// TestVolumesAtScale plays many pods with volumes of their own, with nodes that come and go.
func TestVolumesAtScale(t *testing.T) {
	var events []sim.Event
	events = append(events, set(0, storageClass("zonal", storagev1.VolumeBindingWaitForFirstConsumer, "example.com/disk"), storageClass("now", storagev1.VolumeBindingImmediate, "example.com/disk"))...)
	for i := range 6 {
		events = append(events, sim.Event{Kind: sim.AddNode, Node: testNode(fmt.Sprint("n", i), []string{"a", "b", "c"}[i%3])})
	}
	kinds := []*corev1.Pod{template("x", ownVolume("zonal", "1Gi")), template("y", ownVolume("now", "1Gi")), template("z")}
	for i := range 200 {
		at := time.Duration(i) * 2 * time.Second
		events = append(events, comes(at, fmt.Sprint("p", i), kinds[i%3], time.Duration(10+i%40)*time.Second))
		if i%20 == 10 {
			name := fmt.Sprint("n", i/20%6)
			events = append(events, sim.Event{At: at, Kind: sim.FailNode, Name: name}, sim.Event{At: at + 15*time.Second, Kind: sim.RecoverNode, Name: name})
		}
	}
	for _, lines := range []bool{false, true} {
		r, err := run(t, sim.Events("volumes", events), sim.Options{Check: true, NoLines: !lines, ProvisionDelay: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if s := r.Summary; s.Finished != 200 || s.Pending != 0 || s.Evicted == 0 {
			t.Errorf("%+v", s)
		}
	}
}
