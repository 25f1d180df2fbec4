package controllertest

import (
	"fmt"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// NewCache makes controller-runtime's cache over a client, any client. Its
// owner starts it.
func NewCache(c client.WithWatch) (cache.Cache, error) {
	cc, err := cache.New(&rest.Config{Host: "http://in-memory.invalid"}, cache.Options{
		HTTPClient: &http.Client{},
		Scheme:     c.Scheme(),
		Mapper:     c.RESTMapper(),
		NewInformer: func(_ toolscache.ListerWatcher, obj runtime.Object, resync time.Duration, ix toolscache.Indexers) toolscache.SharedIndexInformer {
			kind, err := apiutil.GVKForObject(obj, c.Scheme())
			if err != nil {
				panic(fmt.Sprintf("controllertest: %v", err)) // the cache has resolved it before
			}
			return toolscache.NewSharedIndexInformer(&listWatch{client: c, obj: obj, kind: kind}, obj, 0, ix)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("controllertest: %w", err)
	}
	return cc, nil
}
