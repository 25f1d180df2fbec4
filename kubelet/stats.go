package kubelet

import (
	"context"
	"net/http"
	"sort"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	kubelettypes "k8s.io/kubelet/pkg/types"

	"github.com/keelson/keelson/kubelet/internal/machine"
	"github.com/keelson/keelson/kubelet/internal/podstate"
)

func number(v *runtimeapi.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	n := v.Value
	return &n
}

func at(ns int64) metav1.Time { return metav1.NewTime(time.Unix(0, ns)) }

// summary measures the node and its pods.
func (k *Kubelet) summary(ctx context.Context) (*statsapi.Summary, error) {
	list, err := k.runtime.ListContainerStats(ctx, nil)
	if err != nil {
		return nil, err
	}
	pods := map[string]*statsapi.PodStats{}
	started := map[string]time.Time{}
	for _, rec := range k.records() {
		rec.mu.Lock()
		for i := range rec.containers {
			if c := &rec.containers[i]; c.State == podstate.Running {
				started[c.ID] = c.StartedAt
			}
		}
		if !rec.gone {
			p := &statsapi.PodStats{PodRef: statsapi.PodReference{Name: rec.pod.Name, Namespace: rec.pod.Namespace, UID: string(rec.uid)}, Containers: []statsapi.ContainerStats{}}
			if t := rec.pod.Status.StartTime; t != nil {
				p.StartTime = *t
			}
			pods[string(rec.uid)] = p
		}
		rec.mu.Unlock()
	}
	for _, s := range list {
		labels := s.GetAttributes().GetLabels()
		p := pods[labels[kubelettypes.KubernetesPodUIDLabel]]
		if p == nil {
			continue
		}
		c := statsapi.ContainerStats{Name: s.GetAttributes().GetMetadata().GetName(), StartTime: metav1.NewTime(started[s.GetAttributes().GetId()])}
		if u := s.Cpu; u != nil {
			c.CPU = &statsapi.CPUStats{Time: at(u.Timestamp), UsageNanoCores: number(u.UsageNanoCores), UsageCoreNanoSeconds: number(u.UsageCoreNanoSeconds)}
			p.CPU = addCPU(p.CPU, c.CPU)
		}
		if u := s.Memory; u != nil {
			c.Memory = &statsapi.MemoryStats{
				Time: at(u.Timestamp), AvailableBytes: number(u.AvailableBytes), UsageBytes: number(u.UsageBytes), WorkingSetBytes: number(u.WorkingSetBytes), RSSBytes: number(u.RssBytes),
				PageFaults: number(u.PageFaults), MajorPageFaults: number(u.MajorPageFaults),
			}
			p.Memory = addMemory(p.Memory, c.Memory)
		}
		if u := s.WritableLayer; u != nil {
			c.Rootfs = &statsapi.FsStats{Time: at(u.Timestamp), UsedBytes: number(u.UsedBytes), InodesUsed: number(u.InodesUsed)}
		}
		p.Containers = append(p.Containers, c)
	}
	out := &statsapi.Summary{Node: statsapi.NodeStats{NodeName: k.opts.NodeName}, Pods: []statsapi.PodStats{}}
	for _, p := range pods {
		sort.Slice(p.Containers, func(i, j int) bool { return p.Containers[i].Name < p.Containers[j].Name })
		out.Pods = append(out.Pods, *p)
		if k.opts.Simulated {
			out.Node.CPU, out.Node.Memory = addCPU(out.Node.CPU, p.CPU), addMemory(out.Node.Memory, p.Memory)
		}
	}
	sort.Slice(out.Pods, func(i, j int) bool {
		a, b := out.Pods[i].PodRef, out.Pods[j].PodRef
		return a.Namespace+"/"+a.Name < b.Namespace+"/"+b.Name
	})
	if !k.opts.Simulated {
		k.nodeUsage(&out.Node)
	}
	return out, nil
}

func addNumber(a, b *uint64) *uint64 {
	if a == nil || b == nil {
		if a == nil {
			return b
		}
		return a
	}
	n := *a + *b
	return &n
}

func addCPU(a, b *statsapi.CPUStats) *statsapi.CPUStats {
	if a == nil || b == nil {
		if a == nil {
			return b
		}
		return a
	}
	return &statsapi.CPUStats{Time: b.Time, UsageNanoCores: addNumber(a.UsageNanoCores, b.UsageNanoCores), UsageCoreNanoSeconds: addNumber(a.UsageCoreNanoSeconds, b.UsageCoreNanoSeconds)}
}

