package usage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Lister lists the objects of a resource in a namespace; none of a resource that is not known.
type Lister func(ctx context.Context, gr schema.GroupResource, namespace string) ([]client.Object, error)

// Count counts what of a quota its namespace uses at a time. Every resource that the quota bounds is in the answer, those of unknown kinds as zero,
// but for those that could not be counted: the error, if any, is of these.
func Count(ctx context.Context, list Lister, quota *corev1.ResourceQuota, now time.Time) (corev1.ResourceList, error) {
	byResource := map[schema.GroupResource][]corev1.ResourceName{}
	for name := range quota.Spec.Hard {
		gr := CountedBy(name)
		byResource[gr] = append(byResource[gr], name)
	}
	total := corev1.ResourceList{}
	var errs []error
	for gr, names := range byResource {
		sum, err := count(ctx, list, quota, gr, names, now)
		if err != nil {
			errs = append(errs, fmt.Errorf("usage: counting %s: %w", gr, err))
			continue
		}
		maps.Copy(total, sum)
	}
	return total, errors.Join(errs...)
}

// count counts the names of a quota that objects of one resource use.
func count(ctx context.Context, list Lister, quota *corev1.ResourceQuota, gr schema.GroupResource, names []corev1.ResourceName, now time.Time) (corev1.ResourceList, error) {
	objects, err := list(ctx, gr, quota.Namespace)
	if err != nil {
		return nil, err
	}
	total := corev1.ResourceList{}
	for _, name := range names {
		total[name] = *resource.NewQuantity(0, formatOf(name))
	}
	for _, obj := range objects {
		ok, err := Matches(quota, obj)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		for name, q := range Of(gr, obj, now) {
			if sum, bounded := total[name]; bounded {
				sum.Add(q)
				total[name] = sum
			}
		}
	}
	return total, nil
}

// The resources whose objects use more than their number.
var (
	Pods     = schema.GroupResource{Resource: "pods"}
	Services = schema.GroupResource{Resource: "services"}
	Claims   = schema.GroupResource{Resource: "persistentvolumeclaims"}
)

func formatOf(name corev1.ResourceName) resource.Format {
	if strings.HasSuffix(string(name), "memory") || strings.HasSuffix(string(name), "storage") {
		return resource.BinarySI
	}
	return resource.DecimalSI
}

// CountedBy is the resource whose objects use what a quota's name stands for.
func CountedBy(name corev1.ResourceName) schema.GroupResource {
	text := string(name)
	if rest, ok := strings.CutPrefix(text, "count/"); ok {
		return schema.ParseGroupResource(rest)
	}
	switch {
	case text == "services" || strings.HasPrefix(text, "services."):
		return Services
	case text == "persistentvolumeclaims" || text == string(corev1.ResourceRequestsStorage) || strings.Contains(text, ".storageclass.storage.k8s.io/"):
		return Claims
	case text == "replicationcontrollers" || text == "resourcequotas" || text == "secrets" || text == "configmaps":
		return schema.GroupResource{Resource: text}
	default:
		return Pods
	}
}

// FromClient lists by a client.
func FromClient(c client.Client) Lister {
	return func(ctx context.Context, gr schema.GroupResource, namespace string) ([]client.Object, error) {
		switch gr {
		case Pods:
			return items(ctx, c, namespace, &corev1.PodList{}, func(l *corev1.PodList) []corev1.Pod { return l.Items })
		case Services:
			return items(ctx, c, namespace, &corev1.ServiceList{}, func(l *corev1.ServiceList) []corev1.Service { return l.Items })
		case Claims:
			return items(ctx, c, namespace, &corev1.PersistentVolumeClaimList{}, func(l *corev1.PersistentVolumeClaimList) []corev1.PersistentVolumeClaim { return l.Items })
		}
		kinds, err := c.RESTMapper().KindsFor(gr.WithVersion(""))
		if err != nil && !meta.IsNoMatchError(err) {
			return nil, err
		}
		// An empty group stands for any group in the mapper's eyes.
		i := slices.IndexFunc(kinds, func(k schema.GroupVersionKind) bool { return k.Group == gr.Group })
		if i < 0 {
			return nil, nil // a quota may bound what is not served; nothing of it is used
		}
		return Metadata(ctx, c, kinds[i], namespace)
	}
}

// Metadata lists a kind whose objects are only counted.
func Metadata(ctx context.Context, c client.Reader, gvk schema.GroupVersionKind, namespace string) ([]client.Object, error) {
	l := &metav1.PartialObjectMetadataList{}
	l.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	return items(ctx, c, namespace, l, func(l *metav1.PartialObjectMetadataList) []metav1.PartialObjectMetadata { return l.Items })
}

func items[L client.ObjectList, T any, P interface {
	*T
	client.Object
}](ctx context.Context, c client.Reader, namespace string, l L, of func(L) []T) ([]client.Object, error) {
	if err := c.List(ctx, l, client.InNamespace(namespace)); err != nil {
		return nil, err
	}
	all := of(l)
	out := make([]client.Object, len(all))
	for i := range all {
		out[i] = P(&all[i])
	}
	return out, nil
}
