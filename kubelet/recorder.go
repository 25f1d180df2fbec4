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
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/kubelet/internal/keyed"
)

// recorder writes events in the background. Equal ones are counted in one object. It holds little: what the API can't take
// in time is dropped, as events are.
type recorder struct {
	client client.Client
	node   string
	now    func() time.Time
	off    bool
	queue  *keyed.Queue[eventKey]

	mu    sync.Mutex
	known map[eventKey]*recorded
	order []eventKey // oldest first
}

type eventKey struct {
	uid, field, reason, message, kind string
}

type recorded struct {
	first           *corev1.Event // until it is written
	namespace, name string
	last            metav1.Time
	count, written  int32
}

// recorderLimit is how many different events are remembered to be counted.
const recorderLimit = 512

func newRecorder(c client.Client, o Options) *recorder {
	r := &recorder{client: c, node: o.NodeName, now: o.Clock.Now, off: o.DisableEvents, known: map[eventKey]*recorded{}}
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
	if r.off {
		return
	}
	if len(message) > 1024 {
		message = message[:1021] + "..."
	}
	key := eventKey{string(ref.UID) + ref.Name, ref.FieldPath, reason, message, kind}
	now := metav1.NewTime(r.now())
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.known[key]; e != nil {
		e.count++
		e.last = now
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
		e := &recorded{namespace: namespace, name: fmt.Sprintf("%s.%x", ref.Name, h.Sum64()), last: now, count: 1}
		e.first = &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: e.namespace, Name: e.name},
			InvolvedObject: ref, Reason: reason, Message: message, Type: kind, FirstTimestamp: now, LastTimestamp: now, Count: 1,
			Source: corev1.EventSource{Component: "kubelet", Host: r.node}, ReportingController: "kubelet", ReportingInstance: r.node,
		}
		r.known[key] = e
		r.order = append(r.order, key)
	}
	r.queue.Add(key)
}

func (r *recorder) write(ctx context.Context, key eventKey) {
	r.mu.Lock()
	e := r.known[key]
	if e == nil || e.written == e.count {
		r.mu.Unlock()
		return
	}
	event, count, last := e.first, e.count, e.last
	r.mu.Unlock()
	var err error
	if event != nil {
		event = event.DeepCopy()
		event.Count, event.LastTimestamp = count, last
		err = r.client.Create(ctx, event)
	} else {
		event = &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: e.namespace, Name: e.name}}
		err = r.client.Patch(ctx, event, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"count":%d,"lastTimestamp":%q}`, count, last.UTC().Format(time.RFC3339))))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && !apierrors.IsAlreadyExists(err) {
		// An event is not worth a second try; the next equal one makes it anew.
		delete(r.known, key)
		return
	}
	e.first, e.written = nil, count
}
