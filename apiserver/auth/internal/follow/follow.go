// Package follow tells an authorizer of the objects that it decides by.
package follow

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Sink is told of objects.
type Sink interface {
	// Set adds or replaces an object, which must not change afterwards.
	Set(obj client.Object)
	// Delete removes an object, by its kind, namespace and name.
	Delete(obj client.Object)
}

// Run tells s of the objects of informers until ctx ends, and calls synced once it has told of all that existed at the start. Kinds
// that are not served are left out. The cache is started by the caller.
func Run(ctx context.Context, informers cache.Informers, kinds []client.Object, s Sink, logger logr.Logger, synced func()) error {
	handler := toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { tell(obj, s.Set) },
		UpdateFunc: func(_, obj any) { tell(obj, s.Set) },
		DeleteFunc: func(obj any) { tell(obj, s.Delete) },
	}
	var initial []toolscache.DoneChecker
	for _, kind := range kinds {
		informer, err := informers.GetInformer(ctx, kind)
		if meta.IsNoMatchError(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("informer of %T: %w", kind, err)
		}
		handle, err := informer.AddEventHandler(handler)
		if err != nil {
			return fmt.Errorf("handler of %T: %w", kind, err)
		}
		defer func() {
			if err := informer.RemoveEventHandler(handle); err != nil {
				logger.Error(err, "Removing the handler of an authorizer", "kind", fmt.Sprintf("%T", kind))
			}
		}()
		initial = append(initial, handle.HasSyncedChecker())
	}
	// Not WaitForCacheSync, whose polling would be most of the time that a server takes to be ready.
	for _, c := range initial {
		select {
		case <-c.Done():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	synced()
	<-ctx.Done()
	return nil
}

func tell(obj any, f func(client.Object)) {
	if tombstone, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
		obj = tombstone.Obj
	}
	if o, ok := obj.(client.Object); ok {
		f(o)
	}
}
