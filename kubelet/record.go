package kubelet

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/keelson/keelson/kubelet/internal/podstate"
)

// record is what the kubelet knows of one pod.
type record struct {
	uid types.UID

	// What the informer and the runtime say comes in without waiting for mu, which is held while the runtime is asked.
	latest  atomic.Pointer[corev1.Pod]
	deleted atomic.Bool
	stale   atomic.Bool // the runtime has to be asked

	mu         sync.Mutex
	pod        *corev1.Pod
	gone       bool
	orphan     bool // found in the runtime, and not told of yet
	machine    *podstate.Machine
	sandboxes  []podstate.Sandbox
	containers []podstate.Container
	admission  admissionState
	rejected   *podstate.Rejection
	cancels    map[string]*operation
	probes     map[probeKey]*probeState
	refreshAt  time.Time // when volumes are brought up to date

	status         corev1.PodStatus
	version        uint64 // of status; 0 before the first
	writtenVersion uint64
	writtenAs      string // the resourceVersion that the last write led to
	overtaken      bool   // the pod was changed between that write and its end here
}

type operation struct{ cancel context.CancelFunc }

type admissionState uint8

const (
	notAdmitted admissionState = iota
	admitted
	released
)

// podEvent takes what the API says about a pod of this node.
func (k *Kubelet) podEvent(pod *corev1.Pod, deleted bool) {
	k.mu.Lock()
	rec := k.pods[pod.UID]
	if rec == nil {
		if deleted {
			k.mu.Unlock()
			return
		}
		rec = &record{uid: pod.UID, pod: pod, machine: podstate.New()}
		rec.stale.Store(true)
		k.pods[pod.UID] = rec
	}
	k.mu.Unlock()
	rec.latest.Store(pod)
	if deleted {
		rec.deleted.Store(true)
	}
	k.queue.Add(pod.UID)
}

// update takes in what the API said last. The record is locked.
func (rec *record) update() (news bool) {
	if pod := rec.latest.Swap(nil); pod != nil {
		rec.pod, news = pod, true
	}
	rec.gone = rec.gone || rec.deleted.Load()
	return news
}

// changedSince reports whether somebody else has changed the pod after the last write of its status.
func (rec *record) changedSince() bool {
	order, err := resourceversion.CompareResourceVersion(rec.pod.ResourceVersion, rec.writtenAs)
	return err != nil || order > 0
}

func (k *Kubelet) record(uid types.UID) *record {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pods[uid]
}

