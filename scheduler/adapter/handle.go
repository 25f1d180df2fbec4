package adapter

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/keelson/keelson/scheduler"
)

// handle implements fwk.Handle.
type handle struct{ f *Framework }

var _ fwk.Handle = handle{}

func (h handle) SnapshotSharedLister() fwk.SharedLister { return lister(h) }
func (h handle) Parallelizer() fwk.Parallelizer         { return sequential{} }
func (h handle) ProfileName() string                    { return h.f.opts.ProfileName }
func (h handle) Extenders() []fwk.Extender              { return nil }

// The last two are nil in kube-scheduler, too, where its asynchronous calls are off: plugins are prepared for that.

func (h handle) SignPod(context.Context, *corev1.Pod) fwk.PodSignature { return nil }
func (h handle) APIDispatcher() fwk.APIDispatcher                      { return nil }
func (h handle) APICacher() fwk.APICacher                              { return nil }

func (h handle) ClientSet() kubernetes.Interface {
	if h.f.opts.ClientSet == nil {
		h.f.lacks("ClientSet (set Options.ClientSet)")
	}
	return h.f.opts.ClientSet
}

func (h handle) KubeConfig() *rest.Config {
	if h.f.opts.KubeConfig == nil {
		h.f.lacks("KubeConfig (set Options.KubeConfig)")
	}
	return h.f.opts.KubeConfig
}

func (h handle) EventRecorder() events.EventRecorderLogger {
	if h.f.opts.Recorder == nil {
		h.f.lacks("EventRecorder (set Options.Recorder)")
	}
	return h.f.opts.Recorder
}

func (h handle) SharedInformerFactory() informers.SharedInformerFactory {
	if h.f.opts.Informers == nil {
		h.f.lacks("SharedInformerFactory (set Options.Informers)")
	}
	return h.f.opts.Informers
}

func (h handle) MutableSnapshotSharedLister() fwk.MutableSnapshotSharedLister {
	h.f.lacks("MutableSnapshotSharedLister")
	return nil
}

func (h handle) SharedDRAManager() fwk.SharedDRAManager {
	h.f.lacks("SharedDRAManager")
	return nil
}

func (h handle) SharedCSIManager() fwk.CSIManager {
	h.f.lacks("SharedCSIManager")
	return nil
}

func (h handle) PodGroupManager() fwk.PodGroupManager {
	h.f.lacks("PodGroupManager")
	return nil
}

// runner is what the scheduler lends; its zero value before it does.
func (h handle) runner() scheduler.Handle {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	return h.f.handle
}

func (h handle) IterateOverWaitingPods(f func(fwk.WaitingPod)) {
	if w := h.runner().Waiting; w != nil {
		w.Each(func(pod *scheduler.Pod, _ string, plugins []string) bool {
			f(waitingPod{w, pod, plugins})
			return true
		})
	}
}

func (h handle) GetWaitingPod(uid types.UID) (found fwk.WaitingPod) {
	h.IterateOverWaitingPods(func(p fwk.WaitingPod) {
		if p.GetPod().UID == uid {
			found = p
		}
	})
	return found
}

func (h handle) RejectWaitingPod(uid types.UID) bool {
	p := h.GetWaitingPod(uid)
	return p != nil && p.Reject("", "removed")
}

// waitingPod implements fwk.WaitingPod.
type waitingPod struct {
	in      scheduler.WaitingPods
	pod     *scheduler.Pod
	plugins []string
}

func (w waitingPod) GetPod() *corev1.Pod           { return w.pod.Object }
func (w waitingPod) GetPendingPlugins() []string   { return slices.Clone(w.plugins) }
func (w waitingPod) Allow(plugin string)           { w.in.Allow(w.pod.Object.UID, plugin) }
func (w waitingPod) Reject(plugin, m string) bool  { return w.in.Reject(w.pod.Object.UID, plugin, m) }
func (w waitingPod) Preempt(plugin, m string) bool { return w.Reject(plugin, m) }

func (h handle) Activate(_ klog.Logger, pods map[string]*corev1.Pod) {
	activate := h.runner().Activate
	if activate == nil {
		return
	}
	for _, p := range pods {
		activate(p.UID)
	}
}

// sequential does one piece after the other: answers come in the same order each time.
type sequential struct{}

func (sequential) Until(ctx context.Context, pieces int, do workqueue.DoWorkPieceFunc, _ string) {
	for i := range pieces {
		if ctx.Err() != nil {
			return
		}
		do(i)
	}
}

// What follows would run the other plugins of the profile, or know of pods in a way that the engine keeps to itself.

func (h handle) no(what string) *fwk.Status {
	h.f.lacks(what)
	return fwk.NewStatus(fwk.Error, "adapter: Handle."+what+" is not supported")
}

func (h handle) AddPodInPreBind(types.UID, context.CancelCauseFunc) { h.f.lacks("AddPodInPreBind") }
func (h handle) GetPodInPreBind(types.UID) fwk.PodInPreBind         { return nil }
func (h handle) RemovePodInPreBind(types.UID)                       {}

func (h handle) AddNominatedPod(klog.Logger, fwk.PodInfo, *fwk.NominatingInfo) {
	h.f.lacks("AddNominatedPod")
}
func (h handle) DeleteNominatedPodIfExists(*corev1.Pod) { h.f.lacks("DeleteNominatedPodIfExists") }
func (h handle) UpdateNominatedPod(klog.Logger, *corev1.Pod, fwk.PodInfo) {
	h.f.lacks("UpdateNominatedPod")
}

func (h handle) RunPreScorePlugins(context.Context, fwk.CycleState, *corev1.Pod, []fwk.NodeInfo) *fwk.Status {
	return h.no("RunPreScorePlugins")
}

func (h handle) RunScorePlugins(context.Context, fwk.CycleState, *corev1.Pod, []fwk.NodeInfo) ([]fwk.NodePluginScores, *fwk.Status) {
	return nil, h.no("RunScorePlugins")
}

func (h handle) RunReservePluginsReserve(context.Context, fwk.CycleState, *corev1.Pod, string) *fwk.Status {
	return h.no("RunReservePluginsReserve")
}

func (h handle) RunReservePluginsUnreserve(context.Context, fwk.CycleState, *corev1.Pod, string) {
	h.f.lacks("RunReservePluginsUnreserve")
}
