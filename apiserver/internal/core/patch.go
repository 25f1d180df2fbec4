package core

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	boundedpatch "github.com/evanphx/json-patch/v5"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/warning"
	"sigs.k8s.io/controller-runtime/pkg/client"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// The bounds of a JSON patch are those of Kubernetes: how many operations it has, and how many bytes its copies add.
const (
	maxPatchOperations = 10000
	maxCopiedBytes     = 3 << 20
)

// patch is one request to patch, whose target may have to be read several times.
type patch struct {
	c       *Core
	t       Target
	typ     types.PatchType
	data    []byte
	options *metav1.PatchOptions
	manager string
	strict  bool // unknown and duplicate fields are looked for
	warn    bool // and warned of instead of rejected
}

// Patch applies a patch: JSON, merge, strategic merge, or an apply configuration (YAML or JSON). data is not modified.
func (c *Core) Patch(ctx context.Context, t Target, pt types.PatchType, data []byte, opts metav1.PatchOptions) (res *Object, created bool, err error) {
	if err := c.authorize(ctx, t, "patch", nil); err != nil {
		return nil, false, err
	}
	if err := t.serves("patch"); err != nil {
		return nil, false, err
	}
	if err := checkPatchType(t, pt); err != nil {
		return nil, false, err
	}
	if errs := validation.ValidatePatchOptions(&opts, pt); len(errs) > 0 {
		return nil, false, invalidOptions("PatchOptions", errs)
	}
	if pt != types.ApplyYAMLPatchType && !json.Valid(data) {
		return nil, false, apierrors.NewBadRequest("invalid JSON patch")
	}
	if err := c.WaitReady(ctx); err != nil {
		return nil, false, err
	}
	uo := &metav1.UpdateOptions{DryRun: opts.DryRun, FieldManager: opts.FieldManager, FieldValidation: opts.FieldValidation}
	m, err := c.newMutation(t, uo)
	if err != nil {
		return nil, false, err
	}
	p := &patch{
		c: c, t: t, typ: pt, data: data, options: &opts, manager: c.managerOf(ctx, opts.FieldManager),
		strict: opts.FieldValidation != metav1.FieldValidationIgnore, warn: opts.FieldValidation != metav1.FieldValidationStrict,
	}
	if t.Subresource == "scale" {
		res, err := c.patchScale(ctx, m, p)
		return res, false, err
	}
	m.unconditional = true // a patch is to what is there
	m.build = func(ctx context.Context, cur *Object) (client.Object, error) {
		return guard(func() (client.Object, error) { return p.patched(ctx, cur) })
	}
	if pt == types.ApplyYAMLPatchType && t.Subresource == "" {
		m.create = func(ctx context.Context) (client.Object, error) {
			return guard(func() (client.Object, error) { return p.applyNew(ctx) })
		}
	}
	return c.mutate(ctx, m)
}

// guard turns a panic of a patch library, which some patches of the wrong form provoke, into an error.
func guard(f func() (client.Object, error)) (obj client.Object, err error) {
	defer func() {
		if r := recover(); r != nil {
			obj, err = nil, apierrors.NewBadRequest(fmt.Sprintf("the patch cannot be applied: %v", r))
		}
	}()
	return f()
}

func checkPatchType(t Target, pt types.PatchType) error {
	supported := []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType, types.ApplyYAMLPatchType}
	if t.Resource.isUnstructured() {
		supported = []types.PatchType{types.JSONPatchType, types.MergePatchType, types.ApplyYAMLPatchType}
	}
	for _, s := range supported {
		if s == pt {
			return nil
		}
	}
	msg := "the body of the request was in an unknown format - accepted media types include:"
	for i, s := range supported {
		if i > 0 {
			msg += ","
		}
		msg += " " + string(s)
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType, Message: msg,
	}}
}

func (r *Resource) isUnstructured() bool {
	obj, err := r.scheme.New(r.GVK)
	_, ok := obj.(runtime.Unstructured)
	return err == nil && ok
}

// patched returns cur with the patch, in the hub version, its changes tracked.
func (p *patch) patched(ctx context.Context, cur *Object) (client.Object, error) {
	r := p.t.Resource
	if p.typ == types.ApplyYAMLPatchType {
		return p.apply(ctx, cur.Object())
	}
	versioned, err := p.document(ctx, cur)
	if err != nil {
		return nil, err
	}
	if err := matchName(p.t, versioned); err != nil {
		return nil, err
	}
	hub, err := r.toHub(versioned)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if r.Kind.Default != nil {
		r.Kind.Default(hub)
	}
	p.c.managed.updated(r, p.t.Subresource, cur, hub, p.manager)
	return hub, nil
}

