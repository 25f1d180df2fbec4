package schedulertest

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
)

// failure says where something was wrong.
func failure(seed uint64, step int, format string, args ...any) error {
	return fmt.Errorf("cluster %d, event %d: %s", seed, step, fmt.Sprintf(format, args...))
}

// outcome is what of a decision doesn't depend on the choice among equals.
type outcome struct {
	Feasible   int
	Score      int64
	Reasons    map[string]int
	Resolvable []string
}

func outcomeOf(d *scheduler.Decision) outcome {
	o := outcome{Feasible: d.Feasible, Score: d.Score}
	if !d.Fits() {
		o.Reasons, o.Resolvable = d.Reasons, slices.Sorted(d.Resolvable.All())
	}
	if len(o.Reasons) == 0 {
		o.Reasons = nil
	}
	return o
}

// checkDeterministic runs the same twice.
func checkDeterministic(newPlugin func() scheduler.Plugin, o Options) error {
	for seed := range uint64(o.Clusters) {
		var runs [2][]scheduler.Decision
		for i := range runs {
			c := newCluster(o, seed)
			e, err := c.engine(newPlugin())
			if err != nil {
				return err
			}
			for range o.Events {
				c.event(e)
				runs[i] = append(runs[i], e.Decide(scheduler.NewPod(c.pod())))
			}
		}
		for step := range runs[0] {
			a, b := &runs[0][step], &runs[1][step]
			if a.Node != b.Node || !reflect.DeepEqual(outcomeOf(a), outcomeOf(b)) {
				return failure(seed, step, "decided %+v, and then %+v of the same", *a, *b)
			}
		}
	}
	return nil
}

// checkModifiesNothing compares objects with copies made before.
func checkModifiesNothing(newPlugin func() scheduler.Plugin, o Options) error {
	for seed := range uint64(o.Clusters) {
		c := newCluster(o, seed)
		p := newPlugin()
		e, err := c.engine(p)
		if err != nil {
			return err
		}
		for step := range o.Events {
			c.event(e)
			obj := c.pod()
			pod := scheduler.NewPod(obj)
			pods := map[types.UID]*corev1.Pod{obj.UID: obj.DeepCopy()}
			for uid, p := range c.placed {
				pods[uid] = p.DeepCopy()
			}
			nodes := map[string]*corev1.Node{}
			for name, n := range c.nodes {
				nodes[name] = n.DeepCopy()
			}
			requests, scored := pod.Requests.Clone(), pod.Scored.Clone()
			e.Decide(pod)
			e.Hint(pod, []string{p.Name()}, scheduler.ClusterChange{AssignedPod: pod})
			if !requests.Equal(&pod.Requests) || !scored.Equal(&pod.Scored) {
				return failure(seed, step, "the pod's requests were modified")
			}
			for uid, before := range pods {
				now := c.placed[uid]
				if uid == obj.UID {
					now = obj
				}
				if !reflect.DeepEqual(before, now) {
					return failure(seed, step, "pod %s was modified", uid)
				}
			}
			for name, before := range nodes {
				if !reflect.DeepEqual(before, c.nodes[name]) {
					return failure(seed, step, "node %s was modified", name)
				}
			}
		}
	}
	return nil
}

// answer is what a plugin says of a pod and a node, regardless of others.
type answer struct {
	Rejection *scheduler.Rejection
	Score     int64
}

func ask(p scheduler.Plugin, pod *scheduler.Pod, node *scheduler.Node) (a answer) {
	if f, ok := p.(scheduler.FilterPlugin); ok {
		if r := f.Filter(pod, node); r != nil {
			a.Rejection = &scheduler.Rejection{Reasons: slices.Clone(r.Reasons), Unresolvable: r.Unresolvable}
			return a
		}
	}
	if s, ok := p.(scheduler.ScorePlugin); ok {
		a.Score = s.Score(pod, node)
	}
	return a
}

func scopeOf(p scheduler.Plugin) scheduler.Scope {
	if s, ok := p.(scheduler.Scoped); ok {
		return s.Scope()
	}
	return scheduler.ScopeCluster
}

