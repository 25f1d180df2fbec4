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
func NewQueue(e *Engine) *Queue { return &Queue{engine: e, queue: newQueue()} }

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

// Fail puts a popped pod aside that the named plugins rejected, until a change that could help it.
func (q *Queue) Fail(a Attempt, plugins []string, now time.Time) { q.queue.fail(a.w, plugins, now) }

// Changed wakes the pods that a change of the engine may make fit.
func (q *Queue) Changed(c ClusterChange, now time.Time) {
	q.queue.wakeIf(now, func(w *waiting) bool { return q.engine.Hint(w.pod, w.plugins, c) })
}

// Flush wakes pods that have been put aside for long, in case a hint was wrong. Scheduler does so every 30 seconds.
func (q *Queue) Flush(now time.Time) { q.queue.wakeOld(now) }

// Ready is when Pop has something: now, or at the end of the first back-off; ok is false if only a change can bring it.
func (q *Queue) Ready(now time.Time) (at time.Time, ok bool) {
	if len(q.queue.active) > 0 {
		return now, true
	}
	at = q.queue.next()
	return at, !at.IsZero()
}
