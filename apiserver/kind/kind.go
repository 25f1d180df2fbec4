package kind

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Kind declares one stored resource. All functions receive objects of the Kind's own type (the type that the
// server's scheme has for GVK) and are called with objects they may modify, unless said otherwise.
// A nil function means the default behaviour.
type Kind struct {
	// GVK is the version that requests are converted to, that the functions below see, and that is stored.
	GVK schema.GroupVersionKind
	// StoredVersion is the version that stored objects are marked with, if it isn't GVK's: one of the same group with the same encoding, which need
	// be neither served nor known.
	StoredVersion string
	// Resource is the plural lower-case name in paths, Singular the name kubectl accepts beside it.
	Resource, Singular string
	ShortNames         []string
	Categories         []string
	Namespaced         bool
	// Verbs defaults to every verb of a stored resource.
	Verbs []string

	// StorePrefix is the key's part after /registry/, in the layout of kube-apiserver ("pods", "services/specs",
	// "minions"). Default: Resource.
	StorePrefix string

	// Versions are further served group-versions of the same objects, for example autoscaling/v1 beside v2.
	Versions []Version

	// Default fills unset fields as Kubernetes documents them. It is called on every decoded request
	// body and on every object read from a store, and is idempotent.
	Default func(obj client.Object)

	// PrepareForCreate and PrepareForUpdate clear or carry over what a client may not set (status, generation).
	// Without them the status (if Status is set) is cleared on create and kept on update, and
	// metadata.generation starts at 1 and rises when anything but metadata and status changes.
	PrepareForCreate func(ctx context.Context, obj client.Object)
	PrepareForUpdate func(ctx context.Context, obj, old client.Object)

	// Validate returns every mistake of an object to be created; ValidateUpdate every mistake of a
	// change. Metadata that all objects share is validated by the core, names with NameValidation.
	Validate       func(ctx context.Context, obj client.Object) field.ErrorList
	ValidateUpdate func(ctx context.Context, obj, old client.Object) field.ErrorList
	// Warnings are sent with the answer of a create or update; old is nil on create.
	Warnings func(ctx context.Context, obj, old client.Object) []string
	// DeletionWarnings are sent with the answer of a delete.
	DeletionWarnings func(opts *metav1.DeleteOptions) []string
	// NameValidation returns what is wrong with a name (apimachinery's validation.NameIsDNSSubdomain
	// is the default).
	NameValidation func(name string, prefix bool) []string

	// AllowCreateOnUpdate lets PUT and apply to a missing name create it.
	AllowCreateOnUpdate bool
	// AllowUnconditionalUpdate lets an update without resourceVersion replace whatever is there.
	AllowUnconditionalUpdate bool

	// Status, if not nil, serves the status subresource.
	Status *Subresource
	// Scale, if not nil, serves the scale subresource.
	Scale *Scale
	// Subresources are others that read or update the object itself (ephemeralcontainers, resize, approval, finalize).
	Subresources map[string]*Subresource

	// GracePeriod, if not nil, makes deletion graceful: it returns the seconds this delete gives the object
	// (0: remove now). requested is nil if the client named none. It may modify obj (a copy of the stored object).
	GracePeriod func(ctx context.Context, obj client.Object, requested *int64) int64
	// DefaultPropagation is the policy of a delete that names none and for objects without finalizers of their own;
	// "" means background.
	DefaultPropagation metav1.DeletionPropagation

	// Begin, if not nil, runs after validation and before the commit of a create (old is nil), an update or a removal
	// (obj is nil). It may modify obj, for example allocate an address. The returned function,
	// if not nil, is called once with whether the commit took effect.
	Begin func(ctx context.Context, obj, old client.Object, dryRun bool) (done func(committed bool), err error)

	// Claims, if not nil, names what an object has for itself alone in the whole store, whichever server writes it:
	// an address, a port ("serviceips/10.96.0.1"). The core commits a key for each in the transaction that creates, updates or removes the
	// object. If another object holds one, nothing is committed: done(false) is called and the request starts again from Begin, a
	// bounded number of times, before it fails with a Conflict. A claim whose holder is gone, or claims it no more, is taken over.
	Claims func(obj client.Object) []string

	// PrepareForDelete, if not nil, is called on a copy of the stored object when its deletion is first requested and it
	// stays for a while (grace period, finalizers, HoldsRemoval); it may modify obj (the phase of a Namespace).
	PrepareForDelete func(ctx context.Context, obj client.Object)
	// HoldsRemoval, if not nil, reports whether an object that is being deleted must stay although nothing in its
	// metadata keeps it (spec.finalizers of a Namespace). It must not modify obj.
	HoldsRemoval func(obj client.Object) bool
	// ReturnDeletedObject answers a delete that removed the object with the object instead of a Status.
	ReturnDeletedObject bool

	// Deprecated, if not empty, is sent as a warning with every answer.
	Deprecated string

	// Fields are the field selectors beside metadata.name and metadata.namespace, each with its getter, which
	// must not modify obj.
	Fields map[string]func(obj client.Object) string
	// IndexFields names those of Fields by which lists and watches are served from an index (spec.nodeName of pods).
	// An object whose field is empty is not in the index.
	IndexFields []string

	// Columns and Row make the table that kubectl get prints. Row returns one cell a column, with ages as they are at now, and must not modify
	// obj. Without them a table has Name and Age.
	Columns []metav1.TableColumnDefinition
	Row     func(obj client.Object, now time.Time) []any

	// TTLSeconds, if not nil, gives the life time of an object in the store (Events); 0 means for ever.
	TTLSeconds func(obj client.Object) int64
}