// checkScope looks whether answers change with what they must not depend on.
func checkScope(newPlugin func() scheduler.Plugin, o Options) error {
	p := newPlugin()
	scope := scopeOf(p)
	if scope == scheduler.ScopeCluster {
		return nil
	}
	for seed := range uint64(o.Clusters) {
		c := newCluster(o, seed)
		e, err := c.engine(p)
		if err != nil {
			return err
		}
		for step := range o.Events {
			pod := scheduler.NewPod(c.pod())
			before := map[string]answer{}
			for name := range c.nodes {
				before[name] = ask(p, pod, e.Node(name))
			}
			nodes, placed := maps.Clone(c.nodes), maps.Clone(c.placed)
			_, podsOnly := c.event(e)
			for name, was := range before {
				if c.nodes[name] != nodes[name] || scope == scheduler.ScopeNodePods && podsOnly && !sameOn(name, placed, c.placed) {
					continue
				}
				if now := ask(p, pod, e.Node(name)); !reflect.DeepEqual(was, now) {
					return failure(seed, step, "the answer for node %s changed from %+v to %+v, though nothing of its scope did", name, was, now)
				}
			}
		}
	}
	return nil
}

func sameOn(node string, a, b map[types.UID]*corev1.Pod) bool {
	on := func(m map[types.UID]*corev1.Pod) map[types.UID]*corev1.Pod {
		out := map[types.UID]*corev1.Pod{}
		for uid, p := range m {
			if p.Spec.NodeName == node {
				out[uid] = p
			}
		}
		return out
	}
	return maps.Equal(on(a), on(b))
}

// checkSign looks whether pods of one signature get the same answers.
func checkSign(newPlugin func() scheduler.Plugin, o Options) error {
	p := newPlugin()
	s, ok := p.(scheduler.Signer)
	if !ok {
		return nil
	}
	for seed := range uint64(o.Clusters) {
		c := newCluster(o, seed)
		e, err := c.engine(p)
		if err != nil {
			return err
		}
		classes := map[string]*scheduler.Pod{}
		for step := range o.Events {
			c.event(e)
			pod := scheduler.NewPod(c.pod())
			sign := string(s.Sign(pod, nil))
			if with := string(s.Sign(pod, []byte("before"))); with != "before"+sign {
				return failure(seed, step, "Sign must append to what it is given")
			}
			other := classes[sign]
			classes[sign] = pod
			if other == nil {
				continue
			}
			for name := range c.nodes {
				if a, b := ask(p, pod, e.Node(name)), ask(p, other, e.Node(name)); !reflect.DeepEqual(a, b) {
					return failure(seed, step, "pods %s and %s have one signature, but node %s is %+v for one and %+v for the other",
						pod.Object.Name, other.Object.Name, name, a, b)
				}
			}
		}
	}
	return nil
}

// checkCached compares an engine that has seen all events with one that is made anew for each decision, and with one that caches nothing.
func checkCached(newPlugin func() scheduler.Plugin, o Options) error {
	for seed := range uint64(o.Clusters) {
		c := newCluster(o, seed)
		e, err := c.engine(newPlugin())
		if err != nil {
			return err
		}
		var classes []*corev1.Pod // decided again and again, so that caches are used
		for range 4 {
			classes = append(classes, c.pod())
		}
		for step := range o.Events {
			c.event(e)
			obj := pick(c.r, classes...)
			if c.r.IntN(3) == 0 {
				obj = c.pod()
			}
			got := e.Decide(scheduler.NewPod(obj))
			for what, p := range map[string]scheduler.Plugin{"a new engine": newPlugin(), "one that caches nothing": uncached(newPlugin())} {
				fresh, err := c.engine(p)
				if err != nil {
					return err
				}
				want := fresh.Decide(scheduler.NewPod(obj))
				if !reflect.DeepEqual(outcomeOf(&got), outcomeOf(&want)) {
					return failure(seed, step, "decided %+v, but %s says %+v", outcomeOf(&got), what, outcomeOf(&want))
				}
			}
		}
	}
	return nil
}

