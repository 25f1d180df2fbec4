package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// outside is the plugin by which a Scheduler's extenders have their say: it lists the nodes that all others find feasible, and then speaks with the
// extenders' voices. It is guarded by the Scheduler's lock, as the engine is.
type outside struct {
	extenders []Extender
	// consulted are the pods in question. Of others the plugin has nothing to say.
	consulted map[*Pod]*consultation
}

// consultation is what is known of one pod in one attempt.
type consultation struct {
	pod       *Pod
	extenders []Extender
	asked     map[string]bool
	rejected  map[string]*Rejection
	scores    map[string]int64
	// feasible are the nodes that were found so in the last decision.
	feasible []*corev1.Node
	// closed: nobody is asked any more.
	closed bool
}

// maxRounds bounds how often extenders are asked for one decision, where nodes come while they think.
const maxRounds = 5

func newOutside(extenders []Extender) (*outside, error) {
	if slices.Contains(extenders, nil) {
		return nil, errors.New("scheduler: Options.Extenders: one is nil")
	}
	ordered := slices.Clone(extenders)
	slices.SortStableFunc(ordered, func(a, b Extender) int {
		switch {
		case a.Ignorable() == b.Ignorable():
			return 0
		case a.Ignorable():
			return 1
		}
		return -1
	})
	return &outside{extenders: ordered}, nil
}

// consultation begins one about a pod; nil if no extender is to be asked.
func (o *outside) consultation(pod *Pod) *consultation {
	c := &consultation{pod: pod, asked: map[string]bool{}, rejected: map[string]*Rejection{}, scores: map[string]int64{}}
	for _, x := range o.extenders {
		if x.Interested(pod.Object) {
			c.extenders = append(c.extenders, x)
		}
	}
	if len(c.extenders) == 0 {
		return nil
	}
	return c
}

// decide decides by what the extenders have said so far. Where there are feasible nodes that they have said nothing of, it returns those.
func (c *consultation) decide(e *Engine) (d Decision, unknown []*corev1.Node) {
	c.feasible = nil
	if d = e.Decide(c.pod); !d.Fits() {
		return d, nil
	}
	if c.feasible == nil { // it is where it was nominated
		c.feasible = []*corev1.Node{e.Node(d.Node).Object}
	}
	for _, n := range c.feasible {
		if !c.asked[n.Name] {
			unknown = append(unknown, n)
		}
	}
	return d, unknown
}

// in adds the plugin to profiles.
func (o *outside) in(profiles []NamedProfile) []NamedProfile {
	if len(o.extenders) == 0 {
		return profiles
	}
	out := slices.Clone(profiles)
	for i := range out {
		out[i].Plugins = append(slices.Clip(out[i].Plugins), Weighted{Plugin: o})
	}
	return out
}

// Name is that which kube-scheduler gives to all extenders.
func (o *outside) Name() string { return outsideName }

const outsideName = "Extender"

// Prepare implements ClusterPlugin.
func (o *outside) Prepare(pod *Pod, _ *View) (j Judgement, _ *Rejection) {
	c := o.consulted[pod]
	if c == nil {
		return j, nil
	}
	j.Filter = func(n *Node) *Rejection {
		name := n.Object.Name
		if r := c.rejected[name]; r != nil || c.asked[name] || !c.closed {
			return r
		}
		return RejectFull("node(s) changed while extenders were asked")
	}
	j.Scores = func(feasible []*Node, scores []int64) {
		c.feasible = make([]*corev1.Node, len(feasible))
		for i, n := range feasible {
			c.feasible[i] = n.Object
			scores[i] = c.scores[n.Object.Name]
		}
	}
	return j, nil
}

// concerns reports whether an extender is to be asked about the pod.
func (o *outside) concerns(pod *Pod) bool {
	return slices.ContainsFunc(o.extenders, func(x Extender) bool { return x.Interested(pod.Object) })
}

func (o *outside) closeIdle() {
	for _, x := range o.extenders {
		if c, ok := x.(interface{ CloseIdleConnections() }); ok {
			c.CloseIdleConnections()
		}
	}
}

// binds reports whether an extender may bind the pod.
func (o *outside) binds(pod *Pod) bool {
	return slices.ContainsFunc(o.extenders, func(x Extender) bool {
		_, ok := x.(Binder)
		return ok && x.Interested(pod.Object)
	})
}

