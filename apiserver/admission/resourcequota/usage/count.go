package usage

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Count counts what of a quota its namespace uses. Every resource that the quota bounds is in the answer; those of unknown kinds are zero.
func Count(ctx context.Context, c client.Client, quota *corev1.ResourceQuota) (corev1.ResourceList, error) {
	total := corev1.ResourceList{}
	resources := map[schema.GroupResource]bool{}
	for name := range quota.Spec.Hard {
		total[name] = *resource.NewQuantity(0, formatOf(name))
		resources[countedBy(name)] = true
	}
	for gr := range resources {
		objects, err := list(ctx, c, gr, quota.Namespace)
		if err != nil {
			return nil, fmt.Errorf("usage: counting %s: %w", gr, err)
		}
		for _, obj := range objects {
			if ok, err := Matches(quota, obj); err != nil || !ok {
				continue
			}
			for name, q := range Of(gr, obj) {
				if sum, bounded := total[name]; bounded {
					sum.Add(q)
					total[name] = sum
				}
			}
		}
	}
	return total, nil
}

func formatOf(name corev1.ResourceName) resource.Format {
	if strings.HasSuffix(string(name), "memory") || strings.HasSuffix(string(name), "storage") {
		return resource.BinarySI
	}
	return resource.DecimalSI
}

// countedBy is the resource whose objects use what a quota's name stands for.
func countedBy(name corev1.ResourceName) schema.GroupResource {
	text := string(name)
	if rest, ok := strings.CutPrefix(text, "count/"); ok {
		return schema.ParseGroupResource(rest)
	}
	switch {
	case text == "services" || strings.HasPrefix(text, "services."):
		return schema.GroupResource{Resource: "services"}
	case text == "persistentvolumeclaims" || text == string(corev1.ResourceRequestsStorage) || strings.Contains(text, ".storageclass.storage.k8s.io/"):
		return schema.GroupResource{Resource: "persistentvolumeclaims"}
	case text == "replicationcontrollers" || text == "resourcequotas" || text == "secrets" || text == "configmaps":
		return schema.GroupResource{Resource: text}
	default:
		return schema.GroupResource{Resource: "pods"}
	}
}

func list(ctx context.Context, c client.Client, gr schema.GroupResource, namespace string) ([]client.Object, error) {
	var out []client.Object
	switch gr {
	case schema.GroupResource{Resource: "pods"}:
		var l corev1.PodList
		if err := c.List(ctx, &l, client.InNamespace(namespace)); err != nil {
			return nil, err
		}
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	case schema.GroupResource{Resource: "services"}:
		var l corev1.ServiceList
		if err := c.List(ctx, &l, client.InNamespace(namespace)); err != nil {
			return nil, err
		}
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	case schema.GroupResource{Resource: "persistentvolumeclaims"}:
		var l corev1.PersistentVolumeClaimList
		if err := c.List(ctx, &l, client.InNamespace(namespace)); err != nil {
			return nil, err
		}
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	default:
		kinds, err := c.RESTMapper().KindsFor(gr.WithVersion(""))
		if err != nil && !meta.IsNoMatchError(err) {
			return nil, err
		}
		// An empty group stands for any group in the mapper's eyes.
		i := slices.IndexFunc(kinds, func(k schema.GroupVersionKind) bool { return k.Group == gr.Group })
		if i < 0 {
			return nil, nil // a quota may bound what is not served; nothing of it is used
		}
		gvk := kinds[i]
		var l metav1.PartialObjectMetadataList
		l.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		if err := c.List(ctx, &l, client.InNamespace(namespace)); err != nil {
			return nil, err
		}
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	}
	return out, nil
}
