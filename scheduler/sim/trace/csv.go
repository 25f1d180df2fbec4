package trace

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/scheduler/sim"
)

// CSVFile is a workload in a simple format of our own. The first row names the columns, in any order; only name is required, empty cells are the defaults.
//
//	time       since the beginning: seconds ("12.5") or a duration ("1h30m")
//	event      submit (default), cancel, node-add, node-fail, node-recover, node-drain, node-remove
//	name       of the pod or node; with count, a number is appended to it
//	namespace  of the pod; "default" by default. cancel wants it, too
//	count      so many equal ones: pods that come at once, or nodes
//	min        of so many pods that come at once, at least this many are placed at once, or none
//	run        how long the pod runs: as time; empty for ever
//	fails      yes if it ends in failure
//	retries    how often it is submitted again then
//	priority   of the pod
//	template   the name of one of Templates, to which the other columns add
//	labels     "key=value key=value", of the pod or node
//	selector   the pod's node selector, likewise
//	taints     the node's: "key=value:NoSchedule key:NoExecute"
//	tolerates  the pod's: "key key=value:NoSchedule *"
//
// Any other column is a resource (cpu, memory, example.com/gpu, …): what the pod asks for, or the node has, as a Kubernetes quantity. A node has room for 110 pods,
// unless the column pods says otherwise, and the label kubernetes.io/hostname.
type CSVFile struct {
	Source Source
	// Templates are pods by name, for what the columns can't say.
	Templates map[string]*corev1.Pod
	Window    Window
}

var csvColumns = map[string]bool{
	"time": true, "event": true, "name": true, "namespace": true, "count": true, "min": true, "run": true, "fails": true, "retries": true, "priority": true,
	"template": true, "labels": true, "selector": true, "taints": true, "tolerates": true,
}

// ReadCSV reads a workload.
func ReadCSV(f CSVFile) (sim.Workload, error) {
	if f.Source == nil {
		return sim.Workload{}, fmt.Errorf("trace: CSVFile: want a Source")
	}
	b, err := newBuilder("csv", f.Window)
	if err != nil {
		return sim.Workload{}, err
	}
	c := &csvReader{builder: b, templates: f.Templates, cache: map[string]*corev1.Pod{}}
	if err := read("csv", f.Source, []string{"name"}, false, c.row); err != nil {
		return sim.Workload{}, err
	}
	return b.workload(), nil
}

type csvReader struct {
	*builder
	templates map[string]*corev1.Pod
	cache     map[string]*corev1.Pod // by all cells that make a template
	resources []string               // columns, in order
}

func (c *csvReader) row(r *rows) error {
	if c.resources == nil {
		c.resources = []string{}
		for _, name := range r.header {
			if name != "" && !csvColumns[strings.ToLower(name)] {
				c.resources = append(c.resources, name)
			}
		}
	}
	at, err := clock(r.str("time"))
	if err != nil {
		return fmt.Errorf("time: %w", err)
	}
	name, count, event := r.str("name"), r.int("count"), r.str("event")
	if name == "" || count < 0 || count > maxInstances {
		return fmt.Errorf("name %q, count %d: want a name, and a count of at most %d", name, count, maxInstances)
	}
	for kind := sim.Cancel; kind <= sim.RemoveNode; kind++ {
		if event != kind.String() {
			continue
		}
		switch kind {
		case sim.Cancel:
			c.add(record{at: at, kind: kind, name: space(r) + "/" + name})
		case sim.AddNode:
			return c.addNodes(r, at, name, int(count))
		default:
			c.add(record{at: at, kind: kind, name: name})
		}
		return nil
	}
	if event != "" && event != sim.Submit.String() {
		return fmt.Errorf("event %q is unknown", event)
	}
	return c.addPods(r, at, name, int32(count))
}

func space(r *rows) string {
	if s := r.str("namespace"); s != "" {
		return s
	}
	return "default"
}

// clock reads seconds or a duration.
func clock(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if v, serr := strconv.ParseFloat(s, 64); serr == nil {
		if math.IsNaN(v) || v > math.MaxInt64/4e9 {
			return 0, fmt.Errorf("%q: want seconds", s)
		}
		d, err = seconds(v), nil
	}
	if err == nil && (d < 0 || d > math.MaxInt64/4) {
		err = fmt.Errorf("%q: want 0 or more, and not too much", s)
	}
	return d, err
}

func (c *csvReader) addPods(r *rows, at time.Duration, name string, count int32) error {
	run, err := clock(r.str("run"))
	if err != nil {
		return fmt.Errorf("run: %w", err)
	}
	t, err := c.podTemplate(r)
	if err != nil {
		return err
	}
	min, retries := r.int("min"), r.int("retries")
	if min < 0 || min > int64(max(count, 1)) || retries < 0 || retries > math.MaxInt32 {
		return fmt.Errorf("min %d of %d pods, %d retries: want no more than there are, and nothing negative", min, max(count, 1), retries)
	}
	fails, err := yes(r.str("fails"))
	if err != nil {
		return fmt.Errorf("fails: %w", err)
	}
	c.add(record{at: at, run: run, space: space(r), name: name, count: count, min: int32(min), fails: fails, retries: int32(retries), template: t})
	return nil
}

