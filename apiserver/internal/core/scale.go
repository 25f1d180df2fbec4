package core

import (
	"context"
	"errors"
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/keelson/keelson/apiserver/internal/objectcache"
)

// toScale is the Scale of an object.
func toScale(r *Resource, obj client.Object) *autoscalingv1.Scale {
	s := &autoscalingv1.Scale{
		TypeMeta: metav1.TypeMeta{Kind: "Scale", APIVersion: "autoscaling/v1"},
		ObjectMeta: metav1.ObjectMeta{
			Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
			ResourceVersion: obj.GetResourceVersion(), CreationTimestamp: obj.GetCreationTimestamp(),
		},
	}
	s.Spec.Replicas, s.Status.Replicas, s.Status.Selector = r.Kind.Scale.Get(obj)
	return s
}

func scaleOf(r *Resource, o *Object) (*Object, error) {
	return objectcache.Transient(toScale(r, o.Object())), nil
}

func validateScale(s *autoscalingv1.Scale) error {
	errs := apivalidation.ValidateObjectMeta(&s.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, metadataPath)
	if s.Spec.Replicas < 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "replicas"), s.Spec.Replicas, "must be greater than or equal to 0").WithOrigin("minimum"))
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(schema.GroupKind{Group: "autoscaling", Kind: "Scale"}, s.Name, errs)
	}
	return nil
}

// replicasPath is where Kind.Scale writes.
func (r *Resource) replicasPaths() managedfields.ResourcePathMappings {
	path := fieldpath.MakePathOrDie("spec", "replicas")
	m := managedfields.ResourcePathMappings{r.Kind.GVK.GroupVersion().String(): path}
	for _, v := range r.Kind.Versions {
		m[v.GVK.GroupVersion().String()] = path
	}
	return m
}

// scaled returns cur with the replicas of scale, tracked as manager's.
func (c *Core) scaled(t Target, cur *Object, scale *autoscalingv1.Scale, manager string) (client.Object, error) {
	if err := validateScale(scale); err != nil {
		return nil, err
	}
	if scale.UID != "" && scale.UID != cur.Object().GetUID() {
		return nil, apierrors.NewConflict(t.Resource.GVR.GroupResource(), t.Name, fmt.Errorf(
			"Precondition failed: UID in precondition: %v, UID in object meta: %v", scale.UID, cur.Object().GetUID()))
	}
	out := cur.Object().DeepCopyObject().(client.Object)
	out.SetResourceVersion(scale.ResourceVersion)
	t.Resource.Kind.Scale.Set(out, scale.Spec.Replicas)
	c.managed.updated(t.Resource, "scale", cur, out, manager)
	return out, nil
}

func (c *Core) updateScale(ctx context.Context, t Target, obj client.Object, opts metav1.UpdateOptions) (*Object, error) {
	scale, ok := obj.(*autoscalingv1.Scale)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("expected input object type to be Scale, but %T", obj))
	}
	if err := matchName(t, scale); err != nil {
		return nil, err
	}
	m, err := c.newMutation(t, &opts)
	if err != nil {
		return nil, err
	}
	m.unconditional = true
	manager := c.managerOf(ctx, opts.FieldManager)
	m.build = func(ctx context.Context, cur *Object) (client.Object, error) {
		if rv := scale.ResourceVersion; rv != "" && rv != cur.ResourceVersion() {
			return nil, conflict(t.Resource, t.Name)
		}
		return c.scaled(t, cur, scale, manager)
	}
	return c.finishScale(ctx, m)
}

func (c *Core) finishScale(ctx context.Context, m *mutation) (*Object, error) {
	o, _, err := c.mutate(ctx, m)
	if err != nil {
		return nil, err
	}
	return scaleOf(m.t.Resource, o)
}

