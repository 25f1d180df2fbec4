package kubelet

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sort"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/kubelet/internal/machine"
)

// nodeStatusReport is how often the node's status is written though nothing but its heartbeat changed.
const nodeStatusReport = 5 * time.Minute

// maxImagesInStatus is how many images the node's status lists.
const maxImagesInStatus = 50

func machineIP() netip.Addr { return machine.IP() }

func (k *Kubelet) waitForRuntime(ctx context.Context) (*runtimeapi.VersionResponse, error) {
	for {
		v, err := k.runtime.Version(ctx, "v1")
		if err == nil {
			return v, nil
		}
		k.log.Error(err, "The container runtime does not answer")
		if k.sleep(ctx, time.Second); ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// register makes the node in the API, or brings the labels of the one there up to date, and keeps trying until it could.
func (k *Kubelet) register(ctx context.Context, version *runtimeapi.VersionResponse) error {
	wait := 100 * time.Millisecond
	info := machine.Read(k.opts.RootDir)
	for {
		err := k.tryRegister(ctx, info, version)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		k.log.Error(err, "Registering the node")
		k.sleep(ctx, wait)
		wait = min(2*wait, 7*time.Second)
	}
}

func (k *Kubelet) tryRegister(ctx context.Context, info machine.Info, version *runtimeapi.VersionResponse) error {
	want := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: k.opts.NodeName, Labels: map[string]string{
		corev1.LabelHostname: k.opts.Hostname, corev1.LabelOSStable: info.OperatingSystem, corev1.LabelArchStable: info.Architecture,
		"beta.kubernetes.io/os": info.OperatingSystem, "beta.kubernetes.io/arch": info.Architecture,
	}}, Spec: corev1.NodeSpec{ProviderID: k.opts.ProviderID, Taints: k.opts.NodeTaints}}
	maps.Copy(want.Labels, k.opts.NodeLabels)
	want.Status.NodeInfo = corev1.NodeSystemInfo{
		MachineID: info.MachineID, SystemUUID: info.SystemUUID, BootID: info.BootID, KernelVersion: info.KernelVersion, OSImage: info.OSImage,
		OperatingSystem: info.OperatingSystem, Architecture: info.Architecture, KubeletVersion: k.opts.Version,
		ContainerRuntimeVersion: fmt.Sprintf("%s://%s", version.RuntimeName, version.RuntimeVersion),
	}
	k.capacity(want, info)
	k.fillStatus(ctx, want, want.DeepCopy())

	have := &corev1.Node{}
	err := k.client.Get(ctx, client.ObjectKey{Name: k.opts.NodeName}, have)
	if apierrors.IsNotFound(err) {
		have = want.DeepCopy()
		if err = k.client.Create(ctx, have); err == nil {
			// Creation through a status subresource drops the status; the next step writes it.
			err = k.updateStatus(ctx, have, want)
		}
	} else if err == nil {
		changed := have.DeepCopy()
		if changed.Labels == nil {
			changed.Labels = map[string]string{}
		}
		maps.Copy(changed.Labels, want.Labels)
		if changed.Spec.ProviderID == "" {
			changed.Spec.ProviderID = want.Spec.ProviderID
		}
		if !apiequality.Semantic.DeepEqual(have, changed) {
			if err = k.client.Patch(ctx, changed, client.MergeFrom(have)); err != nil {
				return err
			}
			have = changed
		}
		err = k.updateStatus(ctx, have, want)
	}
	return err
}

// updateStatus writes the status of want over the node's.
func (k *Kubelet) updateStatus(ctx context.Context, have, want *corev1.Node) error {
	changed := have.DeepCopy()
	changed.Status.NodeInfo = want.Status.NodeInfo
	changed.Status.Capacity = mergeResources(have.Status.Capacity, want.Status.Capacity)
	changed.Status.Allocatable = mergeResources(have.Status.Allocatable, want.Status.Allocatable)
	changed.Status.Addresses = want.Status.Addresses
	changed.Status.DaemonEndpoints = want.Status.DaemonEndpoints
	k.fillStatus(ctx, changed, have)
	if err := k.client.Status().Patch(ctx, changed, client.StrategicMergeFrom(have)); err != nil {
		return err
	}
	k.mu.Lock()
	k.node = changed
	k.mu.Unlock()
	return nil
}