func yes(s string) (bool, error) {
	switch s {
	case "", "no", "false", "0":
		return false, nil
	case "yes", "true", "1":
		return true, nil
	}
	return false, fmt.Errorf("%q: want yes or no", s)
}

func (c *csvReader) podTemplate(r *rows) (*corev1.Pod, error) {
	var key strings.Builder
	for _, column := range append([]string{"template", "priority", "labels", "selector", "tolerates"}, c.resources...) {
		key.WriteString(r.str(column))
		key.WriteByte(0)
	}
	if t := c.cache[key.String()]; t != nil {
		return t, nil
	}
	t := &corev1.Pod{}
	if name := r.str("template"); name != "" {
		from := c.templates[name]
		if from == nil {
			return nil, fmt.Errorf("template %q is unknown", name)
		}
		t = from.DeepCopy()
	}
	if s := r.str("priority"); s != "" {
		v, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("priority: %w", err)
		}
		t.Spec.Priority = new(int32)
		*t.Spec.Priority = int32(v)
	}
	if err := pairs(r.str("labels"), &t.Labels); err != nil {
		return nil, fmt.Errorf("labels: %w", err)
	}
	if err := pairs(r.str("selector"), &t.Spec.NodeSelector); err != nil {
		return nil, fmt.Errorf("selector: %w", err)
	}
	for _, s := range strings.Fields(r.str("tolerates")) {
		t.Spec.Tolerations = append(t.Spec.Tolerations, toleration(s))
	}
	requests, err := c.quantities(r)
	if err != nil {
		return nil, err
	}
	if len(t.Spec.Containers) == 0 {
		t.Spec.Containers = []corev1.Container{{Name: "main", Image: "trace"}}
	}
	into := &t.Spec.Containers[0].Resources.Requests
	if *into == nil {
		*into = corev1.ResourceList{}
	}
	for name, q := range requests {
		(*into)[name] = q
	}
	c.cache[key.String()] = t
	return t, nil
}

func (c *csvReader) quantities(r *rows) (corev1.ResourceList, error) {
	l := corev1.ResourceList{}
	for _, name := range c.resources {
		s := r.str(name)
		if s == "" {
			continue
		}
		q, err := resource.ParseQuantity(s)
		if err != nil || q.Sign() < 0 {
			return nil, fmt.Errorf("%s: %q: want a quantity of 0 or more", name, s)
		}
		l[corev1.ResourceName(name)] = q
	}
	return l, nil
}

func (c *csvReader) addNodes(r *rows, at time.Duration, name string, count int) error {
	l, err := c.quantities(r)
	if err != nil {
		return err
	}
	if _, ok := l[corev1.ResourcePods]; !ok {
		l[corev1.ResourcePods] = resource.MustParse("110")
	}
	var taints []corev1.Taint
	for _, s := range strings.Fields(r.str("taints")) {
		what, effect, ok := strings.Cut(s, ":")
		if !ok {
			return fmt.Errorf("taints: %q: want key=value:effect", s)
		}
		k, v, _ := strings.Cut(what, "=")
		taints = append(taints, corev1.Taint{Key: k, Value: v, Effect: corev1.TaintEffect(effect)})
	}
	for i := range max(count, 1) {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
		if count > 0 {
			n.Name = fmt.Sprint(name, "-", i)
		}
		n.Labels[corev1.LabelHostname] = n.Name
		if err := pairs(r.str("labels"), &n.Labels); err != nil {
			return fmt.Errorf("labels: %w", err)
		}
		n.Spec.Taints, n.Status.Allocatable = taints, l
		c.add(record{at: at, kind: sim.AddNode, node: n})
	}
	return nil
}

// pairs adds "key=value key=value".
func pairs(s string, to *map[string]string) error {
	for _, pair := range strings.Fields(s) {
		k, v, ok := strings.Cut(pair, "=")
		if !ok || k == "" {
			return fmt.Errorf("%q: want key=value", pair)
		}
		if *to == nil {
			*to = map[string]string{}
		}
		(*to)[k] = v
	}
	return nil
}

func toleration(s string) (t corev1.Toleration) {
	what, effect, _ := strings.Cut(s, ":")
	t.Effect = corev1.TaintEffect(effect)
	k, v, equal := strings.Cut(what, "=")
	switch {
	case k == "*":
		t.Operator = corev1.TolerationOpExists
	case equal:
		t.Key, t.Operator, t.Value = k, corev1.TolerationOpEqual, v
	default:
		t.Key, t.Operator = k, corev1.TolerationOpExists
	}
	return t
}
