package core

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

var (
	podGVK      = corev1.SchemeGroupVersion.WithKind("Pod")
	nodeGVK     = corev1.SchemeGroupVersion.WithKind("Node")
	podResource = schema.GroupResource{Resource: "pods"}
	// topologyLabels go from a node to the pods bound to it.
	topologyLabels = []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion}
)

// binding declares pods/binding, and with an empty subresource the older bindings, which do the same.
func binding(opts Options, subresource string) *kind.Virtual {
	v := &kind.Virtual{
		GVK:         corev1.SchemeGroupVersion.WithKind("Binding"),
		Resource:    "pods",
		Subresource: subresource,
		Singular:    "binding",
		Namespaced:  true,
		Create: func(ctx context.Context, namespace, name string, obj client.Object, dryRun bool) (runtime.Object, error) {
			b, ok := obj.(*corev1.Binding)
			if !ok {
				return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", obj))
			}
			if name != "" && b.Name != "" && name != b.Name {
				return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
			}
			if name == "" {
				name = b.Name
			}
			return bind(ctx, opts, namespace, name, b, dryRun)
		},
	}
	if subresource == "" {
		v.Resource = "bindings"
	}
	return v
}

func bind(ctx context.Context, opts Options, namespace, name string, b *corev1.Binding, dryRun bool) (runtime.Object, error) {
	e := &validate.Errors{}
	target := field.NewPath("target")
	if b.Target.Kind != "" && b.Target.Kind != "Node" {
		validate.NotSupported(e, target.Child("kind"), b.Target.Kind, "Node", "<empty>")
	}
	e.RequireText(b.Target.Name, target.Child("name"))
	if len(e.List) > 0 {
		return nil, e.List.ToAggregate() // as kube-apiserver: a plain message and the code 500
	}
	access, err := accessFrom(ctx)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{}
	if obj, err := access.Get(ctx, nodeGVK, "", b.Target.Name); err == nil {
		for _, key := range topologyLabels {
			if value, has := obj.GetLabels()[key]; has {
				labels[key] = value
			}
		}
	}
	conflict := func(format string, args ...any) error {
		return apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, name, fmt.Errorf(format, args...))
	}
	_, err = access.Update(ctx, podGVK, namespace, name, dryRun, func(obj client.Object) error {
		p, ok := obj.(*corev1.Pod)
		switch {
		case !ok:
			return apierrors.NewInternalError(fmt.Errorf("unexpected object: %T", obj))
		case b.UID != "" && b.UID != p.UID:
			return conflict("Precondition failed: UID in precondition: %v, UID in object meta: %v", b.UID, p.UID)
		case b.ResourceVersion != "" && b.ResourceVersion != p.ResourceVersion:
			return conflict("Precondition failed: ResourceVersion in precondition: %v, ResourceVersion in object meta: %v", b.ResourceVersion, p.ResourceVersion)
		case p.DeletionTimestamp != nil:
			return conflict("pod %s is being deleted, cannot be assigned to a host", p.Name)
		case p.Spec.NodeName != "":
			return conflict("pod %v is already assigned to node %q", p.Name, p.Spec.NodeName)
		case len(p.Spec.SchedulingGates) > 0:
			return conflict("pod %v has non-empty .spec.schedulingGates", p.Name)
		}
		p.Spec.NodeName = b.Target.Name
		// The nomination has served its purpose.
		p.Status.NominatedNodeName = ""
		for key, value := range b.Annotations {
			metav1.SetMetaDataAnnotation(&p.ObjectMeta, key, value)
		}
		for key, value := range labels {
			metav1.SetMetaDataLabel(&p.ObjectMeta, key, value)
		}
		for key, value := range b.Labels {
			metav1.SetMetaDataLabel(&p.ObjectMeta, key, value)
		}
		setCondition(p, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, metav1.NewTime(opts.Clock.Now()))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess, Code: 201}, nil
}

func accessFrom(ctx context.Context) (kind.Access, error) {
	if access := kind.AccessFrom(ctx); access != nil {
		return access, nil
	}
	return nil, apierrors.NewInternalError(fmt.Errorf("the request has no access to stored objects"))
}

// setCondition sets a condition of a pod; its transition time is that of the last change of its status.
func setCondition(p *corev1.Pod, condition corev1.PodCondition, now metav1.Time) {
	condition.LastTransitionTime = now
	for i := range p.Status.Conditions {
		if existing := &p.Status.Conditions[i]; existing.Type == condition.Type {
			if existing.Status == condition.Status {
				condition.LastTransitionTime = existing.LastTransitionTime
			}
			*existing = condition
			return
		}
	}
	p.Status.Conditions = append(p.Status.Conditions, condition)
}
