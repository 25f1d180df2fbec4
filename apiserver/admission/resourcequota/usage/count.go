package usage

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
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

// Reconciler writes what is used and bounded into the status of a ResourceQuota. Run it for a quota when it changes, for all quotas of a namespace when a
// pod, Service, claim or another counted object of it changes or goes, and for every quota every few minutes. It is what Kubernetes
// calls the resourcequota-controller.
type Reconciler struct{ Client client.Client }

var _ reconcile.Reconciler = (*Reconciler)(nil)

// Reconcile counts anew what one quota's namespace uses.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var quota corev1.ResourceQuota
	if err := r.Client.Get(ctx, req.NamespacedName, &quota); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	used, err := Count(ctx, r.Client, &quota)
	if err != nil {
		return reconcile.Result{}, err
	}
	if apiequality.Semantic.DeepEqual(quota.Status.Hard, quota.Spec.Hard) && apiequality.Semantic.DeepEqual(quota.Status.Used, used) {
		return reconcile.Result{}, nil
	}
	next := quota.DeepCopy()
	next.Status.Hard, next.Status.Used = quota.Spec.Hard.DeepCopy(), used
	// A conflict means that a request was admitted meanwhile: the runner tries again and counts it.
	return reconcile.Result{}, client.IgnoreNotFound(r.Client.Status().Update(ctx, next))
}

// Requests returns the quotas to reconcile after an object of a namespace changed.
func (r *Reconciler) Requests(ctx context.Context, obj client.Object) []reconcile.Request {
	var quotas corev1.ResourceQuotaList
	if err := r.Client.List(ctx, &quotas, client.InNamespace(obj.GetNamespace())); err != nil {
		return nil
	}
	out := make([]reconcile.Request, len(quotas.Items))
	for i := range quotas.Items {
		out[i].NamespacedName = client.ObjectKeyFromObject(&quotas.Items[i])
	}
	return out
}
