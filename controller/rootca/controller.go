package rootca

import (
	"context"
	"encoding/pem"
	"errors"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/view"
)

// Name of the ConfigMap in every namespace.
const Name = "kube-root-ca.crt"

const (
	descriptionKey = "kubernetes.io/description"
	description    = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. " +
		"No other usage is guaranteed across distributions of Kubernetes clusters."
)

// Options configures a Controller.
type Options struct {
	controller.Common
	// CA is the bundle to publish, in PEM; required.
	CA []byte
}

// Controller reconciles Namespaces.
type Controller struct {
	client     client.WithWatch
	data       map[string]string
	runner     *controller.Runner
	namespaces *view.View[*corev1.Namespace]
	maps       *view.View[*corev1.ConfigMap]
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	if b, _ := pem.Decode(o.CA); b == nil || b.Type != "CERTIFICATE" {
		return nil, errors.New("rootca: Options.CA holds no certificate, expected PEM")
	}
	ctl := &Controller{client: c, data: map[string]string{"ca.crt": string(o.CA)}}
	r, err := controller.New("root_ca_cert_publisher", c, cc, ctl, controller.Options{
		Common:    o.Common,
		Component: "root-ca-certificate-publisher-controller",
		Setup: func(ctx context.Context) error {
			return view.StartAll(ctx, ctl.namespaces, ctl.maps)
		},
		Sources: []controller.Source{
			controller.For(&corev1.Namespace{}),
			controller.Mapped(&corev1.ConfigMap{}, func(_ context.Context, o client.Object) []controller.Request {
				return []controller.Request{{NamespacedName: types.NamespacedName{Name: o.GetNamespace()}}}
			}, predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetName() == Name })),
		},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.namespaces = view.New(c, cc, &corev1.Namespace{})
	ctl.maps = view.New(c, cc, &corev1.ConfigMap{})
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

// Reconcile publishes the bundle in one Namespace.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	ns, err := c.namespaces.Get(ctx, "", req.Name)
	if apierrors.IsNotFound(err) {
		return controller.Result{}, nil
	}
	if err != nil {
		return controller.Result{}, err
	}
	if ns.Status.Phase == corev1.NamespaceTerminating || ns.DeletionTimestamp != nil {
		return controller.Result{}, nil
	}
	cm, err := c.maps.Get(ctx, ns.Name, Name)
	switch {
	case apierrors.IsNotFound(err):
		err = c.client.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: Name, Annotations: map[string]string{descriptionKey: description}},
			Data:       maps.Clone(c.data),
		})
		if apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			err = nil
		}
	case err != nil:
	case !maps.Equal(cm.Data, c.data) || cm.Annotations[descriptionKey] == "":
		cm = cm.DeepCopy()
		cm.Data = maps.Clone(c.data)
		metav1.SetMetaDataAnnotation(&cm.ObjectMeta, descriptionKey, description)
		err = c.client.Update(ctx, cm)
	}
	return controller.Result{}, err
}
