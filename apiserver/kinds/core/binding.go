package core

import (
	"cmp"
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
			access, err := accessFrom(ctx)
			if err != nil {
				return nil, err
			}
			ch, err := bind(opts, access, kind.Creation{Namespace: namespace, Name: name, Object: obj})
			if err != nil {
				return nil, err
			}
			if _, err := access.Update(ctx, podGVK, ch.Namespace, ch.Name, dryRun, ch.Apply); err != nil {
				return nil, err
			}
			return &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess, Code: 201}, nil
		},
		CreateEach: func(ctx context.Context, creations []kind.Creation, dryRun bool) []error {
			return bindEach(ctx, opts, creations, dryRun)
		},
	}
	if subresource == "" {
		v.Resource = "bindings"
	}
	return v
}

func bindEach(ctx context.Context, opts Options, creations []kind.Creation, dryRun bool) []error {
	errs := make([]error, len(creations))
	access, err := accessFrom(ctx)
	changes := make([]kind.Change, 0, len(creations))
	of := make([]int, 0, len(creations)) // of changes, which creation
	for i, cr := range creations {
		if errs[i] = err; err != nil {
			continue
		}
		var ch kind.Change
		if ch, errs[i] = bind(opts, access, cr); errs[i] == nil {
			changes, of = append(changes, ch), append(of, i)
		}
	}
	if len(changes) > 0 {
		for i, err := range access.UpdateEach(ctx, podGVK, dryRun, changes) {
			errs[of[i]] = err
		}
	}
	return errs
}

// bind is the change of a pod that a binding asks for.
func bind(opts Options, access kind.Access, cr kind.Creation) (none kind.Change, _ error) {
	b, ok := cr.Object.(*corev1.Binding)
	if !ok {
		return none, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", cr.Object))
	}
	name := cr.Name
	if name != "" && b.Name != "" && name != b.Name {
		return none, apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	name = cmp.Or(name, b.Name)
	e := &validate.Errors{}
	target := field.NewPath("target")
	if b.Target.Kind != "" && b.Target.Kind != "Node" {
		validate.NotSupported(e, target.Child("kind"), b.Target.Kind, "Node", "<empty>")
	}
	e.RequireText(b.Target.Name, target.Child("name"))
	if len(e.List) > 0 {
		return none, e.List.ToAggregate() // as kube-apiserver: a plain message and the code 500
	}
	var labels map[string]string // of the node
	if node := access.Cached(nodeGVK, "", b.Target.Name); node != nil {
		labels = node.GetLabels()
	}
	return kind.Change{Namespace: cr.Namespace, Name: name, Apply: func(obj client.Object) error {
		return assign(opts, obj, b, labels)
	}}, nil
}

// assign binds a pod to a node with these labels.
func assign(opts Options, obj client.Object, b *corev1.Binding, labels map[string]string) error {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return apierrors.NewInternalError(fmt.Errorf("unexpected object: %T", obj))
	}
	conflict := func(format string, args ...any) error {
		return apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, p.Name, fmt.Errorf(format, args...))
	}
	switch {
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
	for _, key := range topologyLabels {
		if value, has := labels[key]; has {
			metav1.SetMetaDataLabel(&p.ObjectMeta, key, value)
		}
	}
	for key, value := range b.Labels {
		metav1.SetMetaDataLabel(&p.ObjectMeta, key, value)
	}
	setCondition(p, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, metav1.NewTime(opts.Clock.Now()))
	return nil
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
