package events

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/tools/reference"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Options configures a Recorder.
type Options struct {
	// Host is the node named in the events' source; usually empty but for the kubelet.
	Host string
	// Clock defaults to the real one.
	Clock clock.Clock
	// Logger receives logs; the zero value discards them.
	Logger logr.Logger
	// Buffer is how many events may wait to be written; 0 means 1000.
	Buffer int
	// Retries is how often a failed write is tried again; 0 means 12.
	Retries int
	// RetryDelay is the time between tries; 0 means 10s.
	RetryDelay time.Duration
}

// Recorder implements client-go's record.EventRecorder on a client.
type Recorder struct {
	client     client.Client
	opts       Options
	source     corev1.EventSource
	correlator *record.EventCorrelator
	queue      chan *corev1.Event
	// last is the stamp of the last event's name: two events of one moment must
	// not have one name.
	last atomic.Int64
}

func (r *Recorder) stamp(now int64) int64 {
	for {
		last := r.last.Load()
		next := max(now, last+1)
		if r.last.CompareAndSwap(last, next) {
			return next
		}
	}
}

var _ record.EventRecorder = (*Recorder)(nil)

// New makes a Recorder for a component, such as "replicaset-controller".
func New(c client.Client, component string, o Options) (*Recorder, error) {
	if c == nil {
		return nil, errors.New("events: client is nil")
	}
	if component == "" {
		return nil, errors.New("events: component is empty, expected the reporting component's name")
	}
	if o.Buffer < 0 || o.Retries < 0 || o.RetryDelay < 0 {
		return nil, fmt.Errorf("events: Options.Buffer, Retries and RetryDelay are %d, %d and %v, expected none below zero", o.Buffer, o.Retries, o.RetryDelay)
	}
	if o.Buffer == 0 {
		o.Buffer = 1000
	}
	if o.Retries == 0 {
		o.Retries = 12
	}
	if o.RetryDelay == 0 {
		o.RetryDelay = 10 * time.Second
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	return &Recorder{
		client: c, opts: o,
		source:     corev1.EventSource{Component: component, Host: o.Host},
		correlator: record.NewEventCorrelatorWithOptions(record.CorrelatorOptions{Clock: o.Clock}),
		queue:      make(chan *corev1.Event, o.Buffer),
	}, nil
}

// Event records an event about an object, which may be a *corev1.ObjectReference.
func (r *Recorder) Event(obj runtime.Object, eventtype, reason, message string) {
	r.record(obj, nil, eventtype, reason, message)
}

// Eventf is Event with a format.
func (r *Recorder) Eventf(obj runtime.Object, eventtype, reason, format string, args ...any) {
	r.record(obj, nil, eventtype, reason, fmt.Sprintf(format, args...))
}

// AnnotatedEventf is Eventf with annotations on the Event.
func (r *Recorder) AnnotatedEventf(obj runtime.Object, annotations map[string]string, eventtype, reason, format string, args ...any) {
	r.record(obj, annotations, eventtype, reason, fmt.Sprintf(format, args...))
}

func (r *Recorder) record(obj runtime.Object, annotations map[string]string, eventtype, reason, message string) {
	ref, err := reference.GetReference(r.client.Scheme(), obj)
	if err != nil {
		r.opts.Logger.Error(err, "event about an object that can't be referred to", "reason", reason)
		return
	}
	now := metav1.Time{Time: r.opts.Clock.Now()}
	ns := ref.Namespace
	if ns == "" {
		ns = metav1.NamespaceDefault
	}
	e := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Name:        fmt.Sprintf("%s.%x", ref.Name, r.stamp(now.UnixNano())),
			Namespace:   ns,
			Annotations: annotations,
		},
		InvolvedObject:      *ref,
		Reason:              reason,
		Message:             message,
		FirstTimestamp:      now,
		LastTimestamp:       now,
		Count:               1,
		Type:                eventtype,
		Source:              r.source,
		ReportingController: r.source.Component,
		ReportingInstance:   r.source.Host,
	}
	select {
	case r.queue <- e:
	default:
		r.opts.Logger.V(1).Info("event dropped: too many wait", "reason", reason, "object", ref.Name)
	}
}

// Run writes events until ctx ends; those still waiting then are lost.
func (r *Recorder) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-r.queue:
			r.write(ctx, e)
		}
	}
}

func (r *Recorder) write(ctx context.Context, e *corev1.Event) {
	res, err := r.correlator.EventCorrelate(e)
	if err != nil {
		r.opts.Logger.Error(err, "correlating an event")
	}
	if res == nil || res.Skip {
		return
	}
	for try := 0; ; try++ {
		err := r.put(ctx, res)
		if err == nil || ctx.Err() != nil {
			return
		}
		var status apierrors.APIStatus
		if errors.As(err, &status) || try >= r.opts.Retries {
			r.opts.Logger.V(1).Info("event rejected", "event", e.Name, "reason", e.Reason, "error", err.Error())
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-r.opts.Clock.After(r.opts.RetryDelay):
		}
	}
}

func (r *Recorder) put(ctx context.Context, res *record.EventCorrelateResult) error {
	if res.Event.Count > 1 {
		out := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: res.Event.Namespace, Name: res.Event.Name}}
		err := r.client.Patch(ctx, out, client.RawPatch(types.StrategicMergePatchType, res.Patch))
		if err == nil {
			r.correlator.UpdateState(out)
		}
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	e := res.Event.DeepCopy()
	e.ResourceVersion = ""
	if err := r.client.Create(ctx, e); err != nil {
		return err
	}
	r.correlator.UpdateState(e)
	return nil
}
