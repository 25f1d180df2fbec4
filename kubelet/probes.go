package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	utilexec "k8s.io/utils/exec"

	"github.com/keelson/keelson/kubelet/internal/podstate"
	"github.com/keelson/keelson/kubelet/internal/probe"
)

type probeKey struct {
	uid       types.UID
	container string
	kind      podstate.ProbeKind
}

// probeState is a probe that runs: what it said last, and how often in a row.
type probeState struct {
	id   string
	spec *corev1.Probe
	last podstate.ProbeResult
	runs int32
	told podstate.ProbeResult
}

func orDefault(v, d int32) int32 {
	if v <= 0 {
		return d
	}
	return v
}

// syncProbes starts the probes that are to run and stops the others. The record is locked.
func (k *Kubelet) syncProbes(rec *record, in podstate.Input, terminating bool) {
	if rec.gone && len(rec.probes) == 0 {
		return
	}
	list := rec.machine.Probes(in, terminating)
	if len(list) == 0 && len(rec.probes) == 0 {
		return
	}
	want := make(map[probeKey]bool, len(list))
	for _, p := range list {
		key := probeKey{rec.uid, p.Container, p.Kind}
		want[key] = true
		if st := rec.probes[key]; st != nil && st.id == p.ContainerID {
			continue
		}
		if rec.probes == nil {
			rec.probes = make(map[probeKey]*probeState, len(list))
		}
		rec.probes[key] = &probeState{id: p.ContainerID, spec: p.Spec}
		k.prober.Cancel(key)
		k.prober.AddAt(key, time.Unix(p.Since, 0).Add(time.Duration(p.Spec.InitialDelaySeconds)*time.Second))
	}
	for key := range rec.probes {
		if !want[key] {
			delete(rec.probes, key)
			k.prober.Cancel(key)
		}
	}
}

