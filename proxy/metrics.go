package proxy

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics carry kube-proxy's names.
type metrics struct {
	duration prometheus.Histogram
	last     prometheus.Gauge
	failures prometheus.Counter
	changes  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kubeproxy_sync_proxy_rules_duration_seconds", Help: "Time one change of the data plane took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kubeproxy_sync_proxy_rules_last_timestamp_seconds", Help: "When the data plane was last made current.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubeproxy_sync_proxy_rules_nftables_sync_failures_total", Help: "Changes of the data plane that failed.",
		}),
		changes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubeproxy_sync_proxy_rules_service_changes_total", Help: "Service ports set or removed.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.duration, m.last, m.failures, m.changes} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) observe(took time.Duration, c Change, err error) {
	m.duration.Observe(took.Seconds())
	m.changes.Add(float64(len(c.Set) + len(c.Removed)))
	if err != nil {
		m.failures.Inc()
		return
	}
	m.last.SetToCurrentTime()
}