// bind lets an extender bind the pod.
func (o *outside) bind(ctx context.Context, p *placed) (handled bool, err error) {
	for _, x := range o.extenders {
		if b, ok := x.(Binder); ok && x.Interested(p.pod.Object) {
			if handled, err := b.Bind(ctx, p.pod.Object, p.node); handled || err != nil {
				if err != nil {
					err = fmt.Errorf("binding rejected: %w", err)
				}
				return handled, err
			}
		}
	}
	return false, nil
}

// consult decides for a pod that extenders are to be asked about. The lock is held while the engine decides, not while they are asked.
func (s *Scheduler) consult(ctx context.Context, p *placed) outcome {
	c := s.outside.consultation(p.pod)
	for round := 0; ; round++ {
		c.closed = round == maxRounds
		o, nodes := s.hear(ctx, p, c)
		if len(nodes) == 0 {
			return o
		}
		if err := s.ask(ctx, c, nodes); err != nil {
			return s.unheard(p, err)
		}
	}
}

// hear decides by what the extenders have said so far. If there are feasible nodes that they have said nothing of, it returns those.
func (s *Scheduler) hear(ctx context.Context, p *placed, c *consultation) (o outcome, _ []*corev1.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queue.pods[p.pod.key()] != p.w {
		return outcome{report: &report{}}, nil // it is gone
	}
	now := s.opts.Clock.Now()
	s.outside.consulted = map[*Pod]*consultation{p.pod: c}
	d, unknown := c.decide(s.engine)
	s.outside.consulted = nil
	s.metrics.algorithm.Observe(s.opts.Clock.Since(now).Seconds())
	if len(unknown) > 0 {
		return o, unknown
	}
	if d.Fits() {
		return s.place(p, d.Node), nil
	}
	e, err := s.agreed(ctx, p.pod, &d, c.extenders)
	if err != nil {
		return outcome{report: s.giveBack(p, err)}, nil
	}
	if s.queue.pods[p.pod.key()] != p.w {
		return outcome{report: &report{}}, nil
	}
	return s.unfit(p, &d, e), nil
}

// agreed is a preemption that the extenders agree with. The lock is given up while they are asked.
func (s *Scheduler) agreed(ctx context.Context, pod *Pod, d *Decision, extenders []Extender) (*Preemption, error) {
	for {
		e := s.engine.Preempt(pod, d)
		if e == nil || e.Node == "" {
			return e, nil
		}
		node := e.Node
		s.mu.Unlock()
		e, err := preempt(ctx, pod, e, extenders)
		s.mu.Lock()
		if err != nil || e != nil {
			return e, err
		}
		d.Resolvable = d.Resolvable.Without(node)
	}
}

func preempt(ctx context.Context, pod *Pod, e *Preemption, extenders []Extender) (*Preemption, error) {
	for _, x := range extenders {
		p, ok := x.(Preempter)
		if !ok {
			continue
		}
		kept, err := p.Preempt(ctx, pod.Object, e)
		switch {
		case err != nil && x.Ignorable():
			continue
		case err != nil:
			return nil, err
		case kept == nil:
			return nil, nil
		}
		e = kept
	}
	return e, nil
}

// ask asks the extenders about nodes: each about those that the ones before it left. All that are left are prioritized by all at once.
func (s *Scheduler) ask(ctx context.Context, c *consultation, nodes []*corev1.Node) error {
	for _, n := range nodes {
		c.asked[n.Name] = true
	}
	for _, x := range c.extenders {
		if len(nodes) == 0 {
			return nil
		}
		rejected, err := x.Filter(ctx, c.pod.Object, nodes)
		if err != nil {
			if !x.Ignorable() {
				return err
			}
			s.opts.Logger.Info("extender left out, for it failed and is ignorable", "extender", x.Name(), "error", err.Error())
			continue
		}
		nodes = slices.DeleteFunc(slices.Clone(nodes), func(n *corev1.Node) bool { return rejected[n.Name] != nil })
		maps.Copy(c.rejected, rejected)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, x := range c.extenders {
		wg.Go(func() {
			scores, err := x.Prioritize(ctx, c.pod.Object, nodes)
			if err != nil {
				s.opts.Logger.Info("extender's scores left out, for it failed", "extender", x.Name(), "error", err.Error())
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for name, v := range scores {
				c.scores[name] += v
			}
		})
	}
	wg.Wait()
	return nil
}

// unheard puts a pod back that an extender failed for.
func (s *Scheduler) unheard(p *placed, err error) outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	return outcome{report: s.giveBack(p, err)}
}
