package scheduler

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// cycle is the loop that takes one pod after the other.
type cycle struct {
	s       *Scheduler
	ctx     context.Context // of Run, whose call the cycle is
	wg      *sync.WaitGroup
	reports chan<- report
	// binders has room for as many as may bind at once.
	binders chan struct{}
	batches *batches
}

// placed is a pod on its way to be bound.
type placed struct {
	w       *waiting
	pod     *Pod
	node    string
	prof    *profile
	began   time.Time // when the attempt did
	changes uint64    // Scheduler.changes then
	// unseen: nothing was decided while the pod had its place, so that its leaving helps nobody. Two pods that get no permission would wake each other for ever.
	unseen bool
}

// outcome is what is to be done after a step of the cycle, without the lock.
type outcome struct {
	bind    *placed
	report  *report
	preempt *eviction
	// consult has extenders to be asked about before it can be placed.
	consult *placed
	// group are the outcomes of the pods of a group, and condition what is to be said of it.
	group     []outcome
	condition *groupCondition
	// consultGroup is a group whose pods extenders are to be asked about, which keeps no others waiting.
	consultGroup *groupConsultation
	next         time.Time // with nothing to do: when there may be; zero if only a change can bring it
}

func (c *cycle) run() {
	s := c.s
	stuck := s.opts.Clock.After(30 * time.Second)
	for {
		o := s.step()
		if o.consult != nil {
			o = s.consult(c.ctx, o.consult)
		}
		if !c.carryOut(&o) {
			return
		}
		if o.bind != nil || o.report != nil || o.consultGroup != nil || len(o.group) > 0 {
			continue
		}
		var timer <-chan time.Time
		if !o.next.IsZero() {
			timer = s.opts.Clock.After(max(o.next.Sub(s.opts.Clock.Now()), 0))
		}
		select {
		case <-c.ctx.Done():
			return
		case <-s.wake:
		case <-timer:
		case <-stuck:
			s.mu.Lock()
			s.queue.wakeOld(s.opts.Clock.Now())
			s.mu.Unlock()
			stuck = s.opts.Clock.After(30 * time.Second)
		}
	}
}

// carryOut starts what an outcome asks for; it returns false when the cycle ends.
func (c *cycle) carryOut(o *outcome) bool {
	if o.preempt != nil {
		c.wg.Go(func() { c.s.evict(c.ctx, o.preempt) })
	}
	if o.consultGroup != nil {
		c.wg.Go(func() { c.s.consultGroup(c.ctx, o.consultGroup) })
	}
	if o.condition != nil {
		c.wg.Go(func() { c.s.writeCondition(c.ctx, o.condition) })
	}
	for i := range o.group {
		if !c.carryOut(&o.group[i]) {
			return false
		}
	}
	if o.report != nil {
		select {
		case <-c.ctx.Done():
			return false
		case c.reports <- *o.report:
		}
	}
	return o.bind == nil || c.bind(*o.bind)
}

// bind starts the binding of a pod. Those that may have to wait before they are bound don't keep others from it.
func (c *cycle) bind(p placed) bool {
	if c.s.slow(&p) {
		c.wg.Go(func() {
			if err := c.s.preBind(c.ctx, &p); err != nil {
				c.s.bound(c.ctx, &p, err)
			} else if c.seat() {
				c.bindSeated(&p)
			}
		})
		return true
	}
	if !c.seat() {
		return false
	}
	c.bindSeated(&p)
	return true
}

// bindSeated binds a pod that has a seat, and tells of it.
func (c *cycle) bindSeated(p *placed) {
	if c.batches.takes(p) {
		c.batches.add(p)
		return
	}
	c.wg.Go(func() {
		defer func() { <-c.binders }()
		c.s.bound(c.ctx, p, c.s.bind(c.ctx, p))
	})
}

func (c *cycle) seat() bool {
	select {
	case <-c.ctx.Done():
		return false
	case c.binders <- struct{}{}:
		return true
	}
}

// step goes on with a pod that has permission, or handles the next one of the queue: it is placed, or rejected.
func (s *Scheduler) step() (o outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.opts.Clock.Now()
	for _, uid := range s.activations.take() {
		s.queue.force(uid, now)
	}
	if len(s.heard) > 0 {
		o, s.heard = s.heard[0], s.heard[1:]
		return o
	}
	done, next := s.permits.take(now)
	if done != nil {
		return s.permitted(done, now)
	}
	w := s.queue.pop(now)
	if w == nil {
		if at, ok := s.queue.next(); ok && (next.IsZero() || at.Before(next)) {
			next = at
		}
		return outcome{next: next}
	}
	if g := s.engine.groupOf(w.pod); g.Name != "" {
		return s.stepGroup(w, g, now)
	}
	p := placed{w: w, pod: w.pod, prof: s.engine.profileOf(w.pod), began: now, changes: s.changes}
	if s.outside.concerns(w.pod) {
		return outcome{consult: &p}
	}
	d := s.engine.Decide(w.pod)
	s.metrics.algorithm.Observe(s.opts.Clock.Since(now).Seconds())
	if !d.Fits() {
		return s.unfit(&p, &d, s.engine.Preempt(w.pod, &d))
	}
	return s.place(&p, d.Node)
}

