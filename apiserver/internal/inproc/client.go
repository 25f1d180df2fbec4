package inproc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apitypes "k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/keelson/keelson/apiserver/internal/core"
)

// ClientOptions configures a Client.
type ClientOptions struct {
	// UserAgent names the client, and the field manager of writes that name none; default "keelson".
	UserAgent string
	// Scheme maps the caller's Go types to kinds; default the core's.
	Scheme *runtime.Scheme
}

// Client is a client.WithWatch on a core, as one user.
type Client struct {
	types *types
	core  *core.Core
	user  user.Info
	agent string
}

var _ client.WithWatch = (*Client)(nil)

// NewClient returns a client that acts as u.
func NewClient(c *core.Core, u user.Info, o ClientOptions) *Client {
	if o.UserAgent == "" {
		o.UserAgent = "keelson"
	}
	return &Client{types: newTypes(c, o.Scheme), core: c, user: u, agent: o.UserAgent}
}

func (c *Client) ctx(ctx context.Context) context.Context {
	return core.WithUserAgent(request.WithUser(ctx, c.user), c.agent)
}

// Scheme implements client.Client.
func (c *Client) Scheme() *runtime.Scheme { return c.types.scheme }

// RESTMapper implements client.Client.
func (c *Client) RESTMapper() meta.RESTMapper { return c.types.mapper }

// GroupVersionKindFor implements client.Client.
func (c *Client) GroupVersionKindFor(obj runtime.Object) (schema.GroupVersionKind, error) {
	return apiutil.GVKForObject(obj, c.types.scheme)
}

// IsObjectNamespaced implements client.Client.
func (c *Client) IsObjectNamespaced(obj runtime.Object) (bool, error) {
	r, err := c.types.resource(obj)
	if err != nil {
		return false, err
	}
	return r.Namespaced, nil
}

// Get implements client.Reader.
func (c *Client) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	r, err := c.types.resource(obj)
	if err != nil {
		return err
	}
	o := (&client.GetOptions{}).ApplyOptions(opts)
	res, err := c.core.Get(c.ctx(ctx), target(r, key.Namespace, key.Name), *o.AsGetOptions())
	if err != nil {
		return err
	}
	return out(r, res, obj, o.UnsafeDisableDeepCopy != nil && *o.UnsafeDisableDeepCopy)
}

func listOptions(o *client.ListOptions) core.ListOptions {
	lo := core.ListOptions{LabelSelector: o.LabelSelector, FieldSelector: o.FieldSelector, Limit: o.Limit, Continue: o.Continue}
	if o.Raw != nil {
		lo.ResourceVersion = o.Raw.ResourceVersion
		lo.ResourceVersionMatch = o.Raw.ResourceVersionMatch
		lo.AllowWatchBookmarks = o.Raw.AllowWatchBookmarks
		lo.SendInitialEvents = o.Raw.SendInitialEvents
	}
	return lo
}

// List implements client.Reader.
func (c *Client) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	r, err := c.types.resource(list)
	if err != nil {
		return err
	}
	o := (&client.ListOptions{}).ApplyOptions(opts)
	l, err := c.core.List(c.ctx(ctx), target(r, o.Namespace, ""), listOptions(o))
	if err != nil {
		return err
	}
	if err := fillList(r, l.Items, list, o.UnsafeDisableDeepCopy != nil && *o.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	list.GetObjectKind().SetGroupVersionKind(r.ListGVK())
	list.SetResourceVersion(strconv.FormatInt(l.Revision, 10))
	list.SetContinue(l.Continue)
	list.SetRemainingItemCount(l.RemainingItemCount)
	return nil
}

// Create implements client.Writer.
func (c *Client) Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error {
	r, err := c.types.resource(obj)
	if err != nil {
		return err
	}
	body, err := in(r, "", obj)
	if err != nil {
		return err
	}
	o := (&client.CreateOptions{}).ApplyOptions(opts)
	res, err := c.core.Create(c.ctx(ctx), target(r, obj.GetNamespace(), ""), body, *o.AsCreateOptions())
	if err != nil {
		return err
	}
	return out(r, res, obj, false)
}

