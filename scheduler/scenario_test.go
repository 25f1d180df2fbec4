package scheduler_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

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
//	decides       is config for what a plugin decides at a point of kube-scheduler's: PLUGIN POINT behind the command. See TestDecides
//	apply         adds or replaces objects
//	delete        removes objects: KIND NAME
//	schedule      decides for each pod; one that fits is put there, one that doesn't may preempt: the proposal is shown, and the pod nominated
//	queue         puts pods into the queue, and has it decide until nothing is left to try: groups together, and what was rejected before only if a change
//	              since then may help it. Pods on the lines that aren't tried are shown with the reason
//	scores        shows each feasible node's score, and the named plugins' parts in it: POD... on the lines, plugins behind the command
//
// An object is KIND NAME LABEL=VALUE... : {the rest in YAML}. Names may be NAMESPACE/NAME; else the namespace is d. In place of labels there are
// cpu=, memory=, pods= (what a node has, what a pod asks for), zone= of a node, on= (its node) and group= of a pod, min= of a podgroup, and priority= of both.
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
	queue  *scheduler.Queue
	pods   map[string]*corev1.Pod
	// without is what is left out of the profile of a decides command.
	without bool
}

func newScenario(t *testing.T) *scenario {
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: plugins.Default()})
	if err != nil {
		t.Fatal(err)
	}
	return &scenario{T: t, engine: e, queue: scheduler.NewQueue(e), pods: map[string]*corev1.Pod{}}
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
			s.configure(line, "")
		case "decides":
			s.configure(line, args)
		case "apply":
			s.apply(line)
		case "delete":
			s.remove(line)
		case "queue":
		case "schedule":
			out.WriteString(s.schedule(s.pod(line)))
		case "scores":
			out.WriteString(s.scores(s.pod(line), strings.Fields(args)))
		default:
			s.Fatalf("%s: no such command", verb)
		}
	}
	if verb == "queue" {
		out.WriteString(s.enqueue(lines))
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
		if err := s.engine.Reserve(pod, d.Node); err != nil {
			s.engine.Remove(p.UID)
			return fmt.Sprintf("%s: %v\n", p.Name, err)
		}
		return s.placed(pod, d.Node)
	}
	return s.rejected(pod, &d)
}

// placed is what becomes of a pod that fits.
func (s *scenario) placed(pod *scheduler.Pod, node string) string {
	pod.Object.Spec.NodeName = node
	s.changed(scheduler.ClusterChange{AssignedPod: pod})
	return fmt.Sprintf("%s: %s\n", pod.Object.Name, node)
}

// rejected is what becomes of one that doesn't.
func (s *scenario) rejected(pod *scheduler.Pod, d *scheduler.Decision) string {
	e := s.engine.Preempt(pod, d)
	out := fmt.Sprintf("%s: %s\n", pod.Object.Name, d.Message())
	if e != nil {
		s.engine.Nominate(pod, e.Node)
		if e.Node != "" {
			out += fmt.Sprintf("  preempts %s on %s, violating %d\n", names(e.Victims), e.Node, e.PDBViolations)
		}
	}
	return out
}

func names(pods []*scheduler.Pod) string {
	var out []string
	for _, p := range pods {
		out = append(out, p.Object.Name)
	}
	return strings.Join(out, " ")
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
