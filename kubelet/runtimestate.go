package kubelet

import (
	"context"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"

	"github.com/keelson/keelson/kubelet/internal/criconfig"
	"github.com/keelson/keelson/kubelet/internal/podlogs"
	"github.com/keelson/keelson/kubelet/internal/podstate"
)

// refresh asks the runtime for what it has of a pod.
func (k *Kubelet) refresh(ctx context.Context, rec *record) error {
	selector := map[string]string{kubelettypes.KubernetesPodUIDLabel: string(rec.uid)}
	sandboxes, err := k.runtime.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: selector})
	if err != nil {
		return err
	}
	containers, err := k.runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: selector})
	if err != nil {
		return err
	}
	return k.take(ctx, rec, sandboxes, containers)
}

// take keeps what was listed in the record, and asks for the details of what changed since.
func (k *Kubelet) take(ctx context.Context, rec *record, sandboxes []*runtimeapi.PodSandbox, containers []*runtimeapi.Container) error {
	newSandboxes := make([]podstate.Sandbox, 0, len(sandboxes))
	for _, s := range sandboxes {
		ready := s.State == runtimeapi.PodSandboxState_SANDBOX_READY
		x := podstate.Sandbox{ID: s.Id, Ready: ready, Attempt: s.GetMetadata().GetAttempt(), CreatedAt: time.Unix(0, s.CreatedAt)}
		if old := findSandbox(rec.sandboxes, s.Id); old != nil && old.Ready == ready {
			x.IPs = old.IPs
		} else if ready {
			st, err := k.runtime.PodSandboxStatus(ctx, s.Id, false)
			if status.Code(err) == codes.NotFound {
				continue
			} else if err != nil {
				return err
			}
			if n := st.GetStatus().GetNetwork(); n.GetIp() != "" {
				x.IPs = append(x.IPs, n.Ip)
				for _, ip := range n.AdditionalIps {
					x.IPs = append(x.IPs, ip.Ip)
				}
			} else if st.GetStatus().GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE {
				// Whatever the pod asked for, its address is the node's.
				x.IPs = k.hostIPs
			}
		}
		newSandboxes = append(newSandboxes, x)
	}
	newContainers := make([]podstate.Container, 0, len(containers))
	for _, c := range containers {
		if old := findContainerID(rec.containers, c.Id); old != nil && old.State == stateOf(c.State) && old.State != podstate.Created && old.State != podstate.Unknown {
			newContainers = append(newContainers, *old)
			continue
		}
		st, err := k.runtime.ContainerStatus(ctx, c.Id, false)
		if status.Code(err) == codes.NotFound {
			continue
		} else if err != nil {
			return err
		}
		x := containerOf(st.GetStatus(), c.PodSandboxId)
		if x.State == podstate.Exited && !k.opts.Simulated {
			k.terminationMessage(&x, st.GetStatus())
		}
		newContainers = append(newContainers, x)
	}
	rec.sandboxes, rec.containers = newSandboxes, newContainers
	return nil
}

func findSandbox(list []podstate.Sandbox, id string) *podstate.Sandbox {
	for i := range list {
		if list[i].ID == id {
			return &list[i]
		}
	}
	return nil
}

func findContainerID(list []podstate.Container, id string) *podstate.Container {
	for i := range list {
		if list[i].ID == id {
			return &list[i]
		}
	}
	return nil
}

func stateOf(s runtimeapi.ContainerState) podstate.State {
	switch s {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return podstate.Created
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return podstate.Running
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		return podstate.Exited
	}
	return podstate.Unknown
}

func containerOf(st *runtimeapi.ContainerStatus, sandbox string) podstate.Container {
	at := func(ns int64) time.Time {
		if ns == 0 {
			return time.Time{}
		}
		return time.Unix(0, ns)
	}
	x := podstate.Container{
		ID: st.Id, Name: st.GetMetadata().GetName(), SandboxID: sandbox, State: stateOf(st.State), Attempt: st.GetMetadata().GetAttempt(),
		CreatedAt: at(st.CreatedAt), StartedAt: at(st.StartedAt), FinishedAt: at(st.FinishedAt), ExitCode: st.ExitCode, Reason: st.Reason, Message: st.Message,
		SpecImage: st.Annotations[criconfig.AnnotationImage],
	}
	if n, err := strconv.ParseUint(st.Annotations[criconfig.AnnotationRestartCount], 10, 32); err == nil {
		x.Attempt = uint32(n)
	}
	x.Image = st.GetImage().GetUserSpecifiedImage()
	if x.Image == "" {
		x.Image = st.GetImage().GetImage()
	}
	if x.Image == "" || strings.HasPrefix(x.Image, "sha256:") {
		x.Image = x.SpecImage
	}
	x.ImageID = st.ImageRef
	if x.ImageID == "" {
		x.ImageID = st.ImageId
	}
	if u := st.GetUser().GetLinux(); u != nil {
		x.User = &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: u.Uid, GID: u.Gid, SupplementalGroups: u.SupplementalGroups}}
	}
	return x
}

// Limits of what a container says at its end.
const (
	maxTerminationMessage      = 4096
	maxTerminationMessageLog   = 2048
	maxTerminationMessageLines = 80
)

