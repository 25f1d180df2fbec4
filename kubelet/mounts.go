package kubelet

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/internal/criconfig"
	"github.com/keelson/keelson/kubelet/internal/env"
	"github.com/keelson/keelson/kubelet/internal/podlogs"
	"github.com/keelson/keelson/kubelet/internal/volumes"
)

func (k *Kubelet) logRoot() string { return filepath.Join(k.opts.RootDir, "logs") }

func (k *Kubelet) prepareRoot() error {
	if k.opts.Simulated {
		return nil
	}
	for _, dir := range []string{k.opts.RootDir, filepath.Join(k.opts.RootDir, "pods"), k.logRoot()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("kubelet: Options.RootDir: %w", err)
		}
	}
	return nil
}

func (k *Kubelet) makeLogDirectory(pod *corev1.Pod) error {
	if k.opts.Simulated {
		return nil
	}
	return os.MkdirAll(criconfig.LogDirectory(k.logRoot(), pod), 0o755)
}

func (k *Kubelet) removeLogs(pod *corev1.Pod) error {
	return os.RemoveAll(criconfig.LogDirectory(k.logRoot(), pod))
}

// removeContainerLogs removes the logs of a container's attempts before a number.
func (k *Kubelet) removeContainerLogs(pod *corev1.Pod, name string, before uint32) {
	dir := filepath.Join(criconfig.LogDirectory(k.logRoot(), pod))
	for n := before; n > 0; n-- {
		p := filepath.Join(dir, criconfig.LogPath(name, n-1))
		if _, err := os.Stat(p); err != nil {
			return
		}
		if err := podlogs.Remove(p); err != nil {
			k.log.Error(err, "Removing old logs", "path", p)
			return
		}
	}
}

// volumeInput is the pod as its volumes see it.
func (k *Kubelet) volumeInput(rec *record, pod *corev1.Pod) volumes.Input {
	rec.mu.Lock()
	ips := rec.ips(k)
	rec.mu.Unlock()
	return volumes.Input{Pod: pod, PodIPs: ips, HostIPs: k.hostIPs, Allocatable: k.allocatable()}
}

// syncVolumes brings volumes made of API objects up to date now and then. The record is locked.
func (k *Kubelet) syncVolumes(ctx context.Context, rec *record, terminating bool) {
	if k.volumes == nil || terminating || rec.gone || !volumes.Refreshable(rec.pod) {
		return
	}
	now := k.clock.Now()
	if rec.refreshAt.IsZero() {
		rec.refreshAt = now.Add(k.opts.SyncPeriod)
	}
	if !now.Before(rec.refreshAt) {
		rec.refreshAt = now.Add(k.opts.SyncPeriod)
		pod := rec.pod
		k.operations.Go(func() {
			if err := k.volumes.Refresh(ctx, k.volumeInput(rec, pod)); err != nil && ctx.Err() == nil {
				k.events.pod(pod, "", corev1.EventTypeWarning, "FailedMount", err.Error())
			}
		})
	}
	k.queue.AddAt(rec.uid, rec.refreshAt)
}

// mounts are what a container sees of the machine: its volumes, /etc/hosts, and the file it may leave its last words in.
func (k *Kubelet) mounts(rec *record, pod *corev1.Pod, c *corev1.Container, attempt uint32, vars []env.Var, podIPs []string) ([]*runtimeapi.Mount, error) {
	// The volumes have been prepared: looking them up takes no more than memory and one or two requests.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var out []*runtimeapi.Mount
	ownHosts := true
	lookup := map[string]string{}
	for _, v := range vars {
		lookup[v.Name] = v.Value
	}
	for i := range c.VolumeMounts {
		vm := &c.VolumeMounts[i]
		vol, err := k.volumes.Volume(ctx, pod, vm.Name)
		if err != nil {
			return nil, err
		}
		host, sub := vol.Path, vm.SubPath
		if vm.SubPathExpr != "" {
			var missing string
			sub = env.Expand(vm.SubPathExpr, func(name string) (string, bool) {
				v, ok := lookup[name]
				if !ok {
					missing = name
				}
				return v, ok
			})
			if missing != "" {
				return nil, fmt.Errorf("missing value for %q", missing)
			}
		}
		if sub != "" {
			if host, err = k.volumes.SubPath(pod, vol, vm.Name, sub, c.Name, i); err != nil {
				return nil, err
			}
		}
		m := &runtimeapi.Mount{ContainerPath: absolute(vm.MountPath), HostPath: host, Readonly: vm.ReadOnly || vol.ReadOnly}
		if p := vm.MountPropagation; p != nil {
			switch *p {
			case corev1.MountPropagationHostToContainer:
				m.Propagation = runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
			case corev1.MountPropagationBidirectional:
				m.Propagation = runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
			}
		}
		if r := vm.RecursiveReadOnly; r != nil && *r != corev1.RecursiveReadOnlyDisabled && m.Readonly {
			m.RecursiveReadOnly = *r == corev1.RecursiveReadOnlyEnabled
		}
		if m.ContainerPath == "/etc/hosts" {
			ownHosts = false
		}
		out = append(out, m)
	}
	dir := k.volumes.PodDir(pod.UID)
	if ownHosts {
		file := filepath.Join(dir, "etc-hosts")
		if err := k.writeHosts(file, pod, podIPs); err != nil {
			return nil, err
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: "/etc/hosts", HostPath: file})
	}
	if p := c.TerminationMessagePath; p != "" {
		file := filepath.Join(dir, "containers", c.Name, fmt.Sprintf("%d", attempt))
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666)
		if err != nil {
			return nil, err
		}
		_ = f.Close()
		if err := os.Chmod(file, 0o666); err != nil {
			return nil, err
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: absolute(p), HostPath: file})
	}
	return out, nil
}

