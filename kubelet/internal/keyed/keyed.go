// Package keyed runs work by key: never two at once for one key, as many at once as allowed over all keys, now or at a
// given time. An idle key costs nothing and no goroutine; a waiting one costs an entry in a heap.
//
//	q := keyed.New(clock, 16, func(ctx context.Context, name string) { … })
//	go q.Run(ctx)
//	q.Add("a")
//	q.AddAt("a", clock.Now().Add(time.Minute))
//
// It does not retry, and it drops what waits when Run ends.
package keyed

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// Queue is safe for concurrent use.
type Queue[K comparable] struct {
	clock clock.WithTicker
	limit int
	work  func(context.Context, K)

	mu      sync.Mutex
	entries map[K]*entry[K]
	ready   []*entry[K]
	timers  timers[K]
	workers int
	wake    chan struct{}
}

type entry[K comparable] struct {
	key            K
	at             time.Time
	index          int // in timers, -1 if not there
	queued         bool
	running, again bool
}

// New makes a queue that does at most limit pieces of work at a time.
func New[K comparable](c clock.WithTicker, limit int, work func(context.Context, K)) *Queue[K] {
	return &Queue[K]{clock: c, limit: limit, work: work, entries: make(map[K]*entry[K]), wake: make(chan struct{}, 1)}
}

func (q *Queue[K]) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *Queue[K]) entry(key K) *entry[K] {
	e := q.entries[key]
	if e == nil {
		e = &entry[K]{key: key, index: -1}
		q.entries[key] = e
	}
	return e
}

// Add has key worked on soon, and once more if it is being worked on.
func (q *Queue[K]) Add(key K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(q.entry(key))
}

func (q *Queue[K]) add(e *entry[K]) {
	switch {
	case e.running:
		e.again = true
	case !e.queued:
		e.queued = true
		q.ready = append(q.ready, e)
		q.signal()
	}
}

// AddAt has key worked on at a time; of several times the earliest counts.
func (q *Queue[K]) AddAt(key K, at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.entry(key)
	switch {
	case e.index < 0:
		e.at = at
		heap.Push(&q.timers, e)
	case at.Before(e.at):
		e.at = at
		heap.Fix(&q.timers, e.index)
	default:
		return
	}
	if e.index == 0 {
		q.signal()
	}
}

// Cancel forgets the time set for key.
func (q *Queue[K]) Cancel(key K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e := q.entries[key]; e != nil {
		if e.index >= 0 {
			heap.Remove(&q.timers, e.index)
		}
		q.drop(e)
	}
}

func (q *Queue[K]) drop(e *entry[K]) {
	if !e.running && !e.queued && e.index < 0 {
		delete(q.entries, e.key)
	}
}

// Run works until ctx ends, and returns when the last piece of work has.
func (q *Queue[K]) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	timer := q.clock.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		q.mu.Lock()
		now := q.clock.Now()
		for len(q.timers) > 0 && !q.timers[0].at.After(now) {
			e := heap.Pop(&q.timers).(*entry[K])
			q.add(e)
		}
		for q.workers < q.limit && len(q.ready) > 0 {
			e := q.take()
			q.workers++
			group.Add(1)
			go func() {
				defer group.Done()
				q.worker(ctx, e)
			}()
		}
		wait := time.Hour
		if len(q.timers) > 0 {
			wait = q.timers[0].at.Sub(now)
		}
		q.mu.Unlock()
		if !timer.Stop() {
			select {
			case <-timer.C():
			default:
			}
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-q.wake:
		case <-timer.C():
		}
	}
}

func (q *Queue[K]) take() *entry[K] {
	e := q.ready[0]
	q.ready[0] = nil
	q.ready = q.ready[1:]
	if len(q.ready) == 0 {
		q.ready = nil
	}
	e.queued, e.running = false, true
	return e
}

func (q *Queue[K]) worker(ctx context.Context, e *entry[K]) {
	for {
		q.work(ctx, e.key)
		q.mu.Lock()
		e.running = false
		if e.again {
			e.again = false
			e.queued = true
			q.ready = append(q.ready, e)
		}
		q.drop(e)
		if len(q.ready) == 0 || ctx.Err() != nil {
			q.workers--
			q.mu.Unlock()
			return
		}
		e = q.take()
		q.mu.Unlock()
	}
}

type timers[K comparable] []*entry[K]

func (t timers[K]) Len() int           { return len(t) }
func (t timers[K]) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timers[K]) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

func (t *timers[K]) Push(x any) {
	e := x.(*entry[K])
	e.index = len(*t)
	*t = append(*t, e)
}

func (t *timers[K]) Pop() any {
	old := *t
	e := old[len(old)-1]
	old[len(old)-1] = nil
	e.index = -1
	*t = old[:len(old)-1]
	return e
}