// work decides about one pod and sets going what was decided.
func (k *Kubelet) work(ctx context.Context, uid types.UID) {
	rec := k.record(uid)
	if rec == nil {
		return
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	before := rec.pod
	news := rec.update() || rec.overtaken
	rec.overtaken = false
	if news && !sameMeta(before, rec.pod) {
		// Its volumes may show its labels and annotations; and changing one is how people have volumes looked at at once.
		rec.refreshAt = k.clock.Now()
	}
	if rec.stale.Swap(false) {
		if err := k.refresh(ctx, rec); err != nil {
			rec.stale.Store(true)
			if ctx.Err() == nil {
				k.log.Error(err, "Asking the runtime about a pod", "pod", rec.name())
				k.queue.AddAt(uid, k.clock.Now().Add(time.Second))
			}
			return
		}
		if rec.orphan && len(rec.sandboxes)+len(rec.containers) > 0 {
			k.log.Info("Found a pod in the runtime that the API does not have", "pod", rec.name(), "uid", uid)
			rec.orphan = false
		}
	}
	if rec.admission == notAdmitted && !rec.gone {
		k.admit(rec)
	}
	in := k.input(rec)
	d := rec.machine.Decide(in)
	for _, e := range d.Events {
		k.events.pod(rec.pod, e.Container, e.Type, e.Reason, e.Message)
	}
	if d.Stopped && rec.admission == admitted {
		k.release(rec)
	}
	if d.Done {
		if !k.opts.Simulated {
			if err := k.removeLogs(rec.pod); err != nil {
				k.log.Error(err, "Removing a pod's logs", "pod", rec.name())
			}
		}
		k.forget(rec)
		return
	}
	if !rec.gone && !sameStatus(&rec.status, &d.Status, rec.version) {
		rec.status = d.Status
		rec.version++
		if statusEqual(&rec.pod.Status, &d.Status) {
			rec.writtenVersion = rec.version
			if len(d.Actions) == 0 && rec.pod.DeletionTimestamp != nil {
				k.queue.Add(uid)
			}
		} else {
			k.statuses.Add(uid)
		}
	} else if news && !rec.gone && rec.version > 0 && rec.version == rec.writtenVersion && rec.changedSince() && !sameConditions(rec.pod.Status.Conditions, rec.status.Conditions) {
		// Somebody else wrote what is the kubelet's to say: the node controller does while the node seems lost.
		rec.version++
		k.statuses.Add(uid)
	}
	k.syncProbes(rec, in, d.Terminating)
	for _, key := range d.Cancel {
		if op := rec.cancels[key]; op != nil {
			op.cancel()
		}
	}
	for _, a := range d.Actions {
		k.launch(ctx, rec, a)
	}
	if !d.WakeAt.IsZero() {
		k.queue.AddAt(uid, d.WakeAt)
	}
	k.syncVolumes(ctx, rec, d.Terminating)
}

func sameMeta(a, b *corev1.Pod) bool {
	return maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations)
}

func (k *Kubelet) input(rec *record) podstate.Input {
	return podstate.Input{
		Now: k.clock.Now(), Pod: rec.pod, Gone: rec.gone, Sandboxes: rec.sandboxes, Containers: rec.containers, Rejected: rec.rejected,
		HostIPs: k.hostIPs, RuntimeName: k.runtimeName, Written: rec.version > 0 && rec.version == rec.writtenVersion,
	}
}

func (rec *record) name() string { return rec.pod.Namespace + "/" + rec.pod.Name }

func (k *Kubelet) forget(rec *record) {
	k.mu.Lock()
	delete(k.pods, rec.uid)
	k.mu.Unlock()
	for key := range rec.probes {
		k.prober.Cancel(key)
	}
	rec.probes = nil
	k.queue.Cancel(rec.uid)
	if rec.admission == admitted {
		k.release(rec)
	}
}

// launch carries out an action in the background; its end brings the pod back into the queue.
func (k *Kubelet) launch(ctx context.Context, rec *record, a podstate.Action) {
	key := a.Key()
	if old := rec.cancels[key]; old != nil {
		old.cancel()
	}
	opCtx, cancel := context.WithCancel(ctx)
	op := &operation{cancel: cancel}
	if rec.cancels == nil {
		rec.cancels = make(map[string]*operation, 1)
	}
	rec.cancels[key] = op
	pod, gone := rec.pod, rec.gone
	k.operations.Go(func() {
		defer cancel()
		failure := k.do(opCtx, rec, pod, gone, a)
		rec.mu.Lock()
		if rec.cancels[key] == op {
			if delete(rec.cancels, key); len(rec.cancels) == 0 {
				rec.cancels = nil
			}
		}
		rec.stale.Store(true)
		rec.machine.Finish(a, failure, k.clock.Now())
		rec.mu.Unlock()
		if ctx.Err() == nil {
			k.queue.Add(rec.uid)
		}
	})
}

// podList is every pod the kubelet knows, as the API had it last.
func (k *Kubelet) podList() []*corev1.Pod {
	k.mu.Lock()
	list := make([]*record, 0, len(k.pods))
	for _, rec := range k.pods {
		list = append(list, rec)
	}
	k.mu.Unlock()
	out := make([]*corev1.Pod, 0, len(list))
	for _, rec := range list {
		rec.mu.Lock()
		out = append(out, rec.pod)
		rec.mu.Unlock()
	}
	return out
}