// Update implements client.Writer.
func (c *Client) Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error {
	o := (&client.UpdateOptions{}).ApplyOptions(opts)
	return c.update(ctx, obj, "", obj, *o.AsUpdateOptions())
}

func (c *Client) update(ctx context.Context, obj client.Object, sub string, body client.Object, o metav1.UpdateOptions) error {
	r, err := c.types.resource(obj)
	if err != nil {
		return err
	}
	b, err := in(r, sub, body)
	if err != nil {
		return err
	}
	t := target(r, obj.GetNamespace(), obj.GetName())
	t.Subresource = sub
	res, _, err := c.core.Update(c.ctx(ctx), t, b, o)
	if err != nil {
		return err
	}
	return out(r, res, body, false)
}

// Patch implements client.Writer.
func (c *Client) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
	o := (&client.PatchOptions{}).ApplyOptions(opts)
	return c.patch(ctx, obj, "", obj, patch, *o.AsPatchOptions())
}

func (c *Client) patch(ctx context.Context, obj client.Object, sub string, body client.Object, patch client.Patch, o metav1.PatchOptions) error {
	r, err := c.types.resource(obj)
	if err != nil {
		return err
	}
	data, err := patch.Data(body)
	if err != nil {
		return err
	}
	t := target(r, obj.GetNamespace(), obj.GetName())
	t.Subresource = sub
	res, _, err := c.core.Patch(c.ctx(ctx), t, patch.Type(), data, o)
	if err != nil {
		return err
	}
	return out(r, res, body, false)
}

// applyConfiguration is what generated apply configurations and unstructured ones have.
type applyConfiguration interface {
	GetName() *string
	GetNamespace() *string
	GetKind() *string
	GetAPIVersion() *string
}

// unstructuredConfiguration is client.ApplyConfigurationFromUnstructured's.
type unstructuredConfiguration interface {
	GetName() string
	GetNamespace() string
	GetKind() string
	GetAPIVersion() string
}

// Apply implements client.Writer.
func (c *Client) Apply(ctx context.Context, obj runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
	o := (&client.ApplyOptions{}).ApplyOptions(opts)
	return c.apply(ctx, obj, "", obj, *o.AsPatchOptions())
}

func (c *Client) apply(ctx context.Context, obj runtime.ApplyConfiguration, sub string, body runtime.ApplyConfiguration, o metav1.PatchOptions) error {
	var name, namespace, apiVersion, kind string
	switch a := obj.(type) {
	case applyConfiguration:
		name, namespace, apiVersion, kind = deref(a.GetName()), deref(a.GetNamespace()), deref(a.GetAPIVersion()), deref(a.GetKind())
	case unstructuredConfiguration:
		name, namespace, apiVersion, kind = a.GetName(), a.GetNamespace(), a.GetAPIVersion(), a.GetKind()
	default:
		return fmt.Errorf("%T has no name and type to apply it by", obj)
	}
	r, err := c.types.resourceOf(schema.FromAPIVersionAndKind(apiVersion, kind))
	if err != nil {
		return err
	}
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("failed to create apply request: %w", err)
	}
	t := target(r, namespace, name)
	t.Subresource = sub
	res, _, err := c.core.Patch(c.ctx(ctx), t, apitypes.ApplyYAMLPatchType, data, o)
	if err != nil {
		return err
	}
	doc, err := res.Encoded(r, runtime.ContentTypeJSON)
	if err != nil {
		return err
	}
	return json.Unmarshal(doc, body)
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// Delete implements client.Writer.
func (c *Client) Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error {
	r, err := c.types.resource(obj)
	if err != nil {
		return err
	}
	o := (&client.DeleteOptions{}).ApplyOptions(opts)
	_, _, err = c.core.Delete(c.ctx(ctx), target(r, obj.GetNamespace(), obj.GetName()), *o.AsDeleteOptions())
	return err
}

// DeleteAllOf implements client.Writer.
func (c *Client) DeleteAllOf(ctx context.Context, obj client.Object, opts ...client.DeleteAllOfOption) error {
	r, err := c.types.resource(obj)
	if err != nil {
		return err
	}
	o := (&client.DeleteAllOfOptions{}).ApplyOptions(opts)
	_, err = c.core.DeleteCollection(c.ctx(ctx), target(r, o.ListOptions.Namespace, ""), *o.AsDeleteOptions(), listOptions(&o.ListOptions))
	return err
}

