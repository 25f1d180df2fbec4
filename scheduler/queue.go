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
	backoff windowHeap
	// failed are those whose last attempt ended in an error: unlike those in backoff, they aren't tried before their time.
	failed timeHeap
	// stuck are those that wait for a change, by UID.
	stuck map[types.UID]*waiting
	seq   uint64
	gated int

	initialBackoff, maxBackoff time.Duration
	// gate returns the plugin that keeps a pod from being tried, "" for none; incoming is told where a pod goes, and why.
	gate     func(*Pod) string
	incoming func(queue, event string)
	// self reports whether a pod that those plugins rejected may fit as it is now.
	self func(was, now *Pod, plugins []string) bool
	// group is told of pods that come (1) and go (-1), and returns the name of the pod's group, "" for none.
	group func(pod *Pod, sign int) string
}

// waiting is a pod in the queue.
type waiting struct {
	pod      *Pod
	since    time.Time // when it could first be tried
	attempts int
	// rejections and errors are what the back-off depends on: attempts that were refused, and those that failed since.
	rejections, errors int
	// plugins rejected it last; rejected is when.
	plugins  []string
	rejected time.Time
	seq      uint64
	first    uint64    // seq when it came
	ready    time.Time // when its back-off ends
	place    place
	gated    bool // stuck because of the gate
	flushed  bool // woken by wakeOld
	index    int
}

type place int

const (
	nowhere place = iota // being decided or bound
	inActive
	inBackoff
	inFailed
	inStuck
)

// Events for incoming, as kube-scheduler's metrics name them.
const (
	eventAdd     = "PodAdd"
	eventUpdate  = "UnscheduledPodUpdate"
	eventFailure = "ScheduleAttemptFailure"
	eventBackoff = "BackoffComplete"
	eventPop     = "PopFromBackoffQ"
	eventFlush   = "UnschedulableTimeout"
	eventForce   = "ForceActivate"
)

func newQueue() *queue {
	return &queue{
		pods: map[types.UID]*waiting{}, stuck: map[types.UID]*waiting{}, initialBackoff: defaultInitialBackoff, maxBackoff: defaultMaxBackoff,
		gate: func(*Pod) string { return "" }, incoming: func(string, string) {},
		group: func(*Pod, int) string { return "" }, self: func(*Pod, *Pod, []string) bool { return true },
	}
}

// add puts a new pod into play, or replaces what is known of one that waits. A changed pod is tried again: the change may be what it waited for.
func (q *queue) add(pod *Pod, now time.Time, changed bool) {
	w := q.pods[pod.key()]
	if w == nil {
		q.seq++
		w = &waiting{since: now, pod: pod, first: q.seq}
		q.pods[pod.key()] = w
		group := q.group(pod, 1)
		q.activate(w, now, eventAdd)
		q.wakeGated(group, now, eventAdd)
		return
	}
	was := w.pod
	q.group(was, -1)
	w.pod = pod
	group := q.group(pod, 1)
	switch {
	case w.place == inActive:
		heap.Fix(&q.active, w.index)
	case changed && w.place == inStuck && (w.gated || q.self(was, pod, w.plugins)):
		wasGated := w.gated
		if q.wake(w, now, eventUpdate); wasGated && !w.gated {
			q.wakeGated(group, now, eventUpdate)
		}
	}
}

// wakeGated wakes the gated pods of a group: they may have waited for one that came, changed or went.
func (q *queue) wakeGated(group string, now time.Time, event string) {
	if group != "" {
		q.wakeIf(now, event, func(o *waiting) bool { return o.gated && q.group(o.pod, 0) == group })
	}
}

func (q *queue) remove(uid types.UID) {
	w := q.pods[uid]
	if w == nil {
		return
	}
	gated := w.gated
	q.leave(w)
	group := q.group(w.pod, -1)
	if delete(q.pods, uid); gated {
		q.wakeGated(group, time.Time{}, eventUpdate)
	}
}

// gather takes the pods of a group out of the queue that may be tried, to be decided with one that was popped, in the order in which they came.
func (q *queue) gather(popped *waiting, members map[types.UID]*Pod) []*waiting {
	out := []*waiting{popped}
	for uid := range members {
		w := q.pods[uid]
		if w == nil || w.place == nowhere || w.gated && q.gate(w.pod) != "" {
			continue
		}
		q.leave(w)
		w.attempts++
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b *waiting) int {
		return cmp.Or(cmp.Compare(b.pod.Priority, a.pod.Priority), cmp.Compare(a.first, b.first), cmp.Compare(a.pod.key(), b.pod.key()))
	})
	return out
}

func (q *queue) leave(w *waiting) {
	switch w.place {
	case inActive:
		heap.Remove(&q.active, w.index)
	case inBackoff:
		heap.Remove(&q.backoff, w.index)
	case inFailed:
		heap.Remove(&q.failed, w.index)
	case inStuck:
		delete(q.stuck, w.pod.key())
		if w.gated {
			q.gated--
		}
	}
	w.place, w.gated = nowhere, false
}

func (q *queue) activate(w *waiting, now time.Time, event string) {
	wasGated := w.gated
	q.leave(w)
	if plugin := q.gate(w.pod); plugin != "" {
		w.plugins, w.place, w.gated = []string{plugin}, inStuck, true
		q.stuck[w.pod.key()] = w
		if q.gated++; !wasGated {
			q.incoming("gated", event)
		}
		return
	}
	if wasGated && w.attempts == 0 && !now.IsZero() {
		w.since = now
	}
	q.seq++
	w.seq, w.place = q.seq, inActive
	heap.Push(&q.active, w)
	q.incoming("active", event)
}

