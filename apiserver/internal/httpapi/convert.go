package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/keelson/keelson/apiserver/internal/core"
	"github.com/keelson/keelson/apiserver/internal/objectcache"
)

// includePolicy reads what the rows of a table carry.
func includePolicy(r *http.Request) (metav1.IncludeObjectPolicy, error) {
	q := r.URL.Query()
	var o metav1.TableOptions
	if err := metav1.Convert_url_Values_To_v1_TableOptions(&q, &o, nil); err != nil {
		return "", badRequest(err)
	}
	switch o.IncludeObject {
	case "":
		return metav1.IncludeMetadata, nil
	case metav1.IncludeNone, metav1.IncludeMetadata, metav1.IncludeObject:
		return o.IncludeObject, nil
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf(
		"Unable to convert to Table as requested: includeObject: Invalid value: %q: must be 'Metadata', 'Object', 'None', or empty", o.IncludeObject))
}

// partialOf returns the metadata of an object.
func partialOf(o *core.Object, version string) *metav1.PartialObjectMetadata {
	p := &metav1.PartialObjectMetadata{}
	if m, err := meta.Accessor(o.Runtime()); err == nil {
		p = meta.AsPartialObjectMetadata(m)
	}
	p.TypeMeta = metav1.TypeMeta{APIVersion: conversion{version: version}.groupVersion(), Kind: asPartial}
	return p
}

// partialKey is what the metadata of an object in one version is kept under.
type partialKey string

func partialObject(o *core.Object, version string) *core.Object {
	return o.Derived(partialKey(version), func() any { return objectcache.Transient(partialOf(o, version)) }).(*core.Object)
}

var defaultColumns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
	{Name: "Age", Type: "string", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
}

// table makes a table of some objects; header says whether its columns are described.
func (h *Handler) table(res *core.Resource, version string, items []*core.Object, include metav1.IncludeObjectPolicy, header bool) (*metav1.Table, error) {
	t := &metav1.Table{TypeMeta: metav1.TypeMeta{APIVersion: conversion{version: version}.groupVersion(), Kind: asTable}}
	columns := defaultColumns
	custom := res.Kind != nil && res.Kind.Row != nil
	if custom {
		columns = res.Kind.Columns
	}
	if header {
		t.ColumnDefinitions = columns
	} else {
		t.ColumnDefinitions = []metav1.TableColumnDefinition{}
	}
	now := h.opts.Clock.Now()
	t.Rows = make([]metav1.TableRow, 0, len(items))
	for _, o := range items {
		obj := o.Object()
		if obj == nil {
			return nil, apierrors.NewInternalError(fmt.Errorf("%T has no metadata to make a table of", o.Runtime()))
		}
		row := metav1.TableRow{}
		if custom && obj.GetObjectKind().GroupVersionKind() == res.Kind.GVK {
			row.Cells = res.Kind.Row(obj, now)
		} else {
			row.Cells = []any{obj.GetName(), h.age(obj.GetCreationTimestamp())}
			if custom && header {
				t.ColumnDefinitions = defaultColumns
			}
		}
		switch include {
		case metav1.IncludeNone:
		case metav1.IncludeObject:
			raw, err := o.Encoded(res, mediaJSON)
			if err != nil {
				return nil, err
			}
			row.Object = runtime.RawExtension{Raw: raw}
		default:
			raw, err := partialObject(o, version).Encoded(generic, mediaJSON)
			if err != nil {
				return nil, err
			}
			row.Object = runtime.RawExtension{Raw: raw}
		}
		t.Rows = append(t.Rows, row)
	}
	return t, nil
}

func (h *Handler) age(t metav1.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(h.opts.Clock.Now().Sub(t.Time))
}

// writeObject sends one object, converted if asked.
func (h *Handler) writeObject(w http.ResponseWriter, r *http.Request, code int, a accepted, res *core.Resource, o *core.Object) {
	if s, ok := o.Runtime().(*metav1.Status); ok {
		if s.Kind == "" {
			c := *o.Runtime().(*metav1.Status)
			c.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
			o = objectcache.Transient(&c)
		}
		a.convert = conversion{}
	}
	switch a.convert.kind {
	case "":
		h.writeEncoded(w, r, code, a, o, res)
	case asTable:
		include, err := includePolicy(r)
		var t *metav1.Table
		if err == nil {
			t, err = h.table(res, a.convert.version, []*core.Object{o}, include, true)
		}
		if err != nil {
			h.sendError(w, r, err)
			return
		}
		if obj := o.Object(); obj != nil {
			t.ResourceVersion = obj.GetResourceVersion()
		}
		h.writeRuntime(w, r, code, a, t)
	case asPartial:
		h.writeEncoded(w, r, code, a, partialObject(o, a.convert.version), generic)
	default:
		h.sendError(w, r, &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
			Message: fmt.Sprintf("you requested %s, but the requested object is not a list (*%s)", a.convert.kind, internalName(res.GVK)),
		}})
	}
}

// writeConvertedList sends a list as a table or as metadata.
func (h *Handler) writeConvertedList(w http.ResponseWriter, r *http.Request, a accepted, res *core.Resource, l *core.List) {
	switch a.convert.kind {
	case asTable:
		include, err := includePolicy(r)
		var t *metav1.Table
		if err == nil {
			t, err = h.table(res, a.convert.version, l.Items, include, true)
		}
		if err != nil {
			h.sendError(w, r, err)
			return
		}
		t.ListMeta = listMeta(l)
		h.writeRuntime(w, r, http.StatusOK, a, t)
	case asPartialList:
		h.writePartialList(w, r, a, l)
	default:
		h.sendError(w, r, &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
			Message: fmt.Sprintf("you requested %s, but the requested object is a list (*%sList)", a.convert.kind, internalName(res.GVK)),
		}})
	}
}

func (h *Handler) writePartialList(w http.ResponseWriter, r *http.Request, a accepted, l *core.List) {
	if a.mediaType == mediaProto {
		out := &metav1.PartialObjectMetadataList{
			TypeMeta: metav1.TypeMeta{APIVersion: a.convert.groupVersion(), Kind: asPartialList}, ListMeta: listMeta(l),
		}
		for _, o := range l.Items {
			out.Items = append(out.Items, *partialObject(o, a.convert.version).Runtime().(*metav1.PartialObjectMetadata))
		}
		h.writeRuntime(w, r, http.StatusOK, a, out)
		return
	}
	meta, err := json.Marshal(listMeta(l))
	if err != nil {
		h.sendError(w, r, err)
		return
	}
	buf := fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":%s,"items":[`, asPartialList, a.convert.groupVersion(), meta)
	for i, o := range l.Items {
		if i > 0 {
			buf = append(buf, ',')
		}
		if buf, err = partialObject(o, a.convert.version).Append(buf, generic, mediaJSON); err != nil {
			h.sendError(w, r, err)
			return
		}
	}
	h.writeBody(w, r, http.StatusOK, a, append(buf, ']', '}'))
}

// bookmark makes the object of a BOOKMARK event: empty but for how far the watch is.
func (h *Handler) bookmark(res *core.Resource, ev core.Event) (*core.Object, error) {
	obj, err := h.opts.Core.Scheme().New(res.Kind.GVK)
	if err != nil {
		return nil, err
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	obj.GetObjectKind().SetGroupVersionKind(res.Kind.GVK)
	m.SetResourceVersion(strconv.FormatInt(ev.Revision, 10))
	if ev.InitialEventsEnd {
		m.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return objectcache.Transient(obj), nil
}

// longest is a bound on a watch whose client names none; the actual one is random so that watches made together do not end together.
const longest = 30 * time.Minute