// Version is another served version of a Kind's objects.
type Version struct {
	GVK schema.GroupVersionKind
	// Resource if it differs from the Kind's.
	Resource string
	// To converts the Kind's object into this version, From the other way. Neither modifies its argument,
	// and neither loses anything that the other needs.
	To   func(obj client.Object) (client.Object, error)
	From func(obj client.Object) (client.Object, error)
	// Validate, if not nil, returns the mistakes that objects written through this version must not have beside those of the
	// Kind. It sees the Kind's object; old is nil on create.
	Validate func(ctx context.Context, obj, old client.Object) field.ErrorList
	// Deprecated is the text of the Warning header, if the version is.
	Deprecated string
}

// Subresource declares a part of an object that is written on its own.
type Subresource struct {
	// Verbs defaults to get, update, patch.
	Verbs []string
	// Prepare copies into obj from old everything the subresource may not change. The default for status
	// keeps metadata (but for managed fields, and finalizers and labels which it may not change) and spec of old.
	Prepare func(ctx context.Context, obj, old client.Object)
	// Validate returns every mistake of the change.
	Validate func(ctx context.Context, obj, old client.Object) field.ErrorList
	Warnings func(ctx context.Context, obj, old client.Object) []string
}

// Scale declares the scale subresource (autoscaling/v1 Scale).
type Scale struct {
	// Get returns desired and observed replicas and the label selector in text form.
	Get func(obj client.Object) (spec, status int32, selector string)
	// Set sets the desired replicas.
	// It is expected to write the field spec.replicas: the owners of a scale are tracked under that path.
	Set func(obj client.Object, replicas int32)
}

// Virtual declares a resource that is not stored: a create-only one (SubjectAccessReview) or a
// subresource with a body of its own (pods/binding, pods/eviction, serviceaccounts/token).
type Virtual struct {
	GVK schema.GroupVersionKind
	// Resource is the path's resource; Subresource the part behind the parent's name, if any.
	Resource, Subresource string
	Singular              string
	Namespaced            bool
	Default               func(obj client.Object)
	// Create answers a POST. name is the parent's name for a subresource. The returned object, of the type
	// of GVK or a *metav1.Status, is sent with status 201.
	Create func(ctx context.Context, namespace, name string, obj client.Object, dryRun bool) (runtime.Object, error)
	// CreateEach, if not nil, is Create of several in this order, with an error or nil for each, where nobody wants the answers.
	CreateEach func(ctx context.Context, creations []Creation, dryRun bool) []error
}

// Creation is one of Virtual.CreateEach.
type Creation struct {
	Namespace, Name string
	Object          client.Object
}

// Group is what a package of kinds exports: one API group's declarations.
type Group struct {
	Name string
	// AddToScheme registers the types of all served versions.
	AddToScheme func(*runtime.Scheme) error
	// Versions in order of preference.
	Versions []string
	Kinds    []*Kind
	Virtuals []*Virtual
}
