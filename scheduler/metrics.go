package scheduler

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics carry kube-scheduler's names.
type metrics struct {
	attempts *prometheus.CounterVec
	duration *prometheus.HistogramVec
	waited   *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	buckets := prometheus.ExponentialBuckets(0.0001, 2, 18)
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "scheduler_schedule_attempts_total", Help: "Attempts to schedule pods, by result.",
		}, []string{"profile", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "scheduler_scheduling_algorithm_duration_seconds", Help: "Time to decide for one pod.", Buckets: buckets,
		}, []string{}),
		waited: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "scheduler_pod_scheduling_sli_duration_seconds", Help: "Time from a pod's first being seen to its being bound.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 20),
		}, []string{}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.attempts, m.duration, m.waited} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) attempt(profile string, d *Decision, took time.Duration) {
	result := "scheduled"
	if !d.Fits() {
		result = "unschedulable"
	}
	m.attempts.WithLabelValues(profile, result).Inc()
	m.duration.WithLabelValues().Observe(took.Seconds())
}

func (m *metrics) bound(w *waiting, now time.Time) {
	m.waited.WithLabelValues().Observe(now.Sub(w.since).Seconds())
}
