package kind

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Access reads and changes stored objects for a declaration's functions (the binding of a pod, an
// eviction). It acts as the server: there is no authorization, admission or validation.
// Kinds are named by their hub version. Errors are those of the API (NotFound, Conflict).
type Access interface {
	// Get returns the newest committed object, shared: it must not be modified.
	Get(ctx context.Context, gvk schema.GroupVersionKind, namespace, name string) (client.Object, error)
	// Cached returns an object as the server knows it, or nil; shared. When a subresource is created, that is not older than the request. It costs less than Get.
	Cached(gvk schema.GroupVersionKind, namespace, name string) client.Object
	// List returns the newest committed objects of a namespace, or of all if it is empty; shared.
	List(ctx context.Context, gvk schema.GroupVersionKind, namespace string) ([]client.Object, error)
	// Update calls change with a copy of the stored object and commits it. On a conflict it starts again, so change may
	// run several times; its error ends the update and is returned as it is. With dryRun nothing is committed.
	Update(ctx context.Context, gvk schema.GroupVersionKind, namespace, name string, dryRun bool, change func(obj client.Object) error) (client.Object, error)
	// UpdateEach is Update of several objects, in this order and each by itself, with an error or nil for each: they have commits, and
	// revisions, of their own, which share what durability costs.
	UpdateEach(ctx context.Context, gvk schema.GroupVersionKind, dryRun bool, changes []Change) []error
	// Delete deletes as a request of the user would: gracefully, by preconditions, with finalizers, dry if opts say so.
	Delete(ctx context.Context, gvk schema.GroupVersionKind, namespace, name string, opts metav1.DeleteOptions) error
}

// Change is one of Access.UpdateEach.
type Change struct {
	Namespace, Name string
	Apply           func(obj client.Object) error
}

type accessKey struct{}

// WithAccess returns a context from which AccessFrom gets a.
func WithAccess(ctx context.Context, a Access) context.Context {
	return context.WithValue(ctx, accessKey{}, a)
}

// AccessFrom returns the server's Access; it is in every context that the server calls
// Virtual.Create and Kind.Begin with, and nil in others.
func AccessFrom(ctx context.Context) Access {
	a, _ := ctx.Value(accessKey{}).(Access)
	return a
}
