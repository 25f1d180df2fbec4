package scheduler

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics carry kube-scheduler's names.
type metrics struct {
	attempts    *prometheus.CounterVec
	cycle       *prometheus.HistogramVec
	algorithm   prometheus.Histogram
	waited      *prometheus.HistogramVec
	tries       prometheus.Histogram
	preemptions prometheus.Counter
	victims     prometheus.Histogram
	incoming    *prometheus.CounterVec
	permit      *prometheus.HistogramVec
	flushed     prometheus.Counter
}

func newMetrics(s *Scheduler, reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "scheduler_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "scheduler_" + name, Help: help, Buckets: buckets}, labels)
	}
	plain := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_" + name, Help: help, Buckets: buckets})
	}
	times := prometheus.ExponentialBuckets(0.001, 2, 15)
	m := &metrics{
		attempts:  counter("schedule_attempts_total", "Attempts to schedule pods, by result.", "result", "profile"),
		cycle:     histogram("scheduling_attempt_duration_seconds", "Time of an attempt to schedule a pod, until it is bound or refused.", times, "result", "profile"),
		algorithm: plain("scheduling_algorithm_duration_seconds", "Time to decide for one pod.", prometheus.ExponentialBuckets(0.00001, 2, 20)),
		waited: histogram("pod_scheduling_sli_duration_seconds", "Time from when a pod could first be tried to its being bound.",
			prometheus.ExponentialBuckets(0.01, 2, 20), "attempts"),
		tries: plain("pod_scheduling_attempts", "Attempts it took to schedule a pod.", prometheus.ExponentialBuckets(1, 2, 5)),
		preemptions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "scheduler_preemption_attempts_total", Help: "Attempts to make room for pods that fit nowhere.",
		}),
		victims:  plain("preemption_victims", "Pods chosen to make room for one.", prometheus.ExponentialBuckets(1, 2, 7)),
		incoming: counter("queue_incoming_pods_total", "Pods added to the queues, by event.", "queue", "event"),
		permit:   histogram("permit_wait_duration_seconds", "Time pods waited for permission.", times, "result"),
		flushed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "scheduler_pod_scheduled_after_flush_total", Help: "Pods that were scheduled only because they were tried again after a long time.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.attempts, m.cycle, m.algorithm, m.waited, m.tries, m.preemptions, m.victims, m.incoming, m.permit, m.flushed, sizes{s},
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// attempt counts one; result is scheduled, unschedulable or error.
func (m *metrics) attempt(profile, result string, took time.Duration) {
	m.attempts.WithLabelValues(result, profile).Inc()
	m.cycle.WithLabelValues(result, profile).Observe(took.Seconds())
}

func (m *metrics) bound(w *waiting, now time.Time) {
	label := "15+"
	if w.attempts < 15 {
		label = strconv.Itoa(w.attempts)
	}
	m.waited.WithLabelValues(label).Observe(now.Sub(w.since).Seconds())
	m.tries.Observe(float64(w.attempts))
	if w.flushed {
		m.flushed.Inc()
	}
}

// sizes are looked up when they are asked for.
type sizes struct{ s *Scheduler }

var (
	pendingPods = prometheus.NewDesc("scheduler_pending_pods", "Pods that wait, by queue.", []string{"queue"}, nil)
	cacheSize   = prometheus.NewDesc("scheduler_cache_size", "Nodes and pods the scheduler knows.", []string{"type"}, nil)
)

// Describe implements prometheus.Collector.
func (sizes) Describe(to chan<- *prometheus.Desc) { to <- pendingPods; to <- cacheSize }

// Collect implements prometheus.Collector.
func (c sizes) Collect(to chan<- prometheus.Metric) {
	c.s.mu.Lock()
	q, e := c.s.queue, c.s.engine
	pending := map[string]int{"active": len(q.active), "backoff": len(q.backoff) + len(q.failed), "unschedulable": len(q.stuck) - q.gated, "gated": q.gated}
	known := map[string]int{"nodes": e.Nodes(), "pods": e.pods.size}
	c.s.mu.Unlock()
	for queue, n := range pending {
		to <- prometheus.MustNewConstMetric(pendingPods, prometheus.GaugeValue, float64(n), queue)
	}
	for kind, n := range known {
		to <- prometheus.MustNewConstMetric(cacheSize, prometheus.GaugeValue, float64(n), kind)
	}
}