// place takes a decision.
func (s *Scheduler) place(p *placed, node string) outcome {
	p.node, p.unseen = node, true
	s.engine.Assign(p.pod, node)
	if err := s.engine.Reserve(p.pod, node); err != nil {
		return outcome{report: s.giveBack(p, err)}
	}
	return s.permit(p)
}

// unfit puts a pod aside that fits nowhere, and makes the room for it that was proposed, if any.
func (s *Scheduler) unfit(p *placed, d *Decision, e *Preemption) (o outcome) {
	now := s.opts.Clock.Now()
	pod := p.pod
	r := &report{pod: pod, reason: corev1.PodReasonUnschedulable}
	if d.Nodes > 0 {
		s.metrics.preemptions.Inc()
	}
	switch {
	case e == nil:
	case e.Node == "":
		s.engine.Nominate(pod, "")
		r.nominate = new(string)
	default:
		s.metrics.victims.Observe(float64(len(e.Victims)))
		o.preempt = s.makeRoom(pod, e)
		r.nominate = &e.Node
	}
	s.metrics.attempt(p.prof.name, "unschedulable", s.opts.Clock.Since(p.began))
	s.queue.fail(p.w, d.Plugins, now)
	r.message = d.Message()
	o.report = r
	return o
}

// permit asks the PermitPlugins about a pod that has its place.
func (s *Scheduler) permit(p *placed) outcome {
	var until map[string]time.Time
	for _, w := range p.prof.at(AtPermit) {
		switch answer := w.permit.Permit(p.pod, p.node); {
		case answer.Reject != nil:
			if answer.Reject.Plugin == "" {
				answer.Reject.Plugin = w.name
			}
			return outcome{report: s.denied(p, answer.Reject)}
		case answer.Wait > 0:
			if until == nil {
				until = map[string]time.Time{}
			}
			until[w.name] = p.began.Add(answer.Wait)
		}
	}
	p.unseen = false
	if until == nil {
		return outcome{bind: p}
	}
	s.permits.add(&permitted{placed: *p, until: until})
	return outcome{report: &report{}}
}

// permitted goes on with a pod that waited for permission.
func (s *Scheduler) permitted(w *permitted, now time.Time) outcome {
	if s.queue.pods[w.pod.key()] != w.w {
		s.abandoned(&w.placed) // it is gone, or was bound by somebody else
		return outcome{report: &report{}}
	}
	if w.rejected == nil {
		s.metrics.permit.WithLabelValues("allowed").Observe(now.Sub(w.began).Seconds())
		return outcome{bind: &w.placed}
	}
	s.metrics.permit.WithLabelValues("rejected").Observe(now.Sub(w.began).Seconds())
	return outcome{report: s.denied(&w.placed, w.rejected)}
}

// denied takes the place back from a pod that got no permission. If something changed meanwhile it is tried again, for the change may have been what
// helps it.
func (s *Scheduler) denied(p *placed, r *Rejection) *report {
	now := s.opts.Clock.Now()
	changed := s.changes != p.changes // before its own leaving, which is no help to itself
	s.free(p)
	s.queue.fail(p.w, []string{r.Plugin}, now)
	if changed && p.w.place == inStuck {
		s.queue.wake(p.w, now, eventFailure)
	}
	s.metrics.attempt(p.prof.name, "unschedulable", now.Sub(p.began))
	message := ""
	if len(r.Reasons) > 0 {
		message = r.Reasons[0]
	}
	return &report{pod: p.pod, reason: corev1.PodReasonUnschedulable, message: message, nominate: new(string)}
}

// giveBack takes the place back from a pod that could not be bound, which will be tried again.
func (s *Scheduler) giveBack(p *placed, err error) *report {
	now := s.opts.Clock.Now()
	s.free(p)
	s.queue.retry(p.w, now)
	s.metrics.attempt(p.prof.name, "error", now.Sub(p.began))
	return &report{pod: p.pod, reason: corev1.PodReasonSchedulerError, message: err.Error(), nominate: new(string), err: err}
}

// free undoes the placing of a pod, and its nomination.
func (s *Scheduler) free(p *placed) {
	if p.node == "" {
		s.engine.Nominate(p.pod, "")
		return
	}
	s.engine.Unreserve(p.pod, p.node)
	if s.engine.Remove(p.pod.key()) != nil {
		if !p.unseen {
			s.helped(ClusterChange{FreedPod: p.pod})
		}
	}
}

// abandoned lets plugins free what they keep for a pod that left the queue while it was on its way.
func (s *Scheduler) abandoned(p *placed) {
	if s.engine.Assigned(p.pod.key()) != p.node {
		s.engine.Unreserve(p.pod, p.node)
	}
}

// gate keeps pods from being tried while their victims are being removed or extenders are asked about their group, and those that plugins keep.
func (s *Scheduler) gate(pod *Pod) string {
	if s.preempting[pod.key()] {
		return preemptionGate
	}
	if len(s.consulting) > 0 && s.consulting[s.engine.groupOf(pod).Name] {
		return s.engine.profileOf(pod).group.name
	}
	return s.engine.gate(pod)
}

// preemptionGate is the plugin that kube-scheduler names for it.
const preemptionGate = "DefaultPreemption"
