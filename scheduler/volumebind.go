package scheduler

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	volumehelper "k8s.io/component-helpers/storage/volume"
)

// bindVolumes carries out a pod's VolumePlan, if it has one: it writes what was assumed and waits until the volumes' controllers have done the rest.
// When it fails, the caller takes the pod off its node and what was not written is undone.
func (s *Scheduler) bindVolumes(ctx context.Context, pod *Pod) error {
	s.mu.Lock()
	plan := s.engine.VolumePlan(pod.key())
	s.mu.Unlock()
	if plan.Empty() {
		return nil
	}
	if err := s.writeVolumes(ctx, plan); err != nil {
		return err
	}
	timeout := s.opts.Clock.NewTimer(plan.Timeout)
	defer timeout.Stop()
	for {
		s.mu.Lock()
		ready, err := s.engine.volumesReady(pod, plan)
		if ready && err == nil {
			s.engine.VolumesBound(pod.key())
		}
		moved := s.volumesWaited
		if moved == nil {
			moved = make(chan struct{})
			s.volumesWaited = moved
		}
		s.mu.Unlock()
		if err != nil {
			return fmt.Errorf("binding volumes: %w", err)
		}
		if ready {
			return nil
		}
		select {
		case <-moved:
		case <-timeout.C():
			return fmt.Errorf("binding volumes: %w", context.DeadlineExceeded)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// volumesMoved lets those look again that wait for volumes. The caller holds mu.
func (s *Scheduler) volumesMoved() {
	if s.volumesWaited != nil {
		close(s.volumesWaited)
		s.volumesWaited = nil
	}
}

// writeVolumes writes what a plan assumed. What was written stays assumed, whatever becomes of the pod, until the API's events tell of it.
func (s *Scheduler) writeVolumes(ctx context.Context, plan *VolumePlan) error {
	for i := range plan.Bind {
		if !plan.assumed[plan.Bind[i].Volume] {
			continue
		}
		pv := plan.Bind[i].Volume.DeepCopy()
		if err := s.write(ctx, func(ctx context.Context) error { return s.client.Update(ctx, pv) }); err != nil {
			return err
		}
		s.mu.Lock()
		plan.Bind[i].Volume = pv
		s.mu.Unlock()
	}
	for i := range plan.Provision {
		if !plan.assumed[plan.Provision[i]] {
			continue
		}
		claim := plan.Provision[i].DeepCopy()
		if err := s.write(ctx, func(ctx context.Context) error { return s.client.Update(ctx, claim) }); err != nil {
			return err
		}
		s.mu.Lock()
		plan.Provision[i] = claim
		s.mu.Unlock()
	}
	return nil
}

func (s *Scheduler) write(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.BindTimeout)
	defer cancel()
	return f(ctx)
}

// volumesReady reports whether a plan that was written has come true, as the API tells, or why it never will.
func (e *Engine) volumesReady(pod *Pod, plan *VolumePlan) (bool, error) {
	v, s := e.view, &e.view.storage
	n := e.Node(plan.Node)
	if n == nil {
		return false, fmt.Errorf("failed to get node %q: node %q not found", plan.Node, plan.Node)
	}
	if e.Assigned(pod.key()) == "" {
		return false, fmt.Errorf("pod does not exist any more: pod %q not found", pod.Object.Name)
	}
	for _, m := range plan.Bind {
		pv, claim := s.volumes.of(m.Volume.Name), s.claims.of(m.Claim.Namespace+"/"+m.Claim.Name)
		switch {
		case pv == nil:
			return false, fmt.Errorf("failed to check binding: persistentvolume %q not found", m.Volume.Name)
		case claim == nil:
			return false, fmt.Errorf("failed to check binding: persistentvolumeclaim %q not found", m.Claim.Name)
		case older(pv, m.Volume), s.assumedVolumes[pv.Name] != nil:
			return false, nil
		}
		if err := reachable(pv, n); err != nil {
			return false, err
		}
		if pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID == "" {
			return false, fmt.Errorf("ClaimRef got reset for pv %q", pv.Name)
		}
		if !claimBound(claim) {
			return false, nil
		}
	}
	for _, want := range plan.Provision {
		claim := s.claims.of(want.Namespace + "/" + want.Name)
		switch {
		case claim == nil:
			return false, fmt.Errorf("failed to check provisioning pvc: persistentvolumeclaim %q not found", want.Name)
		case older(claim, want), s.assumedClaims[want.Namespace+"/"+want.Name] != nil:
			return false, nil
		case claim.Annotations == nil:
			return false, fmt.Errorf("selectedNode annotation reset for PVC %q", claim.Name)
		case claim.Annotations[volumehelper.AnnSelectedNode] != plan.Node:
			return false, fmt.Errorf("provisioning failed for PVC %q", claim.Name)
		}
		if claim.Spec.VolumeName != "" {
			pv := v.storage.volumes.of(claim.Spec.VolumeName)
			if pv == nil {
				return false, nil
			}
			if err := reachable(pv, n); err != nil {
				return false, err
			}
		}
		if !claimBound(claim) {
			return false, nil
		}
	}
	return true, nil
}

// older reports whether the API has not yet told of a write.
func older(seen, written metav1.Object) bool {
	c, err := resourceversion.CompareResourceVersion(seen.GetResourceVersion(), written.GetResourceVersion())
	return err == nil && c < 0
}

func reachable(pv *corev1.PersistentVolume, n *Node) error {
	if err := volumehelper.CheckNodeAffinity(pv, n.Object.Labels); err != nil {
		return fmt.Errorf("pv %q node affinity doesn't match node %q: %w", pv.Name, n.Object.Name, err)
	}
	return nil
}

func claimBound(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Spec.VolumeName != "" && metav1.HasAnnotation(claim.ObjectMeta, volumehelper.AnnBindCompleted)
}
