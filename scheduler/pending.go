package scheduler

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Queue holds the pods that wait, with priorities, back-off and hints, exactly as Scheduler's does. It is for programs that drive an Engine themselves, such as
// simulations: it is pure, and the caller says what time it is. Not safe for concurrent use.
type Queue struct {
	engine *Engine
	queue  *queue
}

// Attempt is a pod whose turn it is.
type Attempt struct {
	Pod *Pod
	// Since is when the pod came; Number counts its attempts, from 1.
	Since  time.Time
	Number int

	w *waiting
}

// NewQueue returns an empty queue; the engine's plugins say which changes help which pods.
func NewQueue(e *Engine) *Queue {
	q := &Queue{engine: e, queue: newQueue()}
	q.queue.gate, q.queue.group, q.queue.self = e.gate, e.await, e.HintSelf
	return q
}

// Add puts a pod into the queue, or replaces what is known of one that waits.
func (q *Queue) Add(pod *Pod, now time.Time) {
	q.queue.add(pod, now, q.queue.pods[pod.key()] != nil)
}

// Remove forgets a pod.
func (q *Queue) Remove(uid types.UID) { q.queue.remove(uid) }

// Len is the number of pods that wait, those included that were popped and not removed.
func (q *Queue) Len() int { return len(q.queue.pods) }

// Pop returns the pod whose turn it is. It stays known until it is removed: call Fail, or Remove once it is bound.
func (q *Queue) Pop(now time.Time) (Attempt, bool) {
	w := q.queue.pop(now)
	if w == nil {
		return Attempt{}, false
	}
	return Attempt{Pod: w.pod, Since: w.since, Number: w.attempts, w: w}, true
}

// Gather returns a popped pod's attempt with those of all others that wait of its group, which are popped with it, and how many of them must fit, for
// Engine.ScheduleGroup. A pod without group comes alone.
func (q *Queue) Gather(a Attempt) (all []Attempt, min int) {
	g := q.engine.groupOf(a.Pod)
	if g.Name == "" {
		return []Attempt{a}, 1
	}
	m := q.engine.view.membersOf(g.Name)
	for _, w := range q.queue.gather(a.w, m.waiting) {
		all = append(all, Attempt{Pod: w.pod, Since: w.since, Number: w.attempts, w: w})
	}
	return all, max(g.Min-len(m.placed), 1)
}

// Fail puts a popped pod aside that the named plugins rejected, until a change that could help it.
func (q *Queue) Fail(a Attempt, plugins []string, now time.Time) { q.queue.fail(a.w, plugins, now) }

// Retry puts a popped pod back after its back-off, for what went wrong isn't that it didn't fit.
func (q *Queue) Retry(a Attempt, now time.Time) { q.queue.retry(a.w, now) }

// Force makes a pod that was put aside ready to be tried at once.
func (q *Queue) Force(uid types.UID, now time.Time) { q.queue.force(uid, now) }

// Changed wakes the pods that a change of the engine may make fit.
func (q *Queue) Changed(c ClusterChange, now time.Time) {
	q.queue.wakeIf(now, c.event(), func(w *waiting) bool { return q.engine.Hint(w.pod, w.plugins, c) })
}

// Flush wakes pods that have been put aside for long, in case a hint was wrong. Scheduler does so every 30 seconds.
func (q *Queue) Flush(now time.Time) { q.queue.wakeOld(now) }

// Ready is when Pop has something: now, or at the end of the first back-off; ok is false if only a change can bring it.
func (q *Queue) Ready(now time.Time) (at time.Time, ok bool) {
	if at, ok = q.queue.next(); at.Before(now) {
		at = now
	}
	return at, ok
}

// gate is the plugin that keeps a pod from being tried, "" for none.
func (e *Engine) gate(pod *Pod) string {
	if r := e.PreEnqueue(pod); r != nil {
		return r.Plugin
	}
	return e.gatedMember(pod)
}

// event names a change as kube-scheduler's metrics do.
func (c *ClusterChange) event() string {
	verb := func(what string, added bool) string {
		if added {
			return what + "Add"
		}
		return what + "Update"
	}
	switch {
	case c.Node != nil:
		return verb("Node", c.OldNode == nil)
	case c.OldNode != nil:
		return "NodeDelete"
	case c.FreedPod != nil:
		return "AssignedPodDelete"
	case c.AssignedPod != nil:
		return verb("AssignedPod", c.OldPod == nil)
	case c.Namespace != nil:
		return "NamespaceUpdate"
	case c.Claim != nil:
		return verb("PersistentVolumeClaim", c.OldClaim == nil)
	case c.Volume != nil:
		return verb("PersistentVolume", c.OldVolume == nil)
	case c.StorageClass != nil:
		return verb("StorageClass", c.OldStorageClass == nil)
	case c.CSINode != nil:
		return verb("CSINode", c.OldCSINode == nil)
	case c.StorageCapacity != nil:
		return verb("CSIStorageCapacity", c.OldStorageCapacity == nil)
	case c.CSIDriver != nil:
		return verb("CSIDriver", c.OldCSIDriver == nil)
	case c.OldCSIDriver != nil:
		return "CSIDriverDelete"
	case c.PodGroup != nil:
		return verb("PodGroup", c.OldPodGroup == nil)
	case c.GoneAttachment != nil:
		return "VolumeAttachmentDelete"
	}
	return "WildCardEvent"
}
