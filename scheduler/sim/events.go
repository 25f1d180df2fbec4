package sim

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
)

// apply does what an event says.
func (s *Simulation) apply(e *Event) error {
	switch e.Kind {
	case Submit:
		return s.submit(e)
	case Cancel:
		if p := s.pods[e.Name]; p != nil {
			s.log.pod("cancel", p)
			s.metrics.cancelled++
			s.end(p)
		}
		return nil
	case AddNode:
		if e.Node == nil || e.Node.Name == "" {
			return fmt.Errorf("%v: want a node with a name", e.Kind)
		}
		s.addNode(e.Node)
		return nil
	case SetObject:
		return s.setObject(e.Object)
	case DeleteObject:
		return s.deleteObject(e.Object)
	}
	n := s.nodes[e.Name]
	if n == nil {
		return fmt.Errorf("%v: no node %q", e.Kind, e.Name)
	}
	switch e.Kind {
	case FailNode:
		if !n.down {
			s.log.node(e.Kind, n)
			s.nodeDown(n, "node-fail")
		}
	case RecoverNode:
		if n.down || n.obj.Spec.Unschedulable {
			s.log.node(e.Kind, n)
			s.setNode(n, cordoned(n.obj, false))
		}
	case DrainNode:
		s.log.node(e.Kind, n)
		if !n.down {
			s.setNode(n, cordoned(n.obj, true))
			s.evictAll(n, "drain")
		}
	case RemoveNode:
		s.log.node(e.Kind, n)
		if !n.down {
			s.nodeDown(n, "node-remove")
		}
		delete(s.nodes, e.Name)
		s.order = slices.DeleteFunc(s.order, func(o *node) bool { return o == n })
	default:
		return fmt.Errorf("event of unknown kind %d", int(e.Kind))
	}
	return nil
}

func cordoned(obj *corev1.Node, yes bool) *corev1.Node {
	if obj.Spec.Unschedulable == yes {
		return obj
	}
	c := *obj
	c.Spec.Unschedulable = yes
	return &c
}

func (s *Simulation) submit(e *Event) error {
	if len(e.Pods) == 0 || e.Min < 0 || e.Min > len(e.Pods) {
		return fmt.Errorf("submit of %d pods with a minimum of %d: want at least one pod, and no greater minimum", len(e.Pods), e.Min)
	}
	var g *gang
	if e.Min > 0 {
		g = &gang{min: e.Min}
	}
	for i := range e.Pods {
		spec := &e.Pods[i]
		if spec.Template == nil || spec.Name == "" || spec.Run < 0 {
			return fmt.Errorf("submit: pod %q: want a name, a template and a run time of 0 or more", spec.Name)
		}
		p := &pod{Pod: *spec, key: spec.Namespace + "/" + spec.Name, gang: g}
		if s.pods[p.key] != nil {
			return fmt.Errorf("submit: there is a pod %s already", p.key)
		}
		p.shape = s.shapeOf(spec)
		if g != nil && i > 0 && p.shape.proto.Priority != g.pods[0].shape.proto.Priority {
			return fmt.Errorf("submit: pod %s has another priority than others of its gang: want one", p.key)
		}
		p.shape.live++
		p.shape.seen++
		s.pods[p.key] = p
		s.metrics.submitted++
		if g != nil {
			g.pods = append(g.pods, p)
		}
		s.enqueue(p)
	}
	return nil
}

// addNode adds a node or replaces its object.
func (s *Simulation) addNode(obj *corev1.Node) {
	n := s.nodes[obj.Name]
	if n == nil {
		n = &node{down: true}
		s.nodes[obj.Name] = n
		s.order = append(s.order, n)
	}
	s.setNode(n, obj)
	s.log.node(AddNode, n)
}