func addMemory(a, b *statsapi.MemoryStats) *statsapi.MemoryStats {
	if a == nil || b == nil {
		if a == nil {
			return b
		}
		return a
	}
	return &statsapi.MemoryStats{
		Time: b.Time, UsageBytes: addNumber(a.UsageBytes, b.UsageBytes), WorkingSetBytes: addNumber(a.WorkingSetBytes, b.WorkingSetBytes), RSSBytes: addNumber(a.RSSBytes, b.RSSBytes),
		PageFaults: addNumber(a.PageFaults, b.PageFaults), MajorPageFaults: addNumber(a.MajorPageFaults, b.MajorPageFaults),
	}
}

// nodeUsage measures the machine. How fast its processors work is known from the second time on.
func (k *Kubelet) nodeUsage(n *statsapi.NodeStats) {
	u := machine.Measure()
	if u.CPU == 0 {
		return
	}
	now := k.clock.Now()
	n.StartTime = metav1.NewTime(u.Booted)
	n.CPU = &statsapi.CPUStats{Time: metav1.NewTime(now), UsageCoreNanoSeconds: &u.CPU}
	k.mu.Lock()
	if took := now.Sub(k.usageAt); k.usage > 0 && took > 0 && u.CPU >= k.usage {
		rate := uint64(float64(u.CPU-k.usage) / took.Seconds())
		n.CPU.UsageNanoCores = &rate
	}
	if now.Sub(k.usageAt) >= time.Second {
		k.usage, k.usageAt = u.CPU, now
	}
	k.mu.Unlock()
	n.Memory = &statsapi.MemoryStats{Time: metav1.NewTime(now), AvailableBytes: &u.MemoryAvailable, UsageBytes: &u.MemoryUsed, WorkingSetBytes: &u.MemoryUsed}
	if used, total := fsUsage(k.opts.RootDir); total > 0 {
		free := total - used
		n.Fs = &statsapi.FsStats{Time: metav1.NewTime(now), AvailableBytes: &free, CapacityBytes: &total, UsedBytes: &used}
	}
}

func (k *Kubelet) serveSummary(w http.ResponseWriter, r *http.Request) {
	s, err := k.summary(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeJSON(w, s)
}

// serveResourceMetrics serves what metrics-server reads.
func (k *Kubelet) serveResourceMetrics(w http.ResponseWriter, r *http.Request) {
	s, err := k.summary(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	reg := prometheus.NewRegistry()
	if err := reg.Register(resourceCollector{s}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

type resourceCollector struct{ s *statsapi.Summary }

// Describe implements prometheus.Collector: what is collected depends on what runs.
func (c resourceCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c resourceCollector) Collect(ch chan<- prometheus.Metric) {
	emit := func(name, help string, kind prometheus.ValueType, v *uint64, scale float64, t metav1.Time, labels, values []string) {
		if v != nil {
			ch <- prometheus.NewMetricWithTimestamp(t.Time, prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, labels, nil), kind, float64(*v)*scale, values...))
		}
	}
	usage := func(prefix, what string, cpu *statsapi.CPUStats, mem *statsapi.MemoryStats, labels, values []string) {
		if cpu != nil {
			emit(prefix+"_cpu_usage_seconds_total", "Cumulative cpu time consumed by the "+what+" in core-seconds", prometheus.CounterValue, cpu.UsageCoreNanoSeconds, 1e-9, cpu.Time, labels, values)
		}
		if mem != nil {
			emit(prefix+"_memory_working_set_bytes", "Current working set of the "+what+" in bytes", prometheus.GaugeValue, mem.WorkingSetBytes, 1, mem.Time, labels, values)
		}
	}
	usage("node", "node", c.s.Node.CPU, c.s.Node.Memory, nil, nil)
	for i := range c.s.Pods {
		p := &c.s.Pods[i]
		usage("pod", "pod", p.CPU, p.Memory, []string{"pod", "namespace"}, []string{p.PodRef.Name, p.PodRef.Namespace})
		for j := range p.Containers {
			x := &p.Containers[j]
			labels, values := []string{"container", "pod", "namespace"}, []string{x.Name, p.PodRef.Name, p.PodRef.Namespace}
			usage("container", "container", x.CPU, x.Memory, labels, values)
			seconds := uint64(max(x.StartTime.Unix(), 0))
			ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("container_start_time_seconds", "Start time of the container since unix epoch in seconds", labels, nil), prometheus.GaugeValue, float64(seconds), values...)
		}
	}
	ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("resource_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", nil, nil), prometheus.GaugeValue, 0)
}
