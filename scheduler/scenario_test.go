package scheduler_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

var rewrite = flag.Bool("rewrite", false, "write what comes out into testdata/*.txt")

// TestScenarios runs testdata/*.txt. A file is a sequence of
//
//	COMMAND
//	lines of input
//	----
//	what comes out, up to an empty line
//
// Lines that begin with # are comments. The commands, with an object a line:
//
//	config        starts anew with a profile of a KubeSchedulerConfiguration, in YAML
//	apply         adds or replaces objects
//	delete        removes objects: KIND NAME
//	schedule      decides for each pod; one that fits is put there, one that doesn't may preempt: the proposal is shown, and the pod nominated
//	scores        shows each feasible node's score, and the named plugins' parts in it: POD... on the lines, plugins behind the command
//
// An object is KIND NAME LABEL=VALUE... : {the rest in YAML}. Names may be NAMESPACE/NAME; else the namespace is d. In place of labels there are
// cpu=, memory=, pods= (what a node has, what a pod asks for), zone= of a node, on= (its node) and priority= of a pod.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			in, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := newScenario(t)
			out := s.run(string(in))
			switch {
			case *rewrite:
				if err := os.WriteFile(file, []byte(out), 0o644); err != nil {
					t.Fatal(err)
				}
			case out != string(in):
				t.Errorf("%s: %s", file, firstDifference(string(in), out))
			}
		})
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range w {
		if i >= len(g) || w[i] != g[i] {
			return fmt.Sprintf("line %d: got\n%s\nwant\n%s", i+1, strings.Join(g[min(i, len(g)):min(i+5, len(g))], "\n"), w[i])
		}
	}
	return "there is more than expected"
}

type scenario struct {
	*testing.T
	engine *scheduler.Engine
	pods   map[string]*corev1.Pod
}

func newScenario(t *testing.T) *scenario {
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: plugins.Default()})
	if err != nil {
		t.Fatal(err)
	}
	return &scenario{T: t, engine: e, pods: map[string]*corev1.Pod{}}
}

// run returns the text with the output there is.
func (s *scenario) run(text string) string {
	var out strings.Builder
	var command string
	var input []string
	skipping := false
	for _, line := range strings.SplitAfter(text, "\n") {
		trimmed := strings.TrimSpace(line)
		if skipping {
			if skipping = trimmed != ""; skipping {
				continue
			}
		}
		out.WriteString(line)
		switch {
		case trimmed == "" || strings.HasPrefix(trimmed, "#"):
		case trimmed == "----":
			out.WriteString(s.do(command, input))
			command, input, skipping = "", nil, true
		case command == "":
			command = trimmed
		default:
			input = append(input, trimmed)
		}
	}
	if command != "" {
		s.Fatalf("%s: no ---- at its end", command)
	}
	return out.String()
}

func (s *scenario) do(command string, lines []string) string {
	var out strings.Builder
	verb, args, _ := strings.Cut(command, " ")
	for _, line := range lines {
		switch verb {
		case "config":
			s.configure(line)
		case "apply":
			s.apply(line)
		case "delete":
			s.remove(line)
		case "schedule":
			out.WriteString(s.schedule(s.pod(line)))
		case "scores":
			out.WriteString(s.scores(s.pod(line), strings.Fields(args)))
		default:
			s.Fatalf("%s: no such command", verb)
		}
	}
	return out.String()
}

// pod is one that is known, or the object on the line.
func (s *scenario) pod(line string) *corev1.Pod {
	if words := strings.Fields(line); len(words) == 2 && s.pods[s.name(words[1]).String()] != nil {
		return s.pods[s.name(words[1]).String()]
	}
	p, ok := s.parse(line).(*corev1.Pod)
	if !ok {
		s.Fatalf("%s: want a pod", line)
	}
	s.pods[p.Namespace+"/"+p.Name] = p
	return p
}

func (s *scenario) name(word string) types.NamespacedName {
	if ns, name, ok := strings.Cut(word, "/"); ok {
		return types.NamespacedName{Namespace: ns, Name: name}
	}
	return types.NamespacedName{Namespace: "d", Name: word}
}

