package core

import (
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/events"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

func event(opts Options) *kind.Kind {
	return &kind.Kind{
		GVK:        corev1.SchemeGroupVersion.WithKind("Event"),
		Resource:   "events",
		Singular:   "event",
		ShortNames: []string{"ev"},
		Namespaced: true,
		Versions:   []kind.Version{events.Version()},

		PrepareForCreate: asGiven,
		PrepareForUpdate: asGivenUpdate,
		Validate:         typed.Validate(validateEvent),
		ValidateUpdate:   typed.ValidateUpdate(func(e, _ *corev1.Event) field.ErrorList { return validateEvent(e) }),

		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,
		TTLSeconds:               func(client.Object) int64 { return opts.EventTTLSeconds },
		Fields: map[string]func(client.Object) string{
			"involvedObject.kind":            typed.Field(func(e *corev1.Event) string { return e.InvolvedObject.Kind }),
			"involvedObject.namespace":       typed.Field(func(e *corev1.Event) string { return e.InvolvedObject.Namespace }),
			"involvedObject.name":            typed.Field(func(e *corev1.Event) string { return e.InvolvedObject.Name }),
			"involvedObject.uid":             typed.Field(func(e *corev1.Event) string { return string(e.InvolvedObject.UID) }),
			"involvedObject.apiVersion":      typed.Field(func(e *corev1.Event) string { return e.InvolvedObject.APIVersion }),
			"involvedObject.resourceVersion": typed.Field(func(e *corev1.Event) string { return e.InvolvedObject.ResourceVersion }),
			"involvedObject.fieldPath":       typed.Field(func(e *corev1.Event) string { return e.InvolvedObject.FieldPath }),
			"reason":                         typed.Field(func(e *corev1.Event) string { return e.Reason }),
			"reportingComponent":             typed.Field(reporter),
			"source":                         typed.Field(reporter),
			"type":                           typed.Field(func(e *corev1.Event) string { return e.Type }),
			// The names that events.k8s.io/v1 has for the same.
			"regarding.kind":            typed.Field(func(e *corev1.Event) string { return e.InvolvedObject.Kind }),
			"regarding.namespace":       typed.Field(func(e *corev1.Event) string { return e.InvolvedObject.Namespace }),
			"regarding.name":            typed.Field(func(e *corev1.Event) string { return e.InvolvedObject.Name }),
			"regarding.uid":             typed.Field(func(e *corev1.Event) string { return string(e.InvolvedObject.UID) }),
			"regarding.apiVersion":      typed.Field(func(e *corev1.Event) string { return e.InvolvedObject.APIVersion }),
			"regarding.resourceVersion": typed.Field(func(e *corev1.Event) string { return e.InvolvedObject.ResourceVersion }),
			"regarding.fieldPath":       typed.Field(func(e *corev1.Event) string { return e.InvolvedObject.FieldPath }),
			"reportingController":       typed.Field(func(e *corev1.Event) string { return e.ReportingController }),
		},
		Columns: []metav1.TableColumnDefinition{
			{Name: "Last Seen", Type: "string", Description: corev1.Event{}.SwaggerDoc()["lastTimestamp"]},
			{Name: "Type", Type: "string", Description: corev1.Event{}.SwaggerDoc()["type"]},
			{Name: "Reason", Type: "string", Description: corev1.Event{}.SwaggerDoc()["reason"]},
			{Name: "Object", Type: "string", Description: corev1.Event{}.SwaggerDoc()["involvedObject"]},
			{Name: "Subobject", Type: "string", Priority: 1, Description: corev1.ObjectReference{}.SwaggerDoc()["fieldPath"]},
			{Name: "Source", Type: "string", Priority: 1, Description: corev1.Event{}.SwaggerDoc()["source"]},
			{Name: "Message", Type: "string", Description: corev1.Event{}.SwaggerDoc()["message"]},
			{Name: "First Seen", Type: "string", Priority: 1, Description: corev1.Event{}.SwaggerDoc()["firstTimestamp"]},
			{Name: "Count", Type: "string", Priority: 1, Description: corev1.Event{}.SwaggerDoc()["count"]},
			{Name: "Name", Type: "string", Priority: 1, Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
		},
		Row: typed.Row(func(e *corev1.Event, now time.Time) []any { return eventRow(e, now) }),
	}
}

// reporter is who an event comes from, by either of the two fields that say so.
func reporter(e *corev1.Event) string {
	if e.Source.Component != "" {
		return e.Source.Component
	}
	return e.ReportingController
}

func eventRow(e *corev1.Event, now time.Time) []any {
	since := func(t metav1.Time) string {
		if t.IsZero() {
			return "<unknown>"
		}
		return duration.HumanDuration(now.Sub(t.Time))
	}
	first := since(e.FirstTimestamp)
	if e.FirstTimestamp.IsZero() {
		first = since(metav1.Time(e.EventTime))
	}
	last := since(e.LastTimestamp)
	if e.LastTimestamp.IsZero() {
		last = first
	}
	count := e.Count
	if e.Series != nil {
		last, count = since(metav1.Time(e.Series.LastObservedTime)), e.Series.Count
	} else if count == 0 {
		count = 1
	}
	object := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name != "" {
		object += "/" + e.InvolvedObject.Name
	}
	source := e.Source.Component
	if source == "" {
		source = e.ReportingController
	}
	instance := e.Source.Host
	if instance == "" {
		instance = e.ReportingInstance
	}
	if instance != "" {
		source += ", " + instance
	}
	return []any{
		last, e.Type, e.Reason, object, e.InvolvedObject.FieldPath, source, strings.TrimSpace(e.Message), first, strconv.Itoa(int(count)), e.Name,
	}
}

// validateEvent is the lenient check of v1; events.k8s.io/v1 has a stricter one of its own (events.Version).
func validateEvent(ev *corev1.Event) field.ErrorList {
	e := &validate.Errors{}
	involved := field.NewPath("involvedObject", "namespace")
	const text = "does not match event.namespace"
	if ev.InvolvedObject.Namespace == "" {
		// Events about what has no namespace are kept in default.
		if ev.Namespace != metav1.NamespaceNone && ev.Namespace != metav1.NamespaceDefault {
			e.Invalid(involved, ev.InvolvedObject.Namespace, text)
		}
	} else if ev.Namespace != ev.InvolvedObject.Namespace {
		e.Invalid(involved, ev.InvolvedObject.Namespace, text)
	}
	e.DNSSubdomain(ev.Namespace, field.NewPath("namespace"))
	return e.List
}