// mergeResources keeps extended resources that others reported.
func mergeResources(have, want corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	maps.Copy(out, have)
	maps.Copy(out, want)
	return out
}

func (k *Kubelet) capacity(node *corev1.Node, info machine.Info) {
	c := corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(info.CPUs, resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(info.Memory, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(info.Storage, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(k.opts.MaxPods, resource.DecimalSI),
	}
	maps.Copy(c, k.opts.Capacity)
	a := corev1.ResourceList{}
	for name, q := range c {
		left := q.DeepCopy()
		if r, ok := k.opts.Reserved[name]; ok {
			left.Sub(r)
			if left.Sign() < 0 {
				left = *resource.NewQuantity(0, left.Format)
			}
		}
		a[name] = left
	}
	node.Status.Capacity, node.Status.Allocatable = c, a
	node.Status.Addresses = nil
	for _, ip := range k.hostIPs {
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: k.opts.Hostname})
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.listener != nil {
		if a, ok := k.listener.Addr().(*net.TCPAddr); ok {
			node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(a.Port)
		}
	}
}

// fillStatus sets what changes from report to report: conditions and images. old tells since when a condition holds.
func (k *Kubelet) fillStatus(ctx context.Context, node, old *corev1.Node) {
	now := metav1.NewTime(k.clock.Now())
	set := func(t corev1.NodeConditionType, status corev1.ConditionStatus, reason, message string) {
		c := corev1.NodeCondition{Type: t, Status: status, Reason: reason, Message: message, LastHeartbeatTime: now, LastTransitionTime: now}
		for i := range node.Status.Conditions {
			if have := &node.Status.Conditions[i]; have.Type == t {
				if have.Status == status {
					c.LastTransitionTime = have.LastTransitionTime
				}
				*have = c
				return
			}
		}
		node.Status.Conditions = append(node.Status.Conditions, c)
	}
	set(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory", "kubelet has sufficient memory available")
	set(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure", "kubelet has no disk pressure")
	set(corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID", "kubelet has sufficient PID available")
	before := readyStatus(old)
	if problem := k.runtimeProblem(ctx); problem != "" {
		set(corev1.NodeReady, corev1.ConditionFalse, "KubeletNotReady", problem)
	} else {
		set(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "kubelet is posting ready status")
	}
	if after := readyStatus(node); after != before && k.running.Load() {
		name := "NodeNotReady"
		if after == corev1.ConditionTrue {
			name = "NodeReady"
		}
		if before != "" || after == corev1.ConditionTrue && len(old.ResourceVersion) > 0 {
			k.events.nodeEvent(corev1.EventTypeNormal, name, fmt.Sprintf("Node %s status is now: %s", k.opts.NodeName, name))
		}
	}
	list, err := k.image.ListImages(ctx, nil)
	if err != nil {
		return
	}
	sort.Slice(list, func(i, j int) bool {
		if list[i].Size != list[j].Size {
			return list[i].Size > list[j].Size
		}
		return list[i].Id < list[j].Id
	})
	node.Status.Images = nil
	for _, img := range list[:min(len(list), maxImagesInStatus)] {
		names := append(append([]string(nil), img.RepoDigests...), img.RepoTags...)
		node.Status.Images = append(node.Status.Images, corev1.ContainerImage{Names: names[:min(len(names), 5)], SizeBytes: int64(img.Size)})
	}
}

func readyStatus(node *corev1.Node) corev1.ConditionStatus {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == corev1.NodeReady {
			return node.Status.Conditions[i].Status
		}
	}
	return ""
}

// runtimeProblem says why the runtime can't run pods, if it can't.
func (k *Kubelet) runtimeProblem(ctx context.Context) string {
	st, err := k.runtime.Status(ctx, false)
	if err != nil {
		return "container runtime is down: " + err.Error()
	}
	for _, want := range []struct{ condition, message string }{{runtimeapi.RuntimeReady, "container runtime is not ready"}, {runtimeapi.NetworkReady, "container runtime network not ready"}} {
		found := false
		for _, c := range st.GetStatus().GetConditions() {
			if c.Type != want.condition {
				continue
			}
			found = true
			if !c.Status {
				return fmt.Sprintf("%s: %s=%t reason:%s message:%s", want.message, c.Type, c.Status, c.Reason, c.Message)
			}
		}
		if !found {
			return fmt.Sprintf("%s: %s is not reported", want.message, want.condition)
		}
	}
	if p := k.runtimeError.Load(); p != nil {
		return "PLEG is not healthy: " + (*p).Error()
	}
	return ""
}

// reportNode keeps the node's Lease and status up to date.
func (k *Kubelet) reportNode(ctx context.Context) error {
	var reported time.Time
	report := func() {
		if err := k.renewLease(ctx); err != nil && ctx.Err() == nil {
			k.log.Error(err, "Renewing the node's lease")
		}
		if err := k.syncNode(ctx, &reported); err != nil && ctx.Err() == nil {
			k.log.Error(err, "Updating the node's status")
		}
	}
	// A starting node is wanted as soon as its runtime and network are ready.
	for ready := false; !ready; {
		report()
		ready = k.runtimeProblem(ctx) == ""
		for next := k.clock.Now().Add(k.opts.NodeStatusPeriod); !ready && k.clock.Now().Before(next); ready = k.runtimeProblem(ctx) == "" {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-k.clock.After(startupPoll):
			}
		}
	}
	return k.every(ctx, k.opts.NodeStatusPeriod, report)
}

// startupPoll is how often a node that is not ready yet is looked at.
const startupPoll = 200 * time.Millisecond

func (k *Kubelet) syncNode(ctx context.Context, reported *time.Time) error {
	have := &corev1.Node{}
	err := k.client.Get(ctx, client.ObjectKey{Name: k.opts.NodeName}, have)
	if apierrors.IsNotFound(err) {
		// Somebody deleted it though the machine is here.
		version, verr := k.runtime.Version(ctx, "v1")
		if verr != nil {
			return verr
		}
		return k.tryRegister(ctx, machine.Read(k.opts.RootDir), version)
	}
	if err != nil {
		return err
	}
	now := k.clock.Now()
	changed := have.DeepCopy()
	k.fillStatus(ctx, changed, have)
	if sameNodeStatus(&have.Status, &changed.Status) && now.Sub(*reported) < nodeStatusReport {
		k.mu.Lock()
		k.node = have
		k.mu.Unlock()
		return nil
	}
	if err := k.client.Status().Patch(ctx, changed, client.StrategicMergeFrom(have)); err != nil {
		return err
	}
	*reported = now
	k.mu.Lock()
	k.node = changed
	k.mu.Unlock()
	return nil
}

func sameNodeStatus(a, b *corev1.NodeStatus) bool {
	x, y := a.DeepCopy(), b.DeepCopy()
	for _, s := range []*corev1.NodeStatus{x, y} {
		for i := range s.Conditions {
			s.Conditions[i].LastHeartbeatTime = metav1.Time{}
		}
	}
	return apiequality.Semantic.DeepEqual(x, y)
}

func (k *Kubelet) renewLease(ctx context.Context) error {
	lease := &coordinationv1.Lease{}
	key := client.ObjectKey{Namespace: corev1.NamespaceNodeLease, Name: k.opts.NodeName}
	err := k.client.Get(ctx, key, lease)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return err
	}
	now := metav1.NewMicroTime(k.clock.Now())
	seconds := int32(k.opts.LeaseDuration / time.Second)
	lease = lease.DeepCopy()
	lease.Namespace, lease.Name = key.Namespace, key.Name
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &k.opts.NodeName, &seconds, &now
	if node := k.currentNode(); len(lease.OwnerReferences) == 0 && node != nil && node.UID != "" {
		lease.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
	}
	if missing {
		return k.client.Create(ctx, lease)
	}
	return k.client.Update(ctx, lease)
}

func (k *Kubelet) currentNode() *corev1.Node {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.node
}

func (k *Kubelet) allocatable() corev1.ResourceList {
	if n := k.currentNode(); n != nil {
		return n.Status.Allocatable
	}
	return nil
}

func (k *Kubelet) memoryCapacity() int64 {
	if n := k.currentNode(); n != nil {
		return n.Status.Capacity.Memory().Value()
	}
	return 0
}
