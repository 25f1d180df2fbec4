package core

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/warning"
)

// authorize asks whether the user in ctx may do verb to t. Requests of the Core itself carry trusted.
func (c *Core) authorize(ctx context.Context, t Target, verb string, list *ListOptions) error {
	if text := t.Resource.deprecated(); text != "" && !isAuthorized(ctx, t, verb) {
		warning.AddWarning(ctx, "", text)
	}
	if c.opts.Authorizer == nil || ctx.Value(trustedKey{}) != nil || isAuthorized(ctx, t, verb) {
		return nil
	}
	u, _ := request.UserFrom(ctx)
	a := authorizer.AttributesRecord{
		User: u, Verb: verb, Namespace: t.Namespace, Name: t.Name,
		APIGroup: t.Resource.GVR.Group, APIVersion: t.Resource.GVR.Version,
		Resource: t.Resource.GVR.Resource, Subresource: t.Subresource, ResourceRequest: true,
	}
	if t.Resource.GVR.Group == "" && t.Resource.GVR.Resource == "namespaces" && t.Name != "" {
		// Permissions on one Namespace may come from a Role inside it.
		a.Namespace = t.Name
	}
	if list != nil {
		if list.FieldSelector != nil {
			a.FieldSelectorRequirements = list.FieldSelector.Requirements()
		}
		if list.LabelSelector != nil {
			a.LabelSelectorRequirements, _ = list.LabelSelector.Requirements()
		}
		if t.Name == "" && list.FieldSelector != nil {
			// A list or watch of a single object is authorized as of that object.
			if name, ok := list.FieldSelector.RequiresExactMatch("metadata.name"); ok && checkSegment("Name", name) == nil {
				a.Name = name
			}
		}
	}
	decision, reason, err := c.opts.Authorizer.Authorize(ctx, a)
	switch {
	case decision == authorizer.DecisionAllow:
		return nil
	case err != nil:
		return apierrors.NewInternalError(err)
	}
	return forbidden(a, reason)
}

var htmlEscapes = strings.NewReplacer(`&`, "&amp;", `<`, "&lt;", `>`, "&gt;")

// forbidden has the message of kube-apiserver.
func forbidden(a authorizer.AttributesRecord, reason string) error {
	user := ""
	if a.User != nil {
		user = a.User.GetName()
	}
	resource := a.Resource
	if a.Subresource != "" {
		resource += "/" + a.Subresource
	}
	where := "at the cluster scope"
	if a.Namespace != "" {
		where = fmt.Sprintf("in the namespace %q", a.Namespace)
	}
	msg := htmlEscapes.Replace(fmt.Sprintf("User %q cannot %s resource %q in API group %q %s", user, a.Verb, resource, a.APIGroup, where))
	if reason != "" {
		msg += ": " + reason
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: a.APIGroup, Resource: a.Resource}, a.Name, errors.New(msg))
}

type trustedKey struct{}

// trusted marks requests that the Core makes itself, after the user's was authorized.
func trusted(ctx context.Context) context.Context {
	return context.WithValue(ctx, trustedKey{}, true)
}

// deprecated is what clients are told who use the resource, in this version or at all.
func (r *Resource) deprecated() string {
	switch {
	case r.Version != nil && r.Version.Deprecated != "":
		return r.Version.Deprecated
	case r.Kind != nil:
		return r.Kind.Deprecated
	}
	return ""
}
