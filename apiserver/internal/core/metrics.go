package core

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// collector reports what the cache holds, under the names of kube-apiserver.
type collector struct {
	c           *Core
	count, size *prometheus.Desc
}

func (c *Core) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	labels := []string{"group", "resource"}
	err := r.Register(collector{
		c:     c,
		count: prometheus.NewDesc("apiserver_resource_objects", "Number of stored objects at the time of last check split by kind.", labels, nil),
		size:  prometheus.NewDesc("apiserver_resource_size_estimate_bytes", "Estimated size of stored objects in database.", labels, nil),
	})
	if err != nil {
		return fmt.Errorf("core: Options.Metrics: %w", err)
	}
	return nil
}

func (m collector) Describe(ch chan<- *prometheus.Desc) { ch <- m.count; ch <- m.size }

func (m collector) Collect(ch chan<- prometheus.Metric) {
	for _, r := range m.c.resources {
		if r.stored == nil || r.Version != nil {
			continue
		}
		ch <- prometheus.MustNewConstMetric(m.count, prometheus.GaugeValue, float64(r.stored.cache.Len()), r.GVR.Group, r.GVR.Resource)
		ch <- prometheus.MustNewConstMetric(m.size, prometheus.GaugeValue, float64(r.stored.cache.Bytes()), r.GVR.Group, r.GVR.Resource)
	}
}