func (c *Core) patchScale(ctx context.Context, m *mutation, p *patch) (*Object, error) {
	m.unconditional = true
	m.build = func(ctx context.Context, cur *Object) (client.Object, error) {
		return guard(func() (client.Object, error) { return p.patchedScale(ctx, cur) })
	}
	return c.finishScale(ctx, m)
}

func (p *patch) patchedScale(ctx context.Context, cur *Object) (client.Object, error) {
	old := toScale(p.t.Resource, cur.Object())
	if p.typ == types.ApplyYAMLPatchType {
		return p.applyScale(ctx, cur, old)
	}
	out := &autoscalingv1.Scale{TypeMeta: old.TypeMeta}
	if p.typ == types.StrategicMergePatchType {
		if err := p.strategic(ctx, old, out); err != nil {
			return nil, err
		}
	} else {
		doc, err := objectcache.Transient(old).Encoded(p.t.Resource, runtime.ContentTypeJSON)
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		if err := p.textual(ctx, doc, out); err != nil {
			return nil, err
		}
	}
	if err := matchName(p.t, out); err != nil {
		return nil, err
	}
	return p.c.scaled(p.t, cur, out, p.manager)
}

// applyScale applies to the Scale: the owners of the object's replicas are those of the Scale's, and back.
func (p *patch) applyScale(ctx context.Context, cur *Object, old *autoscalingv1.Scale) (client.Object, error) {
	r := p.t.Resource
	handler := managedfields.NewScaleHandler(cur.Object().GetManagedFields(), r.GVK.GroupVersion(), r.replicasPaths())
	entries, err := handler.ToSubresource()
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	old.ManagedFields = entries
	config, err := p.config()
	if err != nil {
		return nil, err
	}
	out, err := p.c.managed.applyScale(r, old, config, p.options.FieldManager, p.options.Force != nil && *p.options.Force)
	if err != nil {
		var status apierrors.APIStatus
		if errors.As(err, &status) {
			return nil, err
		}
		return nil, apierrors.NewInternalError(err)
	}
	if err := p.strictConfig(ctx); err != nil {
		return nil, err
	}
	if err := validateScale(out); err != nil {
		return nil, err
	}
	obj := cur.Object().DeepCopyObject().(client.Object)
	obj.SetResourceVersion(out.ResourceVersion)
	r.Kind.Scale.Set(obj, out.Spec.Replicas)
	if entries, err = handler.ToParent(out.ManagedFields); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	obj.SetManagedFields(entries)
	wholeSeconds(obj)
	return obj, nil
}

func (f *fieldManagers) applyScale(r *Resource, old *autoscalingv1.Scale, config runtime.Object, manager string, force bool) (*autoscalingv1.Scale, error) {
	conv := scaleConverter{r.scheme}
	m, err := managedfields.NewDefaultFieldManager(f.types(), conv, conv, conv, scaleGVK, scaleGVK.GroupVersion(), "scale", nil)
	if err != nil {
		return nil, err
	}
	out, err := m.Apply(old, config, manager, force)
	if err != nil {
		return nil, err
	}
	s, ok := out.(*autoscalingv1.Scale)
	if !ok {
		return nil, fmt.Errorf("core: applying a Scale gave %T", out)
	}
	return s, nil
}

// scaleConverter has the one version of Scale.
type scaleConverter struct{ scheme *runtime.Scheme }

func (scaleConverter) Convert(in, out, context interface{}) error {
	return fmt.Errorf("core: conversion of %T to %T is not supported", in, out)
}

func (scaleConverter) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

func (scaleConverter) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	u, ok := in.(runtime.Unstructured)
	if !ok {
		return in, nil
	}
	out := &autoscalingv1.Scale{}
	err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.UnstructuredContent(), out)
	return out, err
}

func (scaleConverter) Default(runtime.Object) {}

func (scaleConverter) New(schema.GroupVersionKind) (runtime.Object, error) {
	return &autoscalingv1.Scale{TypeMeta: metav1.TypeMeta{Kind: "Scale", APIVersion: "autoscaling/v1"}}, nil
}