func absolute(p string) string {
	if strings.Contains(p, ":") || path.IsAbs(p) {
		return p
	}
	return "/" + p
}

func (k *Kubelet) writeHosts(file string, pod *corev1.Pod, podIPs []string) error {
	hostname, err := criconfig.Hostname(pod, k.opts.ClusterDomain, k.opts.Hostname)
	if err != nil {
		return err
	}
	if i := strings.IndexByte(hostname, '.'); i > 0 {
		hostname = hostname[:i]
	}
	var host []byte
	if pod.Spec.HostNetwork {
		if host, err = os.ReadFile("/etc/hosts"); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	content := criconfig.HostsFile(pod, podIPs, hostname, criconfig.Domain(pod, k.opts.ClusterDomain), host)
	if err := os.WriteFile(file, content, 0o644); err != nil {
		return err
	}
	return os.Chmod(file, 0o644)
}

// hostDNS is how the node resolves names; nothing if that can't be read.
func (k *Kubelet) hostDNS() *runtimeapi.DNSConfig {
	f, err := os.Open(k.opts.ResolvConf)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	c, err := criconfig.ParseResolvConf(f)
	if err != nil {
		k.log.Error(err, "Reading the node's resolver configuration")
		return nil
	}
	return c
}

// housekeep rotates logs, evicts pods that take too much storage, removes images nobody uses when they take too much room, and what pods that are gone have left on disk.
func (k *Kubelet) housekeep(ctx context.Context) error {
	rounds := 0
	return k.every(ctx, 10*time.Second, func() {
		k.rotateLogs(ctx)
		k.enforceStorage(ctx)
		if rounds%6 == 0 {
			k.removeLeftovers(ctx)
		}
		k.imageUse.note(ctx, k)
		if rounds%30 == 29 {
			k.collectImages(ctx)
		}
		rounds++
	})
}

func (k *Kubelet) rotateLogs(ctx context.Context) {
	list, err := k.runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}})
	if err != nil {
		return
	}
	for _, c := range list {
		st, err := k.runtime.ContainerStatus(ctx, c.Id, false)
		if err != nil || st.GetStatus().GetLogPath() == "" {
			continue
		}
		_, err = podlogs.Rotate(ctx, st.Status.LogPath, k.opts.ContainerLogMaxSize, k.opts.ContainerLogMaxFiles, k.clock.Now(), func(ctx context.Context) error {
			return k.runtime.ReopenContainerLog(ctx, c.Id)
		})
		if err != nil && ctx.Err() == nil {
			k.log.Error(err, "Rotating a log", "path", st.Status.LogPath)
		}
	}
}

// removeLeftovers removes directories of pods that are neither in the API nor in the runtime.
func (k *Kubelet) removeLeftovers(ctx context.Context) {
	uids, err := k.volumes.Pods()
	if err != nil {
		k.log.Error(err, "Listing pods' directories")
		return
	}
	for _, uid := range uids {
		if k.record(uid) == nil {
			if err := k.volumes.CleanUp(ctx, uid); err != nil {
				k.log.Error(err, "Removing a pod's directory", "uid", uid)
			}
		}
	}
	entries, err := os.ReadDir(k.logRoot())
	if err != nil {
		return
	}
	known := map[string]bool{}
	for _, pod := range k.podList() {
		known[filepath.Base(criconfig.LogDirectory(k.logRoot(), pod))] = true
	}
	for _, e := range entries {
		if !known[e.Name()] {
			_ = os.RemoveAll(filepath.Join(k.logRoot(), e.Name()))
		}
	}
}
