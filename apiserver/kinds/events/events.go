package events

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

// Limits of an event's texts.
const (
	maxReason   = 128
	maxAction   = 128
	maxInstance = 128
	maxNote     = 1024
)

// Group returns the group: it has no kinds of its own, its Event is a Version of the one in core/v1.
func Group() kind.Group {
	return kind.Group{Name: eventsv1.GroupName, AddToScheme: func(s *runtime.Scheme) error { return eventsv1.AddToScheme(s) }, Versions: []string{"v1"}}
}

// Version declares events.k8s.io/v1 Event over core/v1 Event.
func Version() kind.Version {
	return kind.Version{
		GVK:      eventsv1.SchemeGroupVersion.WithKind("Event"),
		Resource: "events",
		To: func(obj client.Object) (client.Object, error) {
			e, ok := obj.(*corev1.Event)
			if !ok {
				return nil, fmt.Errorf("events: %T is no core/v1 Event", obj)
			}
			return fromCore(e), nil
		},
		From: func(obj client.Object) (client.Object, error) {
			e, ok := obj.(*eventsv1.Event)
			if !ok {
				return nil, fmt.Errorf("events: %T is no events.k8s.io/v1 Event", obj)
			}
			return toCore(e), nil
		},
		Validate: func(_ context.Context, obj, old client.Object) field.ErrorList {
			e, ok := obj.(*corev1.Event)
			if !ok {
				return nil
			}
			before, _ := old.(*corev1.Event)
			return Validate(e, before)
		},
	}
}

func fromCore(e *corev1.Event) *eventsv1.Event {
	e = e.DeepCopy()
	out := &eventsv1.Event{
		ObjectMeta: e.ObjectMeta, EventTime: e.EventTime, ReportingController: e.ReportingController, ReportingInstance: e.ReportingInstance,
		Action: e.Action, Reason: e.Reason, Regarding: e.InvolvedObject, Related: e.Related, Note: e.Message, Type: e.Type,
		DeprecatedSource: e.Source, DeprecatedFirstTimestamp: e.FirstTimestamp, DeprecatedLastTimestamp: e.LastTimestamp, DeprecatedCount: e.Count,
	}
	out.SetGroupVersionKind(eventsv1.SchemeGroupVersion.WithKind("Event"))
	if e.Series != nil {
		out.Series = &eventsv1.EventSeries{Count: e.Series.Count, LastObservedTime: e.Series.LastObservedTime}
	}
	return out
}

func toCore(e *eventsv1.Event) *corev1.Event {
	e = e.DeepCopy()
	out := &corev1.Event{
		ObjectMeta: e.ObjectMeta, EventTime: e.EventTime, ReportingController: e.ReportingController, ReportingInstance: e.ReportingInstance,
		Action: e.Action, Reason: e.Reason, InvolvedObject: e.Regarding, Related: e.Related, Message: e.Note, Type: e.Type,
		Source: e.DeprecatedSource, FirstTimestamp: e.DeprecatedFirstTimestamp, LastTimestamp: e.DeprecatedLastTimestamp, Count: e.DeprecatedCount,
	}
	out.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Event"))
	if e.Series != nil {
		out.Series = &corev1.EventSeries{Count: e.Series.Count, LastObservedTime: e.Series.LastObservedTime}
	}
	return out
}

// Validate returns the mistakes of an event written through events.k8s.io/v1, which asks for more than v1 and lets
// only the series of an event change. old is nil on create.
func Validate(ev, old *corev1.Event) field.ErrorList {
	e := &validate.Errors{}
	if old == nil {
		e.Add(validateCreate(ev))
		return e.List
	}
	e.Immutable(ev.InvolvedObject, old.InvolvedObject, field.NewPath("involvedObject"))
	e.Immutable(ev.Reason, old.Reason, field.NewPath("reason"))
	e.Immutable(ev.Message, old.Message, field.NewPath("message"))
	e.Immutable(ev.Source, old.Source, field.NewPath("source"))
	e.Immutable(ev.FirstTimestamp, old.FirstTimestamp, field.NewPath("firstTimestamp"))
	e.Immutable(ev.LastTimestamp, old.LastTimestamp, field.NewPath("lastTimestamp"))
	e.Immutable(ev.Count, old.Count, field.NewPath("count"))
	e.Immutable(ev.Type, old.Type, field.NewPath("type"))
	e.Immutable(ev.EventTime, old.EventTime, field.NewPath("eventTime"))
	e.Immutable(ev.Action, old.Action, field.NewPath("action"))
	e.Immutable(ev.Related, old.Related, field.NewPath("related"))
	e.Immutable(ev.ReportingController, old.ReportingController, field.NewPath("reportingController"))
	e.Immutable(ev.ReportingInstance, old.ReportingInstance, field.NewPath("reportingInstance"))
	return e.List
}

func validateCreate(ev *corev1.Event) field.ErrorList {
	e := &validate.Errors{}
	zero := func(unset bool, name string, value any, text string) {
		if !unset {
			e.Invalid(field.NewPath(name), value, text)
		}
	}
	if ev.EventTime.IsZero() {
		e.Required(field.NewPath("eventTime"), "")
	}
	if ev.Type != corev1.EventTypeNormal && ev.Type != corev1.EventTypeWarning {
		e.Invalid(field.NewPath("type"), "", fmt.Sprintf("has invalid value: %v", ev.Type))
	}
	if ev.ReportingController == "" {
		e.Required(field.NewPath("reportingController"), "")
	} else {
		e.InvalidEach(field.NewPath("reportingController"), ev.ReportingController, validation.IsQualifiedName(ev.ReportingController))
	}
	text := func(name, value string, limit int) {
		if value == "" {
			e.Required(field.NewPath(name), "")
		}
		if len(value) > limit {
			e.Invalid(field.NewPath(name), "", fmt.Sprintf("can have at most %v characters", limit))
		}
	}
	text("reportingInstance", ev.ReportingInstance, maxInstance)
	text("action", ev.Action, maxAction)
	text("reason", ev.Reason, maxReason)
	if len(ev.Message) > maxNote {
		e.Invalid(field.NewPath("message"), "", fmt.Sprintf("can have at most %v characters", maxNote))
	}
	zero(ev.FirstTimestamp.IsZero(), "firstTimestamp", "", "needs to be unset")
	zero(ev.LastTimestamp.IsZero(), "lastTimestamp", "", "needs to be unset")
	zero(ev.Count == 0, "count", "", "needs to be unset")
	zero(ev.Source.Component == "" && ev.Source.Host == "", "source", "", "needs to be unset")
	return e.List
}
