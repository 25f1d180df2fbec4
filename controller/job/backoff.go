package job

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/controller/internal/pods"
)

// After the nth failure in a row a job waits 10s*2^(n-1), at most 10 minutes,
// before it replaces pods.
const (
	backoffBase = 10 * time.Second
	backoffMax  = 10 * time.Minute
)

type backoff struct {
	failures int
	last     time.Time
}

// after takes in pods that have finished since, in the order they did.
func (b backoff) after(succeeded, failed []*corev1.Pod, now time.Time) backoff {
	type end struct {
		at time.Time
		ok bool
	}
	var ends []end
	for _, p := range succeeded {
		ends = append(ends, end{finishTime(p, now), true})
	}
	for _, p := range failed {
		ends = append(ends, end{finishTime(p, now), false})
	}
	slices.SortStableFunc(ends, func(a, b end) int { return a.at.Compare(b.at) })
	for _, e := range ends {
		if e.ok {
			b = backoff{}
		} else {
			b.failures++
			b.last = e.at
		}
	}
	return b
}

// remaining is how long to wait still.
func (b backoff) remaining(now time.Time) time.Duration {
	if b.failures == 0 {
		return 0
	}
	d := backoffMax
	if shift := b.failures - 1; shift < 16 {
		d = min(backoffMax, backoffBase<<shift)
	}
	return max(0, d-now.Sub(b.last))
}

// finishTime is when a pod's last container ended, as far as is known.
func finishTime(p *corev1.Pod, now time.Time) time.Time {
	var last time.Time
	for _, s := range p.Status.ContainerStatuses {
		if t := s.State.Terminated; t != nil && t.FinishedAt.After(last) {
			last = t.FinishedAt.Time
		}
	}
	if !last.IsZero() {
		return last
	}
	if c := pods.Condition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionFalse && !c.LastTransitionTime.IsZero() {
		return c.LastTransitionTime.Time
	}
	if p.DeletionTimestamp != nil {
		grace := int64(0)
		if p.DeletionGracePeriodSeconds != nil {
			grace = *p.DeletionGracePeriodSeconds
		}
		return p.DeletionTimestamp.Add(-time.Duration(grace) * time.Second)
	}
	return now
}