// setNode brings a node up with that object.
func (s *Simulation) setNode(n *node, obj *corev1.Node) {
	if !n.down {
		s.metrics.nodeGone(n)
	}
	n.obj, n.zone, n.down = obj, obj.Labels[corev1.LabelTopologyZone], false
	change := s.engine.SetNode(obj)
	clear(n.alloc)
	for name, v := range change.Node.Allocatable.All() {
		if name != corev1.ResourcePods {
			n.alloc = set(n.alloc, s.column(name), v)
		}
	}
	s.metrics.nodeThere(n)
	s.queue.Changed(change, instant(s.now))
}

// nodeDown takes a node away, with all that runs there.
func (s *Simulation) nodeDown(n *node, why string) {
	s.evictAll(n, why)
	n.down = true
	s.metrics.nodeGone(n)
	s.queue.Changed(s.engine.DeleteNode(n.obj.Name), instant(s.now))
}

func (s *Simulation) evictAll(n *node, why string) {
	for len(n.pods) > 0 {
		s.lose(n.pods[len(n.pods)-1], why)
	}
}

// lose takes a pod off its node before its time; it comes again.
func (s *Simulation) lose(p *pod, why string) {
	s.log.podBecause("evict", p, why)
	s.metrics.evicted++
	s.release(p)
	s.again(p)
}

// release frees the place of a pod.
func (s *Simulation) release(p *pod) {
	s.metrics.unplaced(p)
	p.node.take(p)
	p.ending = false
	if p.gang != nil {
		p.gang.placed--
	}
	s.engine.Remove(p.spod.Object.UID)
	delete(s.placed, p.spod.Object.UID)
	s.queue.Changed(scheduler.ClusterChange{FreedPod: p.spod}, instant(s.now))
}

// again submits a pod once more, as another pod of the same name.
func (s *Simulation) again(p *pod) {
	s.dropClaims(p)
	p.spod = nil
	s.plan(s.opts.ResubmitDelay, resubmit, p)
	s.metrics.delayed++
}

// fire does what was planned.
func (s *Simulation) fire(t timer) {
	if t.kind == provisioned {
		s.provisioned(t.claim, t.uid)
		return
	}
	p := t.pod
	if p.life != t.life || s.pods[p.key] != p {
		return
	}
	switch t.kind {
	case finish:
		if p.node == nil || p.ending {
			return
		}
		s.finished(p)
	case gone:
		if p.node == nil || !p.ending {
			return // it was lost meanwhile
		}
		s.release(p)
		s.again(p)
	case resubmit:
		s.metrics.delayed--
		s.enqueue(p)
	}
}

func (s *Simulation) finished(p *pod) {
	if !p.Fails {
		s.log.pod("finish", p)
		s.metrics.finished++
		s.end(p)
		return
	}
	s.log.pod("fail", p)
	s.metrics.failed++
	if p.failures++; p.failures <= p.Retries {
		s.release(p)
		s.again(p)
		return
	}
	s.end(p)
}

// end forgets a pod.
func (s *Simulation) end(p *pod) {
	switch {
	case p.node != nil:
		s.release(p)
	case p.parked:
		s.unpark(p)
		if p.spod != nil {
			s.nominate(p.spod, "")
		}
		s.metrics.pending--
	case p.spod != nil:
		s.unqueue(p)
		s.metrics.pending--
		s.passed(p)
	default:
		s.metrics.delayed--
	}
	s.dropClaims(p)
	if g := p.gang; g != nil {
		g.ended++
		g.pods = slices.DeleteFunc(g.pods, func(o *pod) bool { return o == p })
	}
	delete(s.pods, p.key)
	if p.shape.live--; p.shape.live == 0 && len(s.shapes) > maxShapes {
		delete(s.shapes, p.shape.key)
	}
	s.metrics.ended++
}

func (s *Simulation) unqueue(p *pod) {
	s.queue.Remove(p.spod.Object.UID)
	s.engine.Nominate(p.spod, "")
	delete(s.waiting, p.spod)
}