// document applies the patch to the object in the resource's version.
func (p *patch) document(ctx context.Context, cur *Object) (client.Object, error) {
	r := p.t.Resource
	if out, done, err := p.direct(ctx, cur); done || err != nil {
		return out, err
	}
	out, err := newObject(r.scheme, r.GVK)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if p.typ == types.StrategicMergePatchType {
		view, err := cur.View(r)
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		return out, p.strategic(ctx, view, out)
	}
	doc, err := cur.Encoded(r, runtime.ContentTypeJSON)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return out, p.textual(ctx, doc, out)
}

// direct applies a merge patch to a copy of the object, without making documents of it; done is false if it can't.
func (p *patch) direct(ctx context.Context, cur *Object) (out client.Object, done bool, err error) {
	if p.typ == types.JSONPatchType || p.t.Resource.isUnstructured() {
		return nil, false, nil
	}
	view, err := cur.View(p.t.Resource)
	if err != nil {
		return nil, false, apierrors.NewInternalError(err)
	}
	change := map[string]any{}
	var found []error
	if p.strict {
		found, err = kjson.UnmarshalStrict(p.data, &change)
	} else {
		err = kjson.UnmarshalCaseSensitivePreserveInts(p.data, &change)
	}
	if err != nil || change == nil {
		return nil, false, nil
	}
	out = view.DeepCopyObject().(client.Object)
	gvk := out.GetObjectKind().GroupVersionKind()
	var unknown []error
	if p.typ == types.MergePatchType {
		unknown, done = p.c.names.mergeTyped(out, change, p.strict)
	} else {
		unknown, done, err = p.c.names.strategicTyped(out, change, p.strict)
		if err != nil {
			return nil, false, strategicError(err)
		}
	}
	if !done || out.GetObjectKind().GroupVersionKind() != gvk {
		return nil, false, nil
	}
	if found = append(found, unknown...); len(found) > 0 && !p.warn {
		return nil, false, nil // rejected with the whole document in the message
	}
	return out, true, p.report(ctx, found, func(err error) error { return err })
}

// textual applies a JSON or merge patch to a document.
func (p *patch) textual(ctx context.Context, doc []byte, out client.Object) error {
	patched, found, err := p.patchJSON(doc)
	if err != nil {
		return err
	}
	want := out.GetObjectKind().GroupVersionKind()
	var strict []error
	var target any = out
	if u, ok := out.(*unstructured.Unstructured); ok {
		u.Object = nil
		target = &u.Object
	} else {
		out.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	}
	if p.strict {
		strict, err = kjson.UnmarshalStrict(patched, target)
	} else {
		err = kjson.UnmarshalCaseSensitivePreserveInts(patched, target)
	}
	if err == nil {
		if got := out.GetObjectKind().GroupVersionKind(); got != want {
			err = fmt.Errorf("unable to decode %s into %s", got, want)
		}
	}
	if err != nil {
		return invalidPatch(string(patched), err)
	}
	return p.report(ctx, append(found, strict...), func(err error) error { return invalidPatch(string(patched), err) })
}

func invalidPatch(value string, err error) error {
	return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), value, err.Error())})
}

// report warns of what a strict decoder found, or rejects it.
func (p *patch) report(ctx context.Context, found []error, reject func(error) error) error {
	if len(found) == 0 {
		return nil
	}
	if p.warn {
		for _, e := range found {
			warning.AddWarning(ctx, "", e.Error())
		}
		return nil
	}
	return reject(runtime.NewStrictDecodingError(found))
}

func (p *patch) patchJSON(doc []byte) (patched []byte, strict []error, err error) {
	if p.typ == types.JSONPatchType {
		if p.strict {
			var ops []struct {
				Op    string `json:"op"`
				Path  string `json:"path"`
				From  string `json:"from"`
				Value any    `json:"value"`
			}
			if strict, err = kjson.UnmarshalStrict(p.data, &ops); err != nil {
				return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
			}
			for i, e := range strict {
				strict[i] = fmt.Errorf("json patch %v", e)
			}
		}
		ops, err := jsonpatch.DecodePatch(p.data)
		if err != nil {
			return nil, nil, apierrors.NewBadRequest(err.Error())
		}
		if len(ops) > maxPatchOperations {
			return nil, nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf(
				"The allowed maximum operations in a JSON patch is %d, got %d", maxPatchOperations, len(ops)))
		}
		if patched, err = p.applyOperations(ops, doc); err != nil {
			return nil, nil, unprocessable(err)
		}
		return patched, strict, nil
	}
	if p.strict {
		v := map[string]any{}
		if strict, err = kjson.UnmarshalStrict(p.data, &v); err != nil {
			return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
		}
	}
	patched, err = jsonpatch.MergePatch(doc, p.data)
	if errors.Is(err, jsonpatch.ErrBadJSONPatch) {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	return patched, strict, err
}

