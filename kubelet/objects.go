package kubelet

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// objects reads what pods refer to. What a pod names is read from the API itself, so that the kubelet needs no right to watch
// all of a cluster's secrets; Services come from the cache.
type objects struct {
	client client.Client
	cache  cache.Cache
}

// inWords says of an object that is not found what Kubernetes' kubelet says, where the API names the resource.
func inWords(kind, name string, err error) error {
	if apierrors.IsNotFound(err) {
		return apierrors.NewNotFound(schema.GroupResource{Resource: kind}, name)
	}
	return err
}

func (o *objects) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	out := &corev1.ConfigMap{}
	return out, inWords("configmap", name, o.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, out))
}

func (o *objects) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	out := &corev1.Secret{}
	return out, inWords("secret", name, o.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, out))
}

func (o *objects) Claim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
	out := &corev1.PersistentVolumeClaim{}
	return out, o.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, out)
}

func (o *objects) PersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
	out := &corev1.PersistentVolume{}
	return out, o.client.Get(ctx, client.ObjectKey{Name: name}, out)
}

func (o *objects) Services(ctx context.Context, namespace string) ([]corev1.Service, error) {
	var list corev1.ServiceList
	if err := o.cache.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return nil, err
	}
	return list.Items, nil
}

func (o *objects) Token(ctx context.Context, namespace, serviceAccount string, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: serviceAccount}}
	return req, o.client.SubResource("token").Create(ctx, sa, req)
}