// Status implements client.StatusClient.
func (c *Client) Status() client.SubResourceWriter { return c.SubResource("status") }

// SubResource implements client.SubResourceClientConstructor.
func (c *Client) SubResource(name string) client.SubResourceClient { return &subresource{c, name} }

// Watch implements client.WithWatch. The events' objects are the caller's.
func (c *Client) Watch(ctx context.Context, list client.ObjectList, opts ...client.ListOption) (watch.Interface, error) {
	r, err := c.types.resource(list)
	if err != nil {
		return nil, err
	}
	o := (&client.ListOptions{}).ApplyOptions(opts)
	w, err := c.core.Watch(c.ctx(ctx), target(r, o.Namespace, ""), listOptions(o))
	if err != nil {
		return nil, err
	}
	return newWatch(ctx, w, r, formOf(list)), nil
}

var errNoBody = errors.New("a body for the subresource is required")

type subresource struct {
	c    *Client
	name string
}

// Get implements client.SubResourceReader.
func (s *subresource) Get(ctx context.Context, obj, body client.Object, opts ...client.SubResourceGetOption) error {
	r, err := s.c.types.resource(obj)
	if err != nil {
		return err
	}
	if body == nil {
		return errNoBody
	}
	o := (&client.SubResourceGetOptions{}).ApplyOptions(opts)
	t := target(r, obj.GetNamespace(), obj.GetName())
	t.Subresource = s.name
	res, err := s.c.core.Get(s.c.ctx(ctx), t, *o.AsGetOptions())
	if err != nil {
		return err
	}
	return out(r, res, body, false)
}

// Create implements client.SubResourceWriter.
func (s *subresource) Create(ctx context.Context, obj, body client.Object, opts ...client.SubResourceCreateOption) error {
	r, err := s.c.types.resource(obj)
	if err != nil {
		return err
	}
	if body == nil {
		return errNoBody
	}
	b, err := in(r, s.name, body)
	if err != nil {
		return err
	}
	o := (&client.SubResourceCreateOptions{}).ApplyOptions(opts)
	t := target(r, obj.GetNamespace(), obj.GetName())
	t.Subresource = s.name
	res, err := s.c.core.Create(s.c.ctx(ctx), t, b, *o.AsCreateOptions())
	if err != nil {
		return err
	}
	return out(r, res, body, false)
}

// Update implements client.SubResourceWriter.
func (s *subresource) Update(ctx context.Context, obj client.Object, opts ...client.SubResourceUpdateOption) error {
	o := (&client.SubResourceUpdateOptions{}).ApplyOptions(opts)
	body := obj
	if o.SubResourceBody != nil {
		body = o.SubResourceBody
		nameBody(body, obj)
	}
	return s.c.update(ctx, obj, s.name, body, *o.AsUpdateOptions())
}

// nameBody names a body as the object that it is a part of.
func nameBody(body, obj client.Object) {
	if body.GetName() == "" {
		body.SetName(obj.GetName())
	}
	if body.GetNamespace() == "" {
		body.SetNamespace(obj.GetNamespace())
	}
}

// Patch implements client.SubResourceWriter.
func (s *subresource) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
	o := (&client.SubResourcePatchOptions{}).ApplyOptions(opts)
	body := obj
	if o.SubResourceBody != nil {
		body = o.SubResourceBody
	}
	return s.c.patch(ctx, obj, s.name, body, patch, *o.AsPatchOptions())
}

// Apply implements client.SubResourceWriter.
func (s *subresource) Apply(ctx context.Context, obj runtime.ApplyConfiguration, opts ...client.SubResourceApplyOption) error {
	o := (&client.SubResourceApplyOptions{}).ApplyOpts(opts)
	body := obj
	if o.SubResourceBody != nil {
		body = o.SubResourceBody
	}
	return s.c.apply(ctx, obj, s.name, body, *o.AsPatchOptions())
}
