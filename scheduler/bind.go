package scheduler

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// slow reports whether something has to be done before the pod can be bound.
func (s *Scheduler) slow(p *placed) bool {
	if len(p.prof.at(AtPreBind)) > 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.engine.VolumePlan(p.pod.key()).Empty()
}

// preBind does that.
func (s *Scheduler) preBind(ctx context.Context, p *placed) error {
	if err := s.bindVolumes(ctx, p.pod); err != nil {
		return err
	}
	for _, w := range p.prof.at(AtPreBind) {
		if err := w.preBind.PreBind(ctx, p.pod, p.node); err != nil {
			return fmt.Errorf("running PreBind plugin %q: %w", w.name, err)
		}
	}
	return nil
}

// bind binds a pod, by the first plugin that does, or else through the API.
func (s *Scheduler) bind(ctx context.Context, p *placed) error {
	if handled, err := s.outside.bind(ctx, p); handled || err != nil {
		return err
	}
	for _, w := range p.prof.at(AtBind) {
		handled, err := w.bind.Bind(ctx, p.pod, p.node)
		if err != nil {
			return fmt.Errorf("binding rejected: running Bind plugin %q: %w", w.name, err)
		}
		if handled {
			return nil
		}
	}
	tctx, cancel := context.WithTimeout(ctx, s.opts.BindTimeout)
	defer cancel()
	return bindOne(tctx, s.client, p)
}

// bound tells of a pod that was bound. One whose binding failed gives its place back and is tried again.
func (s *Scheduler) bound(ctx context.Context, p *placed, err error) {
	obj := p.pod.Object
	if err == nil {
		now := s.opts.Clock.Now()
		s.metrics.bound(p.w, now)
		s.metrics.attempt(p.prof.name, "scheduled", now.Sub(p.began))
		s.recorder(obj).Eventf(obj, corev1.EventTypeNormal, "Scheduled", "Successfully assigned %s/%s to %s", obj.Namespace, obj.Name, p.node)
		s.mu.Lock()
		if s.queue.pods[p.pod.key()] == p.w {
			s.queue.remove(p.pod.key())
		}
		s.mu.Unlock()
		for _, w := range p.prof.at(AtPostBind) {
			w.postBind.PostBind(ctx, p.pod, p.node)
		}
		return
	}
	if ctx.Err() != nil {
		return
	}
	var r *report
	s.mu.Lock()
	// The watch may have told of the pod's assignment or end meanwhile: then it isn't in the queue any more.
	if s.queue.pods[p.pod.key()] == p.w {
		r = s.giveBack(p, err)
		if apierrors.IsNotFound(err) {
			s.queue.remove(p.pod.key())
			r = nil
		}
	} else {
		s.abandoned(p)
	}
	s.mu.Unlock()
	s.kick()
	if r != nil {
		s.opts.Logger.Error(err, "binding failed", "pod", client.ObjectKeyFromObject(obj), "node", p.node)
		s.report(ctx, *r)
	}
}
