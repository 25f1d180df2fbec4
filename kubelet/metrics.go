package kubelet

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the kubelet's, under the names of Kubernetes' own.
type metrics struct {
	operations *prometheus.HistogramVec
	failures   *prometheus.CounterVec
	probes     *prometheus.CounterVec
	starts     prometheus.Counter
	registry   prometheus.Gatherer
}

func newMetrics(reg prometheus.Registerer, k *Kubelet) (*metrics, error) {
	m := &metrics{
		operations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubelet_runtime_operations_duration_seconds", Help: "Duration in seconds of runtime operations.",
			Buckets: prometheus.ExponentialBuckets(.005, 2.5, 14),
		}, []string{"operation_type"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubelet_runtime_operations_errors_total", Help: "Cumulative number of runtime operation errors."}, []string{"operation_type"}),
		probes:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "prober_probe_total", Help: "Cumulative number of probes by type and result."}, []string{"probe_type", "result"}),
		starts:   prometheus.NewCounter(prometheus.CounterOpts{Name: "kubelet_started_containers_total", Help: "Cumulative number of containers started."}),
	}
	pods := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kubelet_active_pods", Help: "The number of pods the kubelet considers active."}, func() float64 {
		k.mu.Lock()
		defer k.mu.Unlock()
		return float64(len(k.pods))
	})
	own := prometheus.NewRegistry()
	m.registry = own
	for _, c := range []prometheus.Collector{m.operations, m.failures, m.probes, m.starts, pods} {
		if err := own.Register(c); err != nil {
			return nil, fmt.Errorf("kubelet: metrics: %w", err)
		}
		if reg == nil {
			continue
		}
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("kubelet: Options.Metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) operation(kind string, took time.Duration, err error) {
	m.operations.WithLabelValues(kind).Observe(took.Seconds())
	if err != nil {
		m.failures.WithLabelValues(kind).Inc()
	}
}

func (m *metrics) probe(kind string, ok bool) {
	result := "failed"
	if ok {
		result = "successful"
	}
	m.probes.WithLabelValues(kind, result).Inc()
}

func (m *metrics) started() { m.starts.Inc() }
