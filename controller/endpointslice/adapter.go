package endpointslice

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	typed "k8s.io/client-go/kubernetes/typed/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller/internal/view"
)

// clientset lets the library write through a client.Client. The library makes
// no other calls than those below, and always with an empty context; base
// serves for one reconciliation.
type clientset struct {
	kubernetes.Interface
	base   func() context.Context
	client client.Client
}

func (c *clientset) DiscoveryV1() typed.DiscoveryV1Interface { return &discovery{c: c} }

type discovery struct {
	typed.DiscoveryV1Interface
	c *clientset
}

func (d *discovery) EndpointSlices(namespace string) typed.EndpointSliceInterface {
	return &slicesClient{c: d.c, namespace: namespace}
}

type slicesClient struct {
	typed.EndpointSliceInterface
	c         *clientset
	namespace string
}

func (s *slicesClient) Create(_ context.Context, o *discoveryv1.EndpointSlice, _ metav1.CreateOptions) (*discoveryv1.EndpointSlice, error) {
	out := o.DeepCopy()
	out.Namespace = s.namespace
	return out, s.c.client.Create(s.c.base(), out)
}

func (s *slicesClient) Update(_ context.Context, o *discoveryv1.EndpointSlice, _ metav1.UpdateOptions) (*discoveryv1.EndpointSlice, error) {
	out := o.DeepCopy()
	return out, s.c.client.Update(s.c.base(), out)
}

func (s *slicesClient) Delete(_ context.Context, name string, _ metav1.DeleteOptions) error {
	return s.c.client.Delete(s.c.base(), &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}})
}

// nodeLister lets the library read nodes from a view.
type nodeLister struct {
	base func() context.Context
	view *view.View[*corev1.Node]
}

func (n *nodeLister) Get(name string) (*corev1.Node, error) { return n.view.Get(n.base(), "", name) }

func (n *nodeLister) List(s labels.Selector) ([]*corev1.Node, error) {
	all, err := n.view.List(n.base())
	if err != nil {
		return nil, err
	}
	var out []*corev1.Node
	for _, node := range all {
		if s.Matches(labels.Set(node.Labels)) {
			out = append(out, node)
		}
	}
	return out, nil
}