func (s *scenario) schedule(p *corev1.Pod) string {
	pod := scheduler.NewPod(p)
	d := s.engine.Schedule(pod)
	if d.Fits() {
		p.Spec.NodeName = d.Node
		return fmt.Sprintf("%s: %s\n", p.Name, d.Node)
	}
	e := s.engine.Preempt(pod, &d)
	out := fmt.Sprintf("%s: %s\n", p.Name, d.Message())
	if e != nil {
		s.engine.Nominate(pod, e.Node)
		if e.Node != "" {
			var names []string
			for _, v := range e.Victims {
				names = append(names, v.Object.Name)
			}
			out += fmt.Sprintf("  preempts %s on %s, violating %d\n", strings.Join(names, " "), e.Node, e.PDBViolations)
		}
	}
	return out
}

func (s *scenario) scores(p *corev1.Pod, names []string) string {
	x := s.engine.Explain(scheduler.NewPod(p))
	var lines []string
	for _, n := range x.Nodes {
		if !n.Feasible {
			continue
		}
		line := fmt.Sprintf("%s: %s %d", p.Name, n.Node, n.Score)
		for i, plugin := range x.Plugins {
			if slices.Contains(names, plugin.Name) {
				line += fmt.Sprintf(" %s=%d", plugin.Name, n.Verdicts[i].Normalized)
			}
		}
		lines = append(lines, line+"\n")
	}
	slices.Sort(lines) // the order of equals is left to chance
	return strings.Join(lines, "")
}

// kinds of objects, with what applies and what deletes them.
func (s *scenario) kinds() map[string]struct {
	object client.Object
	set    func(client.Object)
	remove func(client.Object)
} {
	e := s.engine
	type kind = struct {
		object client.Object
		set    func(client.Object)
		remove func(client.Object)
	}
	return map[string]kind{
		"node": {&corev1.Node{}, func(o client.Object) { e.SetNode(o.(*corev1.Node)) }, func(o client.Object) { e.DeleteNode(o.GetName()) }},
		"pod": {
			&corev1.Pod{}, func(o client.Object) {
				p := o.(*corev1.Pod)
				s.pods[p.Namespace+"/"+p.Name] = p
				if p.Spec.NodeName != "" {
					e.Assign(scheduler.NewPod(p), p.Spec.NodeName)
				}
			}, func(o client.Object) {
				delete(s.pods, o.GetNamespace()+"/"+o.GetName())
				e.Nominate(scheduler.NewPod(o.(*corev1.Pod)), "")
				e.Remove(o.GetUID())
			},
		},
		"namespace": {&corev1.Namespace{}, func(o client.Object) { e.SetNamespace(o.(*corev1.Namespace)) }, func(o client.Object) { e.DeleteNamespace(o.GetName()) }},
		"service": {
			&corev1.Service{}, func(o client.Object) { e.SetService(o.(*corev1.Service)) },
			func(o client.Object) { e.DeleteService(o.GetNamespace(), o.GetName()) },
		},
		"replicaset": {
			&appsv1.ReplicaSet{}, func(o client.Object) { e.SetReplicaSet(o.(*appsv1.ReplicaSet)) },
			func(o client.Object) { e.DeleteReplicaSet(o.GetNamespace(), o.GetName()) },
		},
		"replicationcontroller": {
			&corev1.ReplicationController{}, func(o client.Object) { e.SetReplicationController(o.(*corev1.ReplicationController)) },
			func(o client.Object) { e.DeleteReplicationController(o.GetNamespace(), o.GetName()) },
		},
		"statefulset": {
			&appsv1.StatefulSet{}, func(o client.Object) { e.SetStatefulSet(o.(*appsv1.StatefulSet)) },
			func(o client.Object) { e.DeleteStatefulSet(o.GetNamespace(), o.GetName()) },
		},
		"pdb": {
			&policyv1.PodDisruptionBudget{}, func(o client.Object) { e.SetPDB(o.(*policyv1.PodDisruptionBudget)) },
			func(o client.Object) { e.DeletePDB(o.GetNamespace(), o.GetName()) },
		},
		"pvc": {
			&corev1.PersistentVolumeClaim{}, func(o client.Object) { e.SetClaim(o.(*corev1.PersistentVolumeClaim)) },
			func(o client.Object) { e.DeleteClaim(o.GetNamespace(), o.GetName()) },
		},
		"pv": {
			&corev1.PersistentVolume{}, func(o client.Object) { e.SetVolume(o.(*corev1.PersistentVolume)) },
			func(o client.Object) { e.DeleteVolume(o.GetName()) },
		},
		"storageclass": {
			&storagev1.StorageClass{}, func(o client.Object) { e.SetStorageClass(o.(*storagev1.StorageClass)) },
			func(o client.Object) { e.DeleteStorageClass(o.GetName()) },
		},
		"csinode": {
			&storagev1.CSINode{}, func(o client.Object) { e.SetCSINode(o.(*storagev1.CSINode)) },
			func(o client.Object) { e.DeleteCSINode(o.GetName()) },
		},
		"csidriver": {
			&storagev1.CSIDriver{}, func(o client.Object) { e.SetCSIDriver(o.(*storagev1.CSIDriver)) },
			func(o client.Object) { e.DeleteCSIDriver(o.GetName()) },
		},
		"csistoragecapacity": {
			&storagev1.CSIStorageCapacity{}, func(o client.Object) { e.SetStorageCapacity(o.(*storagev1.CSIStorageCapacity)) },
			func(o client.Object) { e.DeleteStorageCapacity(o.(*storagev1.CSIStorageCapacity)) },
		},
		"volumeattachment": {
			&storagev1.VolumeAttachment{}, func(o client.Object) { e.SetVolumeAttachment(o.(*storagev1.VolumeAttachment)) },
			func(o client.Object) { e.DeleteVolumeAttachment(o.GetName()) },
		},
	}
}

