package controller

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/util/workqueue"
)

// queueMetrics keeps the work queues' metrics under Kubernetes' names in one
// registry, shared by all controllers that use it.
type queueMetrics struct {
	depth, unfinished, longest *prometheus.GaugeVec
	adds, retries              *prometheus.CounterVec
	latency, duration          *prometheus.HistogramVec
}

var _ workqueue.MetricsProvider = (*queueMetrics)(nil)

func newQueueMetrics(r prometheus.Registerer) (*queueMetrics, error) {
	label := []string{"name"}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "workqueue_" + name, Help: help}, label)
	}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "workqueue_" + name, Help: help}, label)
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "workqueue_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(10e-9, 10, 11),
		}, label)
	}
	var errs []error
	m := &queueMetrics{
		depth:      register(r, gauge("depth", "Requests waiting in the work queue."), &errs),
		unfinished: register(r, gauge("unfinished_work_seconds", "Seconds of work in progress that work_duration has not observed yet."), &errs),
		longest:    register(r, gauge("longest_running_processor_seconds", "Seconds the longest running worker has been running for."), &errs),
		adds:       register(r, counter("adds_total", "Requests added to the work queue."), &errs),
		retries:    register(r, counter("retries_total", "Requests added to the work queue with a delay."), &errs),
		latency:    register(r, histogram("queue_duration_seconds", "Seconds a request waits in the work queue."), &errs),
		duration:   register(r, histogram("work_duration_seconds", "Seconds the work on a request takes."), &errs),
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("controller: registering metrics: %w", err)
	}
	return m, nil
}

// register adds a collector, or returns the same one that another controller
// has added before.
func register[C prometheus.Collector](r prometheus.Registerer, c C, errs *[]error) C {
	err := r.Register(c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if existing, ok := already.ExistingCollector.(C); ok {
			return existing
		}
	}
	if err != nil {
		*errs = append(*errs, err)
	}
	return c
}

func (m *queueMetrics) NewDepthMetric(name string) workqueue.GaugeMetric {
	return m.depth.WithLabelValues(name)
}

func (m *queueMetrics) NewAddsMetric(name string) workqueue.CounterMetric {
	return m.adds.WithLabelValues(name)
}

func (m *queueMetrics) NewLatencyMetric(name string) workqueue.HistogramMetric {
	return m.latency.WithLabelValues(name)
}

func (m *queueMetrics) NewWorkDurationMetric(name string) workqueue.HistogramMetric {
	return m.duration.WithLabelValues(name)
}

func (m *queueMetrics) NewUnfinishedWorkSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return m.unfinished.WithLabelValues(name)
}

func (m *queueMetrics) NewLongestRunningProcessorSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return m.longest.WithLabelValues(name)
}

func (m *queueMetrics) NewRetriesMetric(name string) workqueue.CounterMetric {
	return m.retries.WithLabelValues(name)
}

// noMetrics keeps none. A nil provider would mean client-go's global one.
type noMetrics struct{}

func (noMetrics) Inc()            {}
func (noMetrics) Dec()            {}
func (noMetrics) Set(float64)     {}
func (noMetrics) Observe(float64) {}

func (n noMetrics) NewDepthMetric(string) workqueue.GaugeMetric                         { return n }
func (n noMetrics) NewAddsMetric(string) workqueue.CounterMetric                        { return n }
func (n noMetrics) NewLatencyMetric(string) workqueue.HistogramMetric                   { return n }
func (n noMetrics) NewWorkDurationMetric(string) workqueue.HistogramMetric              { return n }
func (n noMetrics) NewUnfinishedWorkSecondsMetric(string) workqueue.SettableGaugeMetric { return n }
func (n noMetrics) NewLongestRunningProcessorSecondsMetric(string) workqueue.SettableGaugeMetric {
	return n
}
func (n noMetrics) NewRetriesMetric(string) workqueue.CounterMetric { return n }
