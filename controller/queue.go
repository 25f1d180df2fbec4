package controller

import (
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
)

// delayQueue is client-go's work queue with delays made of timers rather than
// of a goroutine, so that nothing is left when ShutDown returns.
type delayQueue struct {
	workqueue.TypedInterface[Request]
	limiter workqueue.TypedRateLimiter[Request]
	clock   Clock
	retries workqueue.CounterMetric

	mu      sync.Mutex
	shut    bool
	waiting map[Request]*delayed
	wg      sync.WaitGroup
}

type delayed struct {
	at    time.Time
	timer clock.Timer
}

func newQueue(name string, l workqueue.TypedRateLimiter[Request], m *queueMetrics, c Clock) *delayQueue {
	var provider workqueue.MetricsProvider = noMetrics{}
	// Without a name the queue keeps no metrics, and no goroutine for them.
	config := workqueue.TypedQueueConfig[Request]{MetricsProvider: provider, Clock: c}
	if m != nil {
		provider = m
		config.Name, config.MetricsProvider = name, m
	}
	return &delayQueue{
		TypedInterface: workqueue.NewTypedWithConfig(config),
		limiter:        l, clock: c, retries: provider.NewRetriesMetric(name),
		waiting: map[Request]*delayed{},
	}
}

func (q *delayQueue) AddAfter(req Request, d time.Duration) {
	if d <= 0 {
		q.Add(req)
		return
	}
	q.retries.Inc()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.shut {
		return
	}
	at := q.clock.Now().Add(d)
	if w, ok := q.waiting[req]; ok {
		if !at.Before(w.at) {
			return
		}
		if w.timer.Stop() {
			q.wg.Done()
		}
	}
	w := &delayed{at: at}
	q.waiting[req] = w
	q.wg.Add(1)
	w.timer = q.clock.AfterFunc(d, func() {
		defer q.wg.Done()
		q.mu.Lock()
		if q.waiting[req] == w {
			delete(q.waiting, req)
		}
		shut := q.shut
		q.mu.Unlock()
		if !shut {
			q.Add(req)
		}
	})
}

func (q *delayQueue) AddRateLimited(req Request)  { q.AddAfter(req, q.limiter.When(req)) }
func (q *delayQueue) Forget(req Request)          { q.limiter.Forget(req) }
func (q *delayQueue) NumRequeues(req Request) int { return q.limiter.NumRequeues(req) }
func (q *delayQueue) ShutDown()                   { q.stop(); q.TypedInterface.ShutDown(); q.wg.Wait() }

func (q *delayQueue) ShutDownWithDrain() { q.stop(); q.TypedInterface.ShutDownWithDrain(); q.wg.Wait() }

func (q *delayQueue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.shut = true
	for req, w := range q.waiting {
		if w.timer.Stop() {
			q.wg.Done()
		}
		delete(q.waiting, req)
	}
}