// applyOperations applies a JSON patch. A few copies can't make too much of a document; more are for the newer library, since the
// older one, whose messages are those of Kubernetes, has its limit in a variable of the whole process.
func (p *patch) applyOperations(ops jsonpatch.Patch, doc []byte) ([]byte, error) {
	size := len(doc) + len(p.data)
	for _, op := range ops {
		if op.Kind() == "copy" && size <= maxCopiedBytes {
			size *= 2
		}
	}
	if size <= maxCopiedBytes {
		return ops.Apply(doc)
	}
	bounded, err := boundedpatch.DecodePatch(p.data)
	if err != nil {
		return nil, err
	}
	o := boundedpatch.NewApplyOptions()
	o.AccumulatedCopySizeLimit = maxCopiedBytes
	return bounded.ApplyWithOptions(doc, o)
}

func unprocessable(err error) error {
	return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
}

// strategic applies a strategic merge patch to view, into out.
func (p *patch) strategic(ctx context.Context, view runtime.Object, out client.Object) error {
	original, err := runtime.DefaultUnstructuredConverter.ToUnstructured(view)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	change := map[string]any{}
	var strict []error
	if p.strict {
		strict, err = kjson.UnmarshalStrict(p.data, &change)
	} else {
		err = kjson.UnmarshalCaseSensitivePreserveInts(p.data, &change)
	}
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	shown := fmt.Sprintf("%+v", change)
	merged, err := strategicpatch.StrategicMergeMapPatch(original, change, out)
	if err != nil {
		return strategicError(err)
	}
	gvk := out.GetObjectKind().GroupVersionKind()
	err = runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(merged, out, p.strict)
	if s, ok := runtime.AsStrictDecodingError(err); ok {
		strict = append(strict, s.Errors()...)
		err = nil
	}
	if err == nil && out.GetObjectKind().GroupVersionKind() != gvk {
		err = fmt.Errorf("unable to decode %s into %s", out.GetObjectKind().GroupVersionKind(), gvk)
	}
	if err != nil {
		return invalidPatch(shown, err)
	}
	return p.report(ctx, strict, func(err error) error { return invalidPatch(shown, err) })
}

func strategicError(err error) error {
	switch {
	case errors.Is(err, mergepatch.ErrBadJSONDoc), errors.Is(err, mergepatch.ErrBadPatchFormatForPrimitiveList),
		errors.Is(err, mergepatch.ErrBadPatchFormatForRetainKeys), errors.Is(err, mergepatch.ErrBadPatchFormatForSetElementOrderList),
		errors.Is(err, mergepatch.ErrUnsupportedStrategicMergePatchFormat):
		return apierrors.NewBadRequest(err.Error())
	case errors.Is(err, mergepatch.ErrNoListOfLists), errors.Is(err, mergepatch.ErrPatchContentNotMatchRetainKeys):
		return unprocessable(err)
	}
	return err // as kube-apiserver: a plain message and the code 500
}

// config decodes an apply configuration.
func (p *patch) config() (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	data := p.data
	if t := bytes.TrimLeft(data, " \t\r\n"); len(t) == 0 || t[0] != '{' {
		var err error
		if data, err = yaml.YAMLToJSON(data); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error encoding patch: %v", err))
		}
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &u.Object); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	}
	if u.Object == nil {
		u.Object = map[string]any{}
	}
	return u, nil
}

// strictConfig rejects or warns of fields that an apply configuration has twice.
func (p *patch) strictConfig(ctx context.Context) error {
	if !p.strict {
		return nil
	}
	if err := yaml.UnmarshalStrict(p.data, &map[string]any{}); err != nil {
		if !p.warn {
			return apierrors.NewBadRequest(fmt.Sprintf("error strict decoding patch: %v", err))
		}
		warning.AddWarning(ctx, "", err.Error())
	}
	return nil
}

func (p *patch) apply(ctx context.Context, old client.Object) (client.Object, error) {
	config, err := p.config()
	if err != nil {
		return nil, err
	}
	force := p.options.Force != nil && *p.options.Force
	obj, err := p.c.managed.apply(p.t.Resource, p.t.Subresource, old, config, p.options.FieldManager, force)
	if err != nil {
		return nil, err // one that is no Status as kube-apiserver: a plain message and the code 500
	}
	if err := p.strictConfig(ctx); err != nil {
		return nil, err
	}
	if k := p.t.Resource.Kind; k.Default != nil {
		k.Default(obj)
	}
	return obj, matchName(p.t, obj)
}

func (p *patch) applyNew(ctx context.Context) (client.Object, error) {
	empty, err := newObject(p.t.Resource.scheme, p.t.Resource.Kind.GVK)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	obj, err := p.apply(ctx, empty)
	if err != nil {
		return nil, err
	}
	if uid := obj.GetUID(); uid != "" {
		return nil, apierrors.NewConflict(p.t.Resource.GVR.GroupResource(), p.t.Name,
			fmt.Errorf("uid mismatch: the provided object specified uid %s, and no existing object was found", uid))
	}
	return obj, nil
}
