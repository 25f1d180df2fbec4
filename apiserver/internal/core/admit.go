package core

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/warning"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const badManagedFields = ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: %v"

func (c *Core) attributes(ctx context.Context, t Target, obj, old runtime.Object, name string, op admission.Operation, options runtime.Object, dryRun bool) admission.Attributes {
	gvk := t.Resource.GVK
	if t.Subresource != "" {
		if s, ok := t.Resource.Subresource(t.Subresource); ok {
			gvk = s.GVK
		}
	}
	u, _ := request.UserFrom(ctx)
	ns := t.Namespace
	if t.Resource.GVR.Resource == "namespaces" && t.Resource.GVR.Group == "" {
		ns = name
	}
	return admission.NewAttributesRecord(obj, old, gvk, ns, name, t.Resource.GVR, t.Subresource, op, options, dryRun, u)
}

// admit lets plug-ins change obj, which is nil for a deletion.
func (c *Core) admit(ctx context.Context, a admission.Attributes) error {
	if c.mutating == nil || isTrusted(ctx) || !c.mutating.Handles(a.GetOperation()) {
		return nil
	}
	obj, _ := a.GetObject().(client.Object)
	if obj == nil {
		return c.mutating.Admit(ctx, a, c.ifaces)
	}
	before := obj.GetManagedFields()
	if err := c.mutating.Admit(ctx, a, c.ifaces); err != nil {
		return err
	}
	after := obj.GetManagedFields()
	if len(after) == len(before) && (len(after) == 0 || &after[0] == &before[0]) {
		return nil
	}
	if err := managedfields.ValidateManagedFields(after); err != nil {
		obj.SetManagedFields(before)
		warning.AddWarning(ctx, "", fmt.Sprintf(badManagedFields, err))
	}
	return nil
}

// validateAdmission lets plug-ins reject what is about to be committed.
func (c *Core) validateAdmission(ctx context.Context, a admission.Attributes) error {
	if c.validates == nil || isTrusted(ctx) || !c.validates.Handles(a.GetOperation()) {
		return nil
	}
	return c.validates.Validate(ctx, a, c.ifaces)
}

func isTrusted(ctx context.Context) bool { return ctx.Value(trustedKey{}) != nil }