func (s *scenario) apply(line string) {
	kind, _, _ := strings.Cut(line, " ")
	s.kinds()[kind].set(s.parse(line))
}

func (s *scenario) remove(line string) {
	kind, rest, _ := strings.Cut(line, " ")
	k, ok := s.kinds()[kind]
	if !ok {
		s.Fatalf("%s: no such kind", line)
	}
	name := s.name(rest)
	k.object.SetName(name.Name)
	k.object.SetNamespace(name.Namespace)
	k.object.SetUID(types.UID(name.String()))
	k.remove(k.object)
}

// parse reads an object's line.
func (s *scenario) parse(line string) client.Object {
	head, body, _ := strings.Cut(line, " : ")
	words := strings.Fields(head)
	k, ok := s.kinds()[words[0]]
	if !ok || len(words) < 2 {
		s.Fatalf("%s: want KIND NAME, with a kind of %v", line, slices.Sorted(maps.Keys(s.kinds())))
	}
	o := k.object
	if body != "" {
		if err := yaml.UnmarshalStrict(bytes.TrimSpace([]byte(body)), o); err != nil {
			s.Fatalf("%s: %v", line, err)
		}
	}
	name := s.name(words[1])
	o.SetName(name.Name)
	switch o.(type) {
	case *corev1.Node, *corev1.Namespace, *corev1.PersistentVolume, *storagev1.StorageClass, *storagev1.CSINode, *storagev1.CSIDriver, *storagev1.VolumeAttachment:
	default:
		o.SetNamespace(name.Namespace)
	}
	o.SetUID(types.UID(name.String()))
	amounts := corev1.ResourceList{}
	set := maps.Clone(o.GetLabels())
	if set == nil {
		set = map[string]string{}
	}
	for _, w := range words[2:] {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			s.Fatalf("%s: %s: want NAME=VALUE", line, w)
		}
		switch pod, isPod := o.(*corev1.Pod); {
		case key == "cpu" || key == "memory" || key == "pods":
			amounts[corev1.ResourceName(key)] = resource.MustParse(value)
		case key == "zone":
			set[corev1.LabelTopologyZone] = value
		case isPod && key == "on":
			pod.Spec.NodeName = value
		case isPod && key == "priority":
			var priority int32
			if _, err := fmt.Sscan(value, &priority); err != nil {
				s.Fatalf("%s: %v", line, err)
			}
			pod.Spec.Priority = &priority
		default:
			set[key] = value
		}
	}
	switch o := o.(type) {
	case *corev1.Node:
		all := corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("110")}
		maps.Copy(all, o.Status.Allocatable)
		maps.Copy(all, amounts)
		o.Status.Allocatable = all
		if _, ok := set[corev1.LabelHostname]; !ok {
			set[corev1.LabelHostname] = o.Name
		}
	case *corev1.Pod:
		if len(o.Spec.Containers) == 0 {
			o.Spec.Containers = []corev1.Container{{Name: "c", Image: "c"}}
		}
		if len(amounts) > 0 {
			o.Spec.Containers[0].Resources.Requests = amounts
		}
	}
	o.SetLabels(set)
	return o
}