// checkHint looks whether each change that makes a pod fit is let through.
func checkHint(newPlugin func() scheduler.Plugin, o Options) error {
	for seed := range uint64(o.Clusters) {
		c := newCluster(o, seed)
		p := newPlugin()
		e, err := c.engine(p)
		if err != nil {
			return err
		}
		var waiting []*scheduler.Pod
		for range 8 {
			waiting = append(waiting, scheduler.NewPod(c.pod()))
		}
		for step := range o.Events {
			unfit := map[*scheduler.Pod]bool{}
			for _, w := range waiting {
				d := e.Decide(w)
				unfit[w] = !d.Fits() && slices.Contains(d.Plugins, p.Name())
			}
			changes, _ := c.event(e)
			for i, w := range waiting {
				if !unfit[w] {
					waiting[i] = scheduler.NewPod(c.pod())
					continue
				}
				d := e.Decide(w)
				if !d.Fits() {
					continue
				}
				if !slices.ContainsFunc(changes, func(ch scheduler.ClusterChange) bool { return e.Hint(w, []string{p.Name()}, ch) }) {
					return failure(seed, step, "pod %s fits now, but Hint says that nothing of what happened could help: %s", w.Object.Name, describe(changes))
				}
			}
		}
	}
	return nil
}

func describe(changes []scheduler.ClusterChange) string {
	var names []string
	for _, c := range changes {
		v := reflect.ValueOf(c)
		for i := range v.NumField() {
			if !v.Field(i).IsZero() {
				names = append(names, v.Type().Field(i).Name)
			}
		}
	}
	return strings.Join(names, ", ")
}

// checkScores looks at the range of scores, and at normalization.
func checkScores(newPlugin func() scheduler.Plugin, o Options) error {
	for seed := range uint64(o.Clusters) {
		c := newCluster(o, seed)
		p := newPlugin()
		w := &watched{Plugin: p}
		e, err := c.engine(w)
		if err != nil {
			return err
		}
		for step := range o.Events {
			c.event(e)
			pod := scheduler.NewPod(c.pod())
			e.Decide(pod)
			if w.err != nil {
				return failure(seed, step, "%v", w.err)
			}
			s, ok := p.(scheduler.ScorePlugin)
			if !ok {
				continue
			}
			var raw []int64
			for name := range c.nodes {
				raw = append(raw, s.Score(pod, e.Node(name)))
			}
			if err := checkRange(p, pod, raw); err != nil {
				return failure(seed, step, "%v", err)
			}
		}
	}
	return nil
}

func checkRange(p scheduler.Plugin, pod *scheduler.Pod, raw []int64) error {
	if len(raw) == 0 {
		return nil
	}
	slices.Sort(raw)
	least, greatest := raw[0], raw[len(raw)-1]
	n, ok := p.(scheduler.Normalizer)
	if !ok {
		if least < 0 || greatest > scheduler.MaxScore {
			return fmt.Errorf("scores from %d to %d: want 0 to %d, or a Normalizer", least, greatest, scheduler.MaxScore)
		}
		return nil
	}
	if n.Indifferent(pod) && least != greatest {
		return fmt.Errorf("the plugin is Indifferent to a pod, but scores nodes from %d to %d", least, greatest)
	}
	rising, falling := true, true
	for i, v := range raw {
		got := n.Normalize(v, least, greatest)
		if got < 0 || got > scheduler.MaxScore {
			return fmt.Errorf("%d is normalized to %d, where the scores are from %d to %d: want 0 to %d", v, got, least, greatest, scheduler.MaxScore)
		}
		if i > 0 {
			before := n.Normalize(raw[i-1], least, greatest)
			rising, falling = rising && got >= before, falling && got <= before
		}
	}
	if !rising && !falling {
		return fmt.Errorf("the normalization of %v is not monotonic", raw)
	}
	return nil
}
