package kubelet

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/internal/podstate"
)

// Handler serves the kubelet's API, under the paths of Kubernetes' own, to authenticated and authorized clients.
func (k *Kubelet) Handler() http.Handler {
	mux := http.NewServeMux()
	ok := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }
	mux.HandleFunc("GET /healthz", ok)
	mux.HandleFunc("GET /healthz/ping", ok)
	mux.HandleFunc("GET /healthz/syncloop", k.serveHealth)
	mux.HandleFunc("GET /healthz/log", ok)
	mux.HandleFunc("GET /pods", k.servePods)
	mux.HandleFunc("GET /runningpods/", k.serveRunningPods)
	mux.HandleFunc("GET /runningpods", k.serveRunningPods)
	mux.Handle("GET /metrics", k.metricsHandler())
	mux.HandleFunc("GET /metrics/resource", k.serveResourceMetrics)
	mux.HandleFunc("GET /stats/summary", k.serveSummary)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", k.serveLogs)
	for _, verb := range []string{"GET", "POST"} {
		for _, path := range []string{"/{namespace}/{pod}/{container}", "/{namespace}/{pod}/{uid}/{container}"} {
			mux.HandleFunc(verb+" /exec"+path, k.serveExec)
			mux.HandleFunc(verb+" /attach"+path, k.serveAttach)
		}
		mux.HandleFunc(verb+" /portForward/{namespace}/{pod}", k.servePortForward)
		mux.HandleFunc(verb+" /portForward/{namespace}/{pod}/{uid}", k.servePortForward)
	}
	mux.HandleFunc("POST /run/{namespace}/{pod}/{container}", k.serveRun)
	mux.HandleFunc("POST /run/{namespace}/{pod}/{uid}/{container}", k.serveRun)
	return k.guard(mux)
}

func (k *Kubelet) serveHealth(w http.ResponseWriter, r *http.Request) {
	if problem := k.runtimeProblem(r.Context()); problem != "" {
		http.Error(w, problem, http.StatusInternalServerError)
		return
	}
	_, _ = w.Write([]byte("ok"))
}

func (k *Kubelet) metricsHandler() http.Handler {
	g := prometheus.Gatherers{k.metrics.registry}
	if k.opts.Gatherer != nil {
		g = append(g, k.opts.Gatherer)
	}
	return promhttp.HandlerFor(g, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

func writeJSON(w http.ResponseWriter, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
}

func (k *Kubelet) servePods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{Items: []corev1.Pod{}}
	list.Kind, list.APIVersion = "PodList", "v1"
	for _, rec := range k.records() {
		rec.mu.Lock()
		if !rec.gone {
			pod := rec.pod.DeepCopy()
			if rec.version > 0 {
				pod.Status = *rec.status.DeepCopy()
			}
			list.Items = append(list.Items, *pod)
		}
		rec.mu.Unlock()
	}
	writeJSON(w, &list)
}

func (k *Kubelet) records() []*record {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := make([]*record, 0, len(k.pods))
	for _, rec := range k.pods {
		list = append(list, rec)
	}
	return list
}

// serveRunningPods lists what the runtime runs, whatever the API says.
func (k *Kubelet) serveRunningPods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{Items: []corev1.Pod{}}
	list.Kind, list.APIVersion = "PodList", "v1"
	for _, rec := range k.records() {
		rec.mu.Lock()
		pod := corev1.Pod{ObjectMeta: rec.pod.ObjectMeta}
		for i := range rec.containers {
			if c := &rec.containers[i]; c.State == podstate.Running {
				pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: c.Name, Image: c.Image})
			}
		}
		rec.mu.Unlock()
		if len(pod.Spec.Containers) > 0 {
			list.Items = append(list.Items, pod)
		}
	}
	writeJSON(w, &list)
}

// findPod finds the pod a path names, and answers if there is none.
func (k *Kubelet) findPod(w http.ResponseWriter, r *http.Request) *record {
	namespace, name, uid := r.PathValue("namespace"), r.PathValue("pod"), types.UID(r.PathValue("uid"))
	var found *record
	for _, rec := range k.records() {
		rec.mu.Lock()
		match := !rec.gone && rec.pod.Namespace == namespace && rec.pod.Name == name && (uid == "" || rec.uid == uid)
		rec.mu.Unlock()
		if match {
			found = rec
		}
	}
	if found == nil {
		http.Error(w, fmt.Sprintf("pod %q does not exist", name), http.StatusNotFound)
	}
	return found
}

