package scheduler

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Back-off of a pod that was tried in vain: it doubles with each attempt.
const (
	defaultInitialBackoff = time.Second
	defaultMaxBackoff     = 10 * time.Second
	// stuckAfter puts a pod back into play that no change has woken, in case a hint was wrong.
	stuckAfter = 5 * time.Minute
)

// queue holds the pods that wait. It is pure: the caller says what time it is. Not safe for concurrent use.
type queue struct {
	pods    map[types.UID]*waiting
	active  activeHeap
	backoff timeHeap
	// stuck are those that wait for a change, by UID.
	stuck map[types.UID]*waiting
	seq   uint64

	initialBackoff, maxBackoff time.Duration
}

// waiting is a pod in the queue.
type waiting struct {
	pod      *Pod
	since    time.Time // when it first came
	attempts int
	// plugins rejected it last; rejected is when.
	plugins  []string
	rejected time.Time
	seq      uint64
	ready    time.Time // when its back-off ends
	place    place
	index    int
}

type place int

const (
	nowhere place = iota // being decided or bound
	inActive
	inBackoff
	inStuck
)

func newQueue() *queue {
	return &queue{
		pods: map[types.UID]*waiting{}, stuck: map[types.UID]*waiting{}, initialBackoff: defaultInitialBackoff, maxBackoff: defaultMaxBackoff,
	}
}

// add puts a new pod into play, or replaces what is known of one that waits. A changed pod is tried again at once: the change may be what it waited for.
func (q *queue) add(pod *Pod, now time.Time, changed bool) {
	w := q.pods[pod.key()]
	if w == nil {
		w = &waiting{since: now}
		q.pods[pod.key()] = w
		w.pod = pod
		q.activate(w)
		return
	}
	w.pod = pod
	if w.place == inActive {
		heap.Fix(&q.active, w.index)
	}
	if changed && w.place == inStuck {
		q.wake(w, now)
	}
}

func (q *queue) remove(uid types.UID) {
	w := q.pods[uid]
	if w == nil {
		return
	}
	q.leave(w)
	delete(q.pods, uid)
}

func (q *queue) leave(w *waiting) {
	switch w.place {
	case inActive:
		heap.Remove(&q.active, w.index)
	case inBackoff:
		heap.Remove(&q.backoff, w.index)
	case inStuck:
		delete(q.stuck, w.pod.key())
	}
	w.place = nowhere
}

func (q *queue) activate(w *waiting) {
	q.leave(w)
	q.seq++
	w.seq, w.place = q.seq, inActive
	heap.Push(&q.active, w)
}

// pop returns the pod to decide next, nil if there is none.
func (q *queue) pop(now time.Time) *waiting {
	for len(q.backoff) > 0 && !q.backoff[0].ready.After(now) {
		q.activate(q.backoff[0])
	}
	if len(q.active) == 0 {
		return nil
	}
	w := heap.Pop(&q.active).(*waiting)
	w.place = nowhere
	w.attempts++
	return w
}

// fail puts a popped pod aside until a change that could help it.
func (q *queue) fail(w *waiting, plugins []string, now time.Time) {
	if q.pods[w.pod.key()] != w {
		return
	}
	w.plugins, w.rejected = plugins, now
	w.place = inStuck
	q.stuck[w.pod.key()] = w
}

// retry puts a popped pod back after its back-off: it was placed, but binding failed.
func (q *queue) retry(w *waiting, now time.Time) {
	if q.pods[w.pod.key()] != w || w.place != nowhere {
		return
	}
	w.rejected = now
	q.wake(w, now)
}

// wake brings a pod back into play, when its back-off has passed.
func (q *queue) wake(w *waiting, now time.Time) {
	q.leave(w)
	w.ready = w.rejected.Add(q.backoffAfter(w.attempts))
	if !w.ready.After(now) {
		q.activate(w)
		return
	}
	w.place = inBackoff
	heap.Push(&q.backoff, w)
}

func (q *queue) backoffAfter(attempts int) time.Duration {
	d := q.initialBackoff
	for range attempts - 1 {
		if d *= 2; d >= q.maxBackoff {
			return q.maxBackoff
		}
	}
	return d
}

// wakeIf wakes the stuck pods that helps says could be helped, in the order in which they were last tried.
func (q *queue) wakeIf(now time.Time, helps func(*waiting) bool) {
	var woken []*waiting
	for _, w := range q.stuck {
		if helps(w) {
			woken = append(woken, w)
		}
	}
	slices.SortFunc(woken, func(a, b *waiting) int { return cmp.Compare(a.seq, b.seq) })
	for _, w := range woken {
		q.wake(w, now)
	}
}

// wakeOld wakes pods that have been stuck for long.
func (q *queue) wakeOld(now time.Time) {
	q.wakeIf(now, func(w *waiting) bool { return now.Sub(w.rejected) >= stuckAfter })
}

// next is when pop may have something it hasn't now; zero if only a change can bring it.
func (q *queue) next() time.Time {
	if len(q.backoff) == 0 {
		return time.Time{}
	}
	return q.backoff[0].ready
}

// activeHeap orders by priority, then by who has waited longest in this turn.
type activeHeap []*waiting

func (h activeHeap) Len() int { return len(h) }
func (h activeHeap) Less(i, j int) bool {
	if a, b := h[i].pod.Priority, h[j].pod.Priority; a != b {
		return a > b
	}
	return h[i].seq < h[j].seq
}
func (h activeHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *activeHeap) Push(x any)   { w := x.(*waiting); w.index = len(*h); *h = append(*h, w) }
func (h *activeHeap) Pop() any     { return popLast((*[]*waiting)(h)) }

// timeHeap orders by the end of the back-off, then as activeHeap does.
type timeHeap []*waiting

func (h timeHeap) Len() int { return len(h) }
func (h timeHeap) Less(i, j int) bool {
	if c := h[i].ready.Compare(h[j].ready); c != 0 {
		return c < 0
	}
	return h[i].seq < h[j].seq
}
func (h timeHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *timeHeap) Push(x any)   { w := x.(*waiting); w.index = len(*h); *h = append(*h, w) }
func (h *timeHeap) Pop() any     { return popLast((*[]*waiting)(h)) }

func popLast(h *[]*waiting) *waiting {
	n := len(*h) - 1
	w := (*h)[n]
	(*h)[n] = nil
	*h = (*h)[:n]
	return w
}