// terminationMessage reads what a container left in its termination log, or else, if its policy says so, the end of its output.
func (k *Kubelet) terminationMessage(x *podstate.Container, st *runtimeapi.ContainerStatus) {
	path := st.Annotations[criconfig.AnnotationTerminationMessagePath]
	for _, m := range st.Mounts {
		if path == "" || m.ContainerPath != path {
			continue
		}
		f, err := os.Open(m.HostPath)
		if err != nil {
			break
		}
		data, err := io.ReadAll(io.LimitReader(f, maxTerminationMessage))
		_ = f.Close()
		if err == nil && len(data) > 0 {
			x.Message = string(data)
			return
		}
	}
	if x.ExitCode != 0 && st.Annotations[criconfig.AnnotationTerminationMessagePolicy] == string(corev1.TerminationMessageFallbackToLogsOnError) && st.LogPath != "" {
		if tail, err := podlogs.Tail(st.LogPath, maxTerminationMessageLines, maxTerminationMessageLog); err == nil && len(tail) > 0 {
			x.Message = string(tail)
		}
	}
}

// relist compares what the runtime has with what it had, and brings the pods that differ into the queue. It finds pods
// that the API has no more.
func (k *Kubelet) relist(ctx context.Context) error {
	sandboxes, err := k.runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return err
	}
	containers, err := k.runtime.ListContainers(ctx, nil)
	if err != nil {
		return err
	}
	seen := map[types.UID]map[string]int32{}
	meta := map[types.UID]map[string]string{}
	note := func(labels map[string]string, id string, state int32) {
		uid := types.UID(labels[kubelettypes.KubernetesPodUIDLabel])
		if uid == "" {
			return
		}
		if seen[uid] == nil {
			seen[uid] = map[string]int32{}
		}
		seen[uid][id] = state
		meta[uid] = labels
	}
	for _, s := range sandboxes {
		note(s.Labels, s.Id, int32(s.State))
	}
	for _, c := range containers {
		note(c.Labels, c.Id, int32(c.State))
	}
	k.relistMu.Lock()
	defer k.relistMu.Unlock()
	for uid, states := range seen {
		if !sameStates(k.relisted[uid], states) {
			k.runtimeChanged(uid, meta[uid])
		}
	}
	for uid := range k.relisted {
		if seen[uid] == nil {
			k.runtimeChanged(uid, nil)
		}
	}
	k.relisted = seen
	return nil
}

func sameStates(a, b map[string]int32) bool {
	if len(a) != len(b) {
		return false
	}
	for id, s := range a {
		if t, ok := b[id]; !ok || t != s {
			return false
		}
	}
	return true
}

// runtimeChanged has a pod looked at again. A pod that the API doesn't have, though all of its pods are known, is an orphan.
func (k *Kubelet) runtimeChanged(uid types.UID, labels map[string]string) {
	k.mu.Lock()
	rec := k.pods[uid]
	if rec == nil {
		if labels == nil {
			k.mu.Unlock()
			return
		}
		rec = &record{uid: uid, gone: true, orphan: true, machine: podstate.New(), admission: released, pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			UID:  uid,
			Name: labels[kubelettypes.KubernetesPodNameLabel], Namespace: labels[kubelettypes.KubernetesPodNamespaceLabel],
		}}}
		k.pods[uid] = rec
	}
	k.mu.Unlock()
	rec.stale.Store(true)
	k.queue.Add(uid)
}

// watchRuntime keeps the kubelet informed of what happens in the runtime: by its events where it has them, else by listing.
func (k *Kubelet) watchRuntime(ctx context.Context) error {
	source, ok := k.runtime.(EventService)
	if !ok {
		return k.pollRuntime(ctx)
	}
	for ctx.Err() == nil {
		if err := k.relist(ctx); err != nil && ctx.Err() == nil {
			k.log.Error(err, "Listing what runs")
			k.sleep(ctx, time.Second)
			continue
		}
		err := k.takeEvents(ctx, source)
		if status.Code(err) == codes.Unimplemented {
			// A runtime reached over CRI may turn out to have no events, as containerd without its option.
			return k.pollRuntime(ctx)
		}
		if err != nil && ctx.Err() == nil {
			k.log.Error(err, "Watching the runtime's events")
			k.sleep(ctx, time.Second)
		}
	}
	return ctx.Err()
}

// pollRuntime lists what runs every RelistPeriod.
func (k *Kubelet) pollRuntime(ctx context.Context) error {
	return k.every(ctx, k.opts.RelistPeriod, func() {
		if err := k.relist(ctx); err != nil && ctx.Err() == nil {
			k.log.Error(err, "Listing what runs")
			k.runtimeError.Store(errPtr(err))
		} else {
			k.runtimeError.Store(nil)
		}
	})
}

func (k *Kubelet) takeEvents(ctx context.Context, source EventService) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := make(chan *runtimeapi.ContainerEventResponse, 64)
	ended := make(chan error, 1)
	go func() { ended <- source.GetContainerEvents(ctx, events) }()
	// What happened before the subscription is found by one more list, and what was missed for other reasons by one now and then.
	timer := k.clock.NewTimer(time.Second)
	defer timer.Stop()
	var err error
	for err == nil {
		select {
		case e := <-events:
			if uid := types.UID(e.GetPodSandboxStatus().GetMetadata().GetUid()); uid != "" {
				k.runtimeChanged(uid, e.PodSandboxStatus.Labels)
			} else {
				err = k.relist(ctx)
			}
		case <-timer.C():
			err = k.relist(ctx)
			timer.Reset(5 * time.Minute)
		case err = <-ended:
			return err
		}
	}
	cancel()
	for {
		select {
		case <-events:
		case end := <-ended:
			if err == nil {
				err = end
			}
			return err
		}
	}
}
