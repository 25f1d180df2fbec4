package core

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/watch"
)

// ListOptions are metav1.ListOptions with parsed selectors. The zero value selects everything,
// at the newest revision.
type ListOptions struct {
	LabelSelector        labels.Selector // nil selects everything
	FieldSelector        fields.Selector // nil selects everything
	ResourceVersion      string
	ResourceVersionMatch metav1.ResourceVersionMatch
	Limit                int64
	Continue             string
	// The rest is for watches.
	AllowWatchBookmarks bool
	SendInitialEvents   *bool
}

// List is a list at one revision.
type List struct {
	Items    []*Object // shared objects; the slice is the caller's
	Revision int64     // the resourceVersion of the list
	Continue string
	// RemainingItemCount is nil if there are no more or it is not known.
	RemainingItemCount *int64
}

// Event is one event of a watch.
type Event struct {
	Type watch.EventType
	// Object is the new state; of a DELETED event the last one, with the revision of the deletion. Nil for a BOOKMARK.
	Object *Object
	// Revision is the resourceVersion of Object, or of the bookmark.
	Revision int64
	// InitialEventsEnd marks the bookmark that carries the annotation k8s.io/initial-events-end.
	InitialEventsEnd bool
}
