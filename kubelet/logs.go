package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/internal/podlogs"
	"github.com/keelson/keelson/kubelet/internal/podstate"
)

// logOptions reads the query of a request for logs.
func logOptions(q url.Values, now time.Time) (o podlogs.Options, previous bool, err error) {
	o = podlogs.Options{Tail: -1, Limit: -1, Timestamps: flag(q, "timestamps"), Follow: flag(q, "follow")}
	number := func(name string, least int64) (int64, bool) {
		s := q.Get(name)
		if s == "" || err != nil {
			return 0, false
		}
		n, e := strconv.ParseInt(s, 10, 64)
		if e != nil || n < least {
			err = fmt.Errorf("%s: Invalid value: %q: must be an integer of at least %d", name, s, least)
		}
		return n, err == nil
	}
	if s := q.Get("tailLines"); s != "" && s != "all" {
		if n, ok := number("tailLines", 0); ok {
			o.Tail = n
		}
	}
	if n, ok := number("limitBytes", 1); ok {
		o.Limit = n
	}
	if n, ok := number("sinceSeconds", 1); ok {
		o.Since = now.Add(-time.Duration(n) * time.Second)
	}
	if s := q.Get("sinceTime"); s != "" && err == nil {
		if !o.Since.IsZero() {
			return o, false, errors.New("sinceSeconds: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified")
		}
		if o.Since, err = time.Parse(time.RFC3339, s); err != nil {
			err = fmt.Errorf("sinceTime: Invalid value: %q: %w", s, err)
		}
	}
	switch s := q.Get("stream"); s {
	case "", corev1.LogStreamAll:
	case corev1.LogStreamStdout:
		o.Stream = "stdout"
	case corev1.LogStreamStderr:
		o.Stream = "stderr"
	default:
		err = fmt.Errorf("stream: Unsupported value: %q: supported values: \"All\", \"Stderr\", \"Stdout\"", s)
	}
	if o.Stream != "" && o.Tail >= 0 {
		err = errors.New("tailLines: Forbidden: `tailLines` and specific `stream` are mutually exclusive for now")
	}
	return o, flag(q, "previous"), err
}

func (k *Kubelet) serveLogs(w http.ResponseWriter, r *http.Request) {
	o, previous, err := logOptions(r.URL.Query(), k.clock.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	rec := k.findPod(w, r)
	if rec == nil {
		return
	}
	name := r.PathValue("container")
	rec.mu.Lock()
	pod := rec.pod
	exists := findContainer(pod, name) != nil
	id, problem := chooseLog(rec, name, previous)
	rec.mu.Unlock()
	if !exists {
		http.Error(w, fmt.Sprintf("container %q not found in pod %q", name, pod.Name), http.StatusNotFound)
		return
	}
	if problem != "" {
		http.Error(w, problem, http.StatusBadRequest)
		return
	}
	st, err := k.runtime.ContainerStatus(r.Context(), id, false)
	if err != nil || st.GetStatus().GetLogPath() == "" {
		http.Error(w, fmt.Sprintf("unable to retrieve container logs for %s://%s", k.runtimeName, id), http.StatusInternalServerError)
		return
	}
	o.Clock = k.clock
	o.Done = func(ctx context.Context) (bool, error) {
		st, err := k.runtime.ContainerStatus(ctx, id, false)
		if err != nil {
			return true, nil
		}
		return st.GetStatus().GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING, nil
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Transfer-Encoding", "chunked")
	if _, err := os.Stat(st.Status.LogPath); errors.Is(err, fs.ErrNotExist) && k.opts.Simulated {
		// A simulated container that says nothing has no log.
		return
	}
	out := &flushWriter{w: w, flush: http.NewResponseController(w).Flush}
	if err := podlogs.Read(r.Context(), st.Status.LogPath, o, out, out); err != nil && !out.began && r.Context().Err() == nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// flushWriter sends on at once what is written.
type flushWriter struct {
	w     http.ResponseWriter
	flush func() error
	began bool
}

func (f *flushWriter) Write(b []byte) (int, error) {
	f.began = true
	n, err := f.w.Write(b)
	if err == nil {
		err = f.flush()
	}
	return n, err
}

// chooseLog picks the container whose log is meant, or says why there is none. The record is locked.
func chooseLog(rec *record, name string, previous bool) (id, problem string) {
	var newest, before *podstate.Container
	for i := range rec.containers {
		c := &rec.containers[i]
		if c.Name != name || c.State == podstate.Created {
			continue
		}
		switch {
		case newest == nil || c.Attempt > newest.Attempt:
			newest, before = c, newest
		case before == nil || c.Attempt > before.Attempt:
			before = c
		}
	}
	if previous {
		// While a container waits to be started again, its last run is the previous one.
		for _, list := range [...][]corev1.ContainerStatus{rec.status.ContainerStatuses, rec.status.InitContainerStatuses} {
			for i := range list {
				if list[i].Name == name && list[i].State.Waiting != nil && newest != nil && newest.State == podstate.Exited {
					return newest.ID, ""
				}
			}
		}
		if before == nil {
			return "", fmt.Sprintf("previous terminated container %q in pod %q not found", name, rec.pod.Name)
		}
		return before.ID, ""
	}
	if newest != nil {
		return newest.ID, ""
	}
	for _, list := range [...][]corev1.ContainerStatus{rec.status.ContainerStatuses, rec.status.InitContainerStatuses, rec.status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name != name || list[i].State.Waiting == nil {
				continue
			}
			w := list[i].State.Waiting
			switch w.Reason {
			case podstate.ReasonErrImagePull, podstate.ReasonImagePullBackOff, podstate.ReasonErrImageNeverPull:
				return "", fmt.Sprintf("container %q in pod %q is waiting to start: %s", name, rec.pod.Name, map[bool]string{true: "trying and failing to pull image", false: "image can't be pulled"}[w.Reason != podstate.ReasonErrImageNeverPull])
			}
			return "", fmt.Sprintf("container %q in pod %q is waiting to start: %s", name, rec.pod.Name, w.Reason)
		}
	}
	return "", fmt.Sprintf("container %q in pod %q is not available", name, rec.pod.Name)
}