// pop returns the pod to decide next, nil if there is none. When nobody else is to be tried, pods needn't wait for the end of their back-off.
func (q *queue) pop(now time.Time) *waiting {
	for len(q.backoff) > 0 && !q.backoff[0].ready.After(now) {
		q.activate(q.backoff[0], now, eventBackoff)
	}
	for len(q.failed) > 0 && !q.failed[0].ready.After(now) {
		q.activate(q.failed[0], now, eventBackoff)
	}
	for len(q.active) == 0 && len(q.backoff) > 0 {
		q.activate(q.backoff[0], now, eventPop)
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
	if q.pods[w.pod.key()] != w || w.place != nowhere {
		return
	}
	w.plugins, w.rejected = plugins, now
	w.rejections++
	w.errors = 0
	w.place = inStuck
	q.stuck[w.pod.key()] = w
	q.incoming("unschedulable", eventFailure)
}

// again puts a popped pod back to be tried at once: not it was refused, but what it was tried with is done.
func (q *queue) again(w *waiting, now time.Time) {
	if q.pods[w.pod.key()] != w || w.place != nowhere {
		return
	}
	w.rejections, w.errors = 0, 0
	seq := w.seq
	if q.activate(w, now, eventFailure); w.place == inActive {
		w.seq = seq
		heap.Fix(&q.active, w.index)
	}
}

// retry puts a popped pod back after its back-off: what went wrong isn't that it didn't fit.
func (q *queue) retry(w *waiting, now time.Time) {
	if q.pods[w.pod.key()] != w || w.place != nowhere {
		return
	}
	w.errors++
	w.rejected = now
	w.ready, w.place = now.Add(q.backoffAfter(w.errors)), inFailed
	heap.Push(&q.failed, w)
	q.incoming("backoff", eventFailure)
}

// wake brings a pod back into play, when its back-off has passed.
func (q *queue) wake(w *waiting, now time.Time, event string) {
	count := max(w.rejections, w.errors)
	if w.ready = w.rejected.Add(q.backoffAfter(count)); count == 0 || !w.ready.After(now) {
		q.activate(w, now, event)
		return
	}
	q.leave(w)
	w.place = inBackoff
	heap.Push(&q.backoff, w)
	q.incoming("backoff", event)
}

// force has a pod tried at once, wherever it is.
func (q *queue) force(uid types.UID, now time.Time) {
	if w := q.pods[uid]; w != nil && w.place != inActive && w.place != nowhere {
		q.activate(w, now, eventForce)
	}
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
func (q *queue) wakeIf(now time.Time, event string, helps func(*waiting) bool) {
	var woken []*waiting
	for _, w := range q.stuck {
		if helps(w) {
			woken = append(woken, w)
		}
	}
	slices.SortFunc(woken, func(a, b *waiting) int { return cmp.Compare(a.seq, b.seq) })
	for _, w := range woken {
		w.flushed = event == eventFlush
		q.wake(w, now, event)
	}
}

// wakeOld wakes pods that have been stuck for long.
func (q *queue) wakeOld(now time.Time) {
	q.wakeIf(now, eventFlush, func(w *waiting) bool { return !w.gated && now.Sub(w.rejected) >= stuckAfter })
}

// next is when pop may have something: before now or zero time for at once; ok is false if only a change can bring it.
func (q *queue) next() (at time.Time, ok bool) {
	switch {
	case len(q.active)+len(q.backoff) > 0:
		return time.Time{}, true
	case len(q.failed) > 0:
		return q.failed[0].ready, true
	}
	return time.Time{}, false
}

// activeHeap orders by priority, then by who has waited longest in this turn.
type activeHeap []*waiting

func (h activeHeap) Len() int           { return len(h) }
func (h activeHeap) Less(i, j int) bool { return h[i].before(h[j]) < 0 }
func (h activeHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *activeHeap) Push(x any)        { w := x.(*waiting); w.index = len(*h); *h = append(*h, w) }
func (h *activeHeap) Pop() any          { return popLast((*[]*waiting)(h)) }

func (w *waiting) before(o *waiting) int {
	return cmp.Or(cmp.Compare(o.pod.Priority, w.pod.Priority), cmp.Compare(w.seq, o.seq))
}

// windowHeap orders by the second in which the back-off ends, then as activeHeap does.
type windowHeap []*waiting

func (h windowHeap) Len() int { return len(h) }
func (h windowHeap) Less(i, j int) bool {
	return cmp.Or(h[i].ready.Truncate(time.Second).Compare(h[j].ready.Truncate(time.Second)), h[i].before(h[j])) < 0
}
func (h windowHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *windowHeap) Push(x any)   { w := x.(*waiting); w.index = len(*h); *h = append(*h, w) }
func (h *windowHeap) Pop() any     { return popLast((*[]*waiting)(h)) }

// timeHeap orders by the end of the back-off, then as activeHeap does.
type timeHeap []*waiting

func (h timeHeap) Len() int { return len(h) }
func (h timeHeap) Less(i, j int) bool {
	return cmp.Or(h[i].ready.Compare(h[j].ready), h[i].before(h[j])) < 0
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
