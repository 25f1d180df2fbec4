package sim

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// checker verifies the invariants from the objects alone: it shares no code with the engine and its plugins.
type checker struct {
	sim *Simulation
}

// all verifies the state after a step.
func (c *checker) all() error {
	s := c.sim
	placed, waiting := 0, 0
	for _, n := range s.order {
		if n.down && len(n.pods) > 0 {
			return fmt.Errorf("%d pods are on %s, which is down", len(n.pods), n.obj.Name)
		}
		if err := c.room(n); err != nil {
			return err
		}
		for i, p := range n.pods {
			if s.pods[p.key] != p || p.node != n || p.at != i {
				return fmt.Errorf("%s is on %s, and not", p.key, n.obj.Name)
			}
			if on := s.engine.Assigned(p.spod.Object.UID); on != n.obj.Name {
				return fmt.Errorf("%s is on %s, for the engine on %q", p.key, n.obj.Name, on)
			}
		}
		placed += len(n.pods)
		if en := s.engine.Node(n.obj.Name); (en == nil) != n.down || en != nil && en.Len() != len(n.pods) {
			return fmt.Errorf("the engine sees node %s otherwise", n.obj.Name)
		}
	}
	gangs := map[*gang]bool{}
	tried := map[*shape]bool{} // of which at least one is in the queue
	for _, p := range s.waiting {
		tried[p.shape] = true
	}
	for _, p := range s.pods {
		if p.parked {
			waiting++
			if p.node != nil || p.gang == nil && (p.spod != nil || !tried[p.shape]) || p.gang != nil && s.waiting[p.gang.leader.spod] != p.gang.leader {
				return fmt.Errorf("%s is in line, and not, or behind nobody", p.key)
			}
		} else if p.node == nil && p.spod != nil {
			waiting++
			if s.waiting[p.spod] != p {
				return fmt.Errorf("%s waits, but is lost", p.key)
			}
		}
		if p.gang != nil {
			gangs[p.gang] = true
		}
	}
	m := s.metrics
	if placed != m.running || waiting != m.pending || waiting != s.queue.Len()+s.parked || placed+waiting+m.delayed != len(s.pods) || m.submitted != m.ended+len(s.pods) {
		return fmt.Errorf("pods don't add up: %d submitted, %d ended, %d exist, %d placed (%d counted), %d wait (%d counted, %d in the queue, %d in line), %d delayed",
			m.submitted, m.ended, len(s.pods), placed, m.running, waiting, m.pending, s.queue.Len(), s.parked, m.delayed)
	}
	for g := range gangs {
		if err := g.check(); err != nil {
			return err
		}
	}
	return nil
}

// room verifies that a node's pods don't ask for more than it has.
func (c *checker) room(n *node) error {
	sum := corev1.ResourceList{}
	for _, p := range n.pods {
		for name, q := range resourcehelper.PodRequests(p.spod.Object, resourcehelper.PodResourcesOptions{}) {
			have := sum[name]
			have.Add(q)
			sum[name] = have
		}
	}
	for name, used := range sum {
		if total := n.obj.Status.Allocatable[name]; used.Cmp(total) > 0 {
			return fmt.Errorf("pods on %s ask for %s of %s, which is more than %s", n.obj.Name, used.String(), name, total.String())
		}
	}
	if most := n.obj.Status.Allocatable[corev1.ResourcePods]; int64(len(n.pods)) > most.Value() {
		return fmt.Errorf("%d pods are on %s, which is for %s", len(n.pods), n.obj.Name, most.String())
	}
	return nil
}

// placing verifies that no required rule forbids to put a pod on a node. It is called before that is done.
func (c *checker) placing(p *pod, n *node) error {
	for _, rule := range rules {
		if !c.inProfile(p.spod.Object, rule.plugin) {
			continue
		}
		if err := rule.broken(c.sim, p.spod.Object, n); err != nil {
			return fmt.Errorf("%s on %s breaks %s: %w", p.key, n.obj.Name, rule.plugin, err)
		}
	}
	return nil
}

// inProfile reports whether the profile that decides for a pod has a plugin: rules that nobody asked for aren't broken.
func (c *checker) inProfile(pod *corev1.Pod, name string) bool {
	profile := c.sim.opts.Engine.Profile
	for _, p := range c.sim.opts.Engine.Profiles {
		if p.Name == pod.Spec.SchedulerName {
			profile = p.Plugins
		}
	}
	for _, w := range profile {
		if w.Plugin.Name() == name {
			return true
		}
	}
	return false
}

type rule struct {
	plugin string
	broken func(s *Simulation, pod *corev1.Pod, n *node) error
}

// others calls f for each pod that is on a node, until it returns an error.
func (s *Simulation) others(f func(*corev1.Pod, *node) error) error {
	for _, n := range s.order {
		for _, p := range n.pods {
			if err := f(p.spod.Object, n); err != nil {
				return err
			}
		}
	}
	return nil
}

func sameDomain(a, b *corev1.Node, key string) bool {
	x, ok := a.Labels[key]
	y, also := b.Labels[key]
	return ok && also && x == y
}

func hostPorts(pod *corev1.Pod) (out []corev1.ContainerPort) {
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, p := range c.Ports {
			if p.HostPort > 0 {
				out = append(out, p)
			}
		}
	}
	return out
}