// probe runs a probe once and counts its result.
func (k *Kubelet) probe(ctx context.Context, key probeKey) {
	rec := k.record(key.uid)
	if rec == nil {
		return
	}
	rec.mu.Lock()
	st := rec.probes[key]
	if st == nil {
		rec.mu.Unlock()
		return
	}
	pod, id, spec := rec.pod, st.id, st.spec
	c := findContainer(pod, key.container)
	ips := rec.ips(k)
	rec.mu.Unlock()
	if c == nil {
		return
	}
	began := k.clock.Now()
	ok, output, err := k.runProbe(ctx, pod, c, id, ips, key.kind.String(), spec)
	if ctx.Err() != nil {
		return
	}
	next := began.Add(time.Duration(orDefault(spec.PeriodSeconds, 10)) * time.Second)
	if now := k.clock.Now(); next.Before(now) {
		next = now
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.probes[key] != st {
		return
	}
	k.metrics.probe(key.kind.String(), ok && err == nil)
	k.prober.AddAt(key, next)
	if err != nil {
		// Not an answer: it neither counts nor breaks a row.
		k.events.pod(pod, key.container, corev1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe errored and resulted in unknown state: %v", key.kind, err))
		return
	}
	result := podstate.ProbeFailure
	threshold := orDefault(spec.FailureThreshold, 3)
	if ok {
		result, threshold = podstate.ProbeSuccess, orDefault(spec.SuccessThreshold, 1)
	} else {
		k.events.pod(pod, key.container, corev1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe failed: %s", key.kind, output))
	}
	if result != st.last {
		st.last, st.runs = result, 0
	}
	if st.runs++; st.runs < threshold || result == st.told {
		return
	}
	st.told = result
	rec.machine.Probe(key.container, id, key.kind, result)
	k.queue.Add(key.uid)
}

// ips are the pod's addresses. The record is locked.
func (rec *record) ips(k *Kubelet) []string {
	if rec.pod.Spec.HostNetwork {
		return k.hostIPs
	}
	var newest *podstate.Sandbox
	for i := range rec.sandboxes {
		if s := &rec.sandboxes[i]; s.Ready && (newest == nil || s.Attempt > newest.Attempt) {
			newest = s
		}
	}
	if newest == nil {
		return nil
	}
	return newest.IPs
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

func (k *Kubelet) runProbe(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string, ips []string, kind string, spec *corev1.Probe) (bool, string, error) {
	timeout := time.Duration(orDefault(spec.TimeoutSeconds, 1)) * time.Second
	if p, ok := k.runtime.(ProbeService); ok {
		return p.Probe(ctx, id, kind, spec.ProbeHandler)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return k.handle(ctx, c, id, ips, spec.ProbeHandler, timeout)
}

// handle does what a probe's handler says. The error is one of the node's, not of the container's.
func (k *Kubelet) handle(ctx context.Context, c *corev1.Container, id string, ips []string, h corev1.ProbeHandler, timeout time.Duration) (bool, string, error) {
	host := first(ips)
	switch {
	case h.Exec != nil:
		return k.exec(ctx, id, h.Exec.Command, timeout)
	case h.HTTPGet != nil:
		port, err := probe.Port(h.HTTPGet.Port, c)
		if err != nil {
			return false, "", err
		}
		ok, out := probe.HTTP(ctx, k.httpClient(), h.HTTPGet, host, port)
		return ok, out, nil
	case h.TCPSocket != nil:
		port, err := probe.Port(h.TCPSocket.Port, c)
		if err != nil {
			return false, "", err
		}
		if h.TCPSocket.Host != "" {
			host = h.TCPSocket.Host
		}
		ok, out := probe.TCP(ctx, host, port)
		return ok, out, nil
	case h.GRPC != nil:
		service := ""
		if h.GRPC.Service != nil {
			service = *h.GRPC.Service
		}
		ok, out := probe.GRPC(ctx, host, int(h.GRPC.Port), service, timeout)
		return ok, out, nil
	}
	return false, "", fmt.Errorf("missing probe handler for container %s", c.Name)
}

func (k *Kubelet) httpClient() *http.Client { return probe.Client() }

// exec runs a command in a container; a command that fails or takes too long is an answer.
func (k *Kubelet) exec(ctx context.Context, id string, cmd []string, timeout time.Duration) (bool, string, error) {
	stdout, stderr, err := k.runtime.ExecSync(ctx, id, cmd, timeout)
	output := string(stdout) + string(stderr)
	if len(output) > 10<<10 {
		output = output[:10<<10]
	}
	var exit utilexec.ExitError
	switch {
	case err == nil:
		return true, output, nil
	case errors.As(err, &exit):
		return false, output, nil
	case status.Code(err) == codes.DeadlineExceeded, errors.Is(err, context.DeadlineExceeded):
		return false, fmt.Sprintf("command timed out: %q timed out after %v", cmd, timeout), nil
	}
	return false, "", err
}

// runHook runs a lifecycle hook until it ends or ctx does.
func (k *Kubelet) runHook(ctx context.Context, rec *record, pod *corev1.Pod, c *corev1.Container, id string, h *corev1.LifecycleHandler, kind string) error {
	if h.Sleep != nil {
		k.sleep(ctx, time.Duration(h.Sleep.Seconds)*time.Second)
		return ctx.Err()
	}
	handler := corev1.ProbeHandler{Exec: h.Exec, HTTPGet: h.HTTPGet, TCPSocket: h.TCPSocket}
	if p, ok := k.runtime.(ProbeService); ok {
		ok, output, err := p.Probe(ctx, id, kind, handler)
		if err == nil && !ok {
			err = errors.New(output)
		}
		return err
	}
	switch {
	case h.Exec != nil:
		ok, output, err := k.exec(ctx, id, h.Exec.Command, 0)
		if err == nil && !ok {
			err = fmt.Errorf("command '%s' exited with an error: %q", h.Exec.Command, output)
		}
		return err
	case h.HTTPGet != nil:
		port, err := probe.Port(h.HTTPGet.Port, c)
		if err != nil {
			return err
		}
		rec.mu.Lock()
		host := first(rec.ips(k))
		rec.mu.Unlock()
		if host == "" && h.HTTPGet.Host == "" {
			// The sandbox's address may not have been looked at yet.
			host = first(k.hostIPs)
		}
		req, err := probe.Request(ctx, h.HTTPGet, probe.URL(h.HTTPGet, host, port), "kube-lifecycle/1.37")
		if err != nil {
			return err
		}
		resp, err := k.httpClient().Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode < 200 || resp.StatusCode >= 400 {
			return fmt.Errorf("HTTP lifecycle hook failed with statuscode: %d", resp.StatusCode)
		}
		return nil
	}
	return fmt.Errorf("invalid handler: %s hook of container %s", kind, c.Name)
}