// findRunning finds the running container a path names.
func (k *Kubelet) findRunning(w http.ResponseWriter, r *http.Request) (string, bool) {
	rec := k.findPod(w, r)
	if rec == nil {
		return "", false
	}
	name := r.PathValue("container")
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for i := range rec.containers {
		if c := &rec.containers[i]; c.Name == name && c.State == podstate.Running {
			return c.ID, true
		}
	}
	http.Error(w, fmt.Sprintf("container not found (%q)", name), http.StatusNotFound)
	return "", false
}

// flag reads one of the parameters by which the API server and clients ask for a stream.
func flag(q url.Values, names ...string) bool {
	for _, n := range names {
		switch strings.ToLower(q.Get(n)) {
		case "1", "true":
			return true
		}
	}
	return false
}

func (k *Kubelet) serveExec(w http.ResponseWriter, r *http.Request) {
	id, ok := k.findRunning(w, r)
	if !ok {
		return
	}
	q := r.URL.Query()
	req := &runtimeapi.ExecRequest{ContainerId: id, Cmd: q["command"], Tty: flag(q, "tty"), Stdin: flag(q, "input", "stdin"), Stdout: flag(q, "output", "stdout"), Stderr: flag(q, "error", "stderr")}
	// A terminal has one output.
	req.Stderr = req.Stderr && !req.Tty
	if !req.Stdin && !req.Stdout && !req.Stderr {
		http.Error(w, "you must specify at least 1 of stdin, stdout, stderr", http.StatusBadRequest)
		return
	}
	resp, err := k.runtime.Exec(r.Context(), req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	k.proxyStream(w, r, resp.Url)
}

func (k *Kubelet) serveAttach(w http.ResponseWriter, r *http.Request) {
	id, ok := k.findRunning(w, r)
	if !ok {
		return
	}
	q := r.URL.Query()
	req := &runtimeapi.AttachRequest{ContainerId: id, Tty: flag(q, "tty"), Stdin: flag(q, "input", "stdin"), Stdout: flag(q, "output", "stdout"), Stderr: flag(q, "error", "stderr")}
	req.Stderr = req.Stderr && !req.Tty
	if !req.Stdin && !req.Stdout && !req.Stderr {
		http.Error(w, "you must specify at least 1 of stdin, stdout, stderr", http.StatusBadRequest)
		return
	}
	resp, err := k.runtime.Attach(r.Context(), req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	k.proxyStream(w, r, resp.Url)
}

func (k *Kubelet) servePortForward(w http.ResponseWriter, r *http.Request) {
	rec := k.findPod(w, r)
	if rec == nil {
		return
	}
	var ports []int32
	for _, v := range r.URL.Query()["port"] {
		for s := range strings.SplitSeq(v, ",") {
			var n int32
			if _, err := fmt.Sscanf(s, "%d", &n); err != nil || n < 1 || n > 65535 {
				http.Error(w, fmt.Sprintf("unable to parse %q as a port", s), http.StatusBadRequest)
				return
			}
			ports = append(ports, n)
		}
	}
	id := ""
	rec.mu.Lock()
	var attempt uint32
	for i := range rec.sandboxes {
		if s := &rec.sandboxes[i]; s.Ready && (id == "" || s.Attempt > attempt) {
			id, attempt = s.ID, s.Attempt
		}
	}
	rec.mu.Unlock()
	if id == "" {
		http.Error(w, "the pod has no sandbox that is ready", http.StatusNotFound)
		return
	}
	resp, err := k.runtime.PortForward(r.Context(), &runtimeapi.PortForwardRequest{PodSandboxId: id, Port: ports})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	k.proxyStream(w, r, resp.Url)
}

// serveRun runs a command and answers with its output.
func (k *Kubelet) serveRun(w http.ResponseWriter, r *http.Request) {
	id, ok := k.findRunning(w, r)
	if !ok {
		return
	}
	stdout, stderr, err := k.runtime.ExecSync(r.Context(), id, strings.Split(r.URL.Query().Get("cmd"), " "), 0)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(append(stdout, stderr...))
}
