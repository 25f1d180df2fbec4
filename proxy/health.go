package proxy

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// healthServers answer load balancers on the healthCheckNodePort of Services with externalTrafficPolicy: Local: 200 while the
// node has ready endpoints of its own, 503 otherwise.
type healthServers struct {
	log logr.Logger

	mu      sync.Mutex
	ports   map[Key]ServicePort // those with a health port
	servers map[uint16]*healthServer
}

type healthServer struct {
	namespace, name string
	local           int
	stop            func()
}

func newHealthServers(log logr.Logger) *healthServers {
	return &healthServers{log: log, ports: map[Key]ServicePort{}, servers: map[uint16]*healthServer{}}
}

// apply follows a change of the plan.
func (h *healthServers) apply(c Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.Full {
		clear(h.ports)
	}
	for _, k := range c.Removed {
		delete(h.ports, k)
	}
	for _, sp := range c.Set {
		delete(h.ports, sp.Key)
		if sp.HealthCheckNodePort != 0 {
			h.ports[sp.Key] = sp
		}
	}
	keep := map[uint16]bool{}
	for _, sp := range h.ports {
		port := sp.HealthCheckNodePort
		keep[port] = true
		if h.servers[port] == nil {
			stop := h.listen(port)
			if stop == nil {
				continue
			}
			h.servers[port] = &healthServer{stop: stop}
		}
		s := h.servers[port]
		s.namespace, s.name, s.local = sp.Key.Namespace, sp.Key.Name, sp.LocalEndpoints
	}
	for port, s := range h.servers {
		if !keep[port] {
			s.stop()
			delete(h.servers, port)
		}
	}
}

func (h *healthServers) listen(port uint16) (stop func()) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", ":"+strconv.Itoa(int(port)))
	if err != nil {
		h.log.Error(err, "healthCheckNodePort not served", "port", port)
		return nil
	}
	srv := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { h.answer(w, port) })}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	return func() {
		srv.Close()
		<-done
	}
}

func (h *healthServers) answer(w http.ResponseWriter, port uint16) {
	h.mu.Lock()
	s := h.servers[port]
	var body struct {
		Service struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"service"`
		LocalEndpoints      int  `json:"localEndpoints"`
		ServiceProxyHealthy bool `json:"serviceProxyHealthy"`
	}
	if s != nil {
		body.Service.Namespace, body.Service.Name, body.LocalEndpoints, body.ServiceProxyHealthy = s.namespace, s.name, s.local, true
	}
	h.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(body.LocalEndpoints))
	if body.LocalEndpoints == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(body)
}

// close ends all; apply must not be called any more.
func (h *healthServers) close() {
	h.mu.Lock()
	servers := h.servers
	h.servers = map[uint16]*healthServer{}
	h.mu.Unlock()
	for _, s := range servers {
		s.stop()
	}
}
