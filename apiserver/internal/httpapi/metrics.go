package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/keelson/keelson/apiserver/internal/core"
)

// exchange is what a request is counted as.
type exchange struct {
	start time.Time
	gvr   schema.GroupVersionResource
	// subresource is, for other paths, the path.
	subresource, verb, scope, dryRun string
	longRunning                      bool
}

func (x *exchange) resource(gvr schema.GroupVersionResource, p resourcePath, verb string, q url.Values) {
	x.gvr, x.subresource = gvr, p.subresource
	x.verb = metricVerb(verb)
	switch {
	case p.name != "" || verb == "create" && p.namespace != "":
		x.scope = "resource"
	case p.namespace != "":
		x.scope = "namespace"
	default:
		x.scope = "cluster"
	}
	if q != nil && q.Get("dryRun") != "" {
		x.dryRun = q.Get("dryRun")
		if x.dryRun != "All" {
			x.dryRun = "invalid"
		}
	}
}

func metricVerb(verb string) string {
	switch verb {
	case "create":
		return "POST"
	case "update":
		return "PUT"
	case "get":
		return "GET"
	case "list":
		return "LIST"
	case "watch":
		return "WATCH"
	case "patch":
		return "PATCH"
	case "delete":
		return "DELETE"
	case "deletecollection":
		return "DELETECOLLECTION"
	}
	return "other"
}

// metricMethod keeps what clients make up out of the labels.
func metricMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

// metrics are those of kube-apiserver's handlers, under its names.
type metrics struct {
	requests                 *prometheus.CounterVec
	durations, sizes         *prometheus.HistogramVec
	running                  *prometheus.GaugeVec
	events                   *prometheus.CounterVec
	panics                   prometheus.Counter
	readOnlyFull, mutateFull prometheus.Counter
}

var durationBuckets = []float64{
	0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	if reg == nil {
		return nil, nil
	}
	labels := []string{"verb", "group", "version", "resource", "subresource", "scope", "component"}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total",
			Help: "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
		}, []string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_request_duration_seconds", Buckets: durationBuckets,
			Help: "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
		}, []string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"}),
		sizes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_response_sizes", Buckets: prometheus.ExponentialBuckets(1000, 10, 7),
			Help: "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
		}, labels),
		running: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_longrunning_requests",
			Help: "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component.",
		}, labels),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_watch_events_total", Help: "Number of events sent in watch clients",
		}, []string{"group", "version", "resource"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "apiserver_request_panics_total", Help: "Number of requests whose handler panicked.",
		}),
	}
	rejected := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_dropped_requests_total", Help: "Number of requests dropped with 'Try again later' response",
	}, []string{"request_kind"})
	m.readOnlyFull, m.mutateFull = rejected.WithLabelValues("readOnly"), rejected.WithLabelValues("mutating")
	for _, c := range []prometheus.Collector{m.requests, m.durations, m.sizes, m.running, m.events, m.panics, rejected} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("httpapi: metrics: %w", err)
		}
	}
	return m, nil
}

const component = "apiserver"

func (m *metrics) done(x *exchange, w *response, took time.Duration) {
	if m == nil || x.verb == "" {
		return
	}
	code := w.code
	if code == 0 {
		code = http.StatusOK
	}
	g := x.gvr
	m.requests.WithLabelValues(x.verb, x.dryRun, g.Group, g.Version, g.Resource, x.subresource, x.scope, component, strconv.Itoa(code)).Inc()
	if !x.longRunning {
		m.durations.WithLabelValues(x.verb, x.dryRun, g.Group, g.Version, g.Resource, x.subresource, x.scope, component).Observe(took.Seconds())
	}
	if x.verb == "GET" || x.verb == "LIST" {
		m.sizes.WithLabelValues(x.verb, g.Group, g.Version, g.Resource, x.subresource, x.scope, component).Observe(float64(w.bytes))
	}
}

// longRunning counts a request until the returned function is called.
func (m *metrics) longRunning(x *exchange) func() {
	if m == nil {
		return func() {}
	}
	g := m.running.WithLabelValues(x.verb, x.gvr.Group, x.gvr.Version, x.gvr.Resource, x.subresource, x.scope, component)
	g.Inc()
	return g.Dec
}

func (m *metrics) watchEvents(res *core.Resource, n int) {
	if m == nil || n == 0 {
		return
	}
	m.events.WithLabelValues(res.GVR.Group, res.GVR.Version, res.GVR.Resource).Add(float64(n))
}

func (m *metrics) panicked() {
	if m != nil {
		m.panics.Inc()
	}
}

func (m *metrics) rejected(kind string) {
	switch {
	case m == nil:
	case kind == "mutating":
		m.mutateFull.Inc()
	default:
		m.readOnlyFull.Inc()
	}
}
