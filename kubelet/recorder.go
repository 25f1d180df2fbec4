package kubelet

import (
	"context"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/kubelet/internal/keyed"
)

// recorder writes events in the background. Equal ones are counted in one object. It holds little: what the API can't take
// in time is dropped, as events are.
type recorder struct {
	client client.Client
	node   string
	now    func() time.Time
	queue  *keyed.Queue[eventKey]

	mu    sync.Mutex
	known map[eventKey]*recorded
	order []eventKey // oldest first
}

type eventKey struct {
	uid, field, reason, message, kind string
}

type recorded struct {
	event   *corev1.Event
	written bool
	count   int32
}

// recorderLimit is how many different events are remembered to be counted.
const recorderLimit = 1024

func newRecorder(c client.Client, o Options) *recorder {
	r := &recorder{client: c, node: o.NodeName, now: o.Clock.Now, known: map[eventKey]*recorded{}}
	r.queue = keyed.New(o.Clock, 4, r.write)
	return r
}

// pod records an event about a pod, or about one of its containers.
func (r *recorder) pod(pod *corev1.Pod, container, kind, reason, message string) {
	ref := corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion}
	if container != "" {
		ref.FieldPath = fieldPath(pod, container)
	}
	r.record(ref, kind, reason, message)
}

func fieldPath(pod *corev1.Pod, name string) string {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return fmt.Sprintf("spec.initContainers{%s}", name)
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return fmt.Sprintf("spec.ephemeralContainers{%s}", name)
		}
	}
	return fmt.Sprintf("spec.containers{%s}", name)
}

func (r *recorder) nodeEvent(kind, reason, message string) {
	r.record(corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: r.node, UID: ""}, kind, reason, message)
}

func (r *recorder) record(ref corev1.ObjectReference, kind, reason, message string) {
	if len(message) > 1024 {
		message = message[:1021] + "..."
	}
	key := eventKey{string(ref.UID) + ref.Name, ref.FieldPath, reason, message, kind}
	now := metav1.NewTime(r.now())
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.known[key]; e != nil {
		e.event.Count++
		e.event.LastTimestamp = now
	} else {
		if len(r.order) >= recorderLimit {
			delete(r.known, r.order[0])
			r.order = r.order[1:]
		}
		namespace := ref.Namespace
		if namespace == "" {
			namespace = metav1.NamespaceDefault
		}
		h := fnv.New64a()
		_, _ = fmt.Fprint(h, now.UnixNano(), key)
		r.known[key] = &recorded{event: &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s.%x", ref.Name, h.Sum64())},
			InvolvedObject: ref, Reason: reason, Message: message, Type: kind, FirstTimestamp: now, LastTimestamp: now, Count: 1,
			Source: corev1.EventSource{Component: "kubelet", Host: r.node}, ReportingController: "kubelet", ReportingInstance: r.node,
		}}
		r.order = append(r.order, key)
	}
	r.queue.Add(key)
}

func (r *recorder) write(ctx context.Context, key eventKey) {
	r.mu.Lock()
	e := r.known[key]
	if e == nil || e.written && e.count == e.event.Count {
		r.mu.Unlock()
		return
	}
	first := !e.written
	event := e.event.DeepCopy()
	r.mu.Unlock()
	var err error
	if !first {
		err = r.client.Patch(ctx, event, client.RawPatch("application/merge-patch+json",
			fmt.Appendf(nil, `{"count":%d,"lastTimestamp":%q}`, event.Count, event.LastTimestamp.UTC().Format(time.RFC3339))))
	}
	if first || apierrors.IsNotFound(err) {
		event.ResourceVersion = ""
		err = r.client.Create(ctx, event)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && !apierrors.IsAlreadyExists(err) {
		// An event is not worth a second try; the next equal one makes it anew.
		delete(r.known, key)
		return
	}
	e.written, e.count = true, event.Count
}
