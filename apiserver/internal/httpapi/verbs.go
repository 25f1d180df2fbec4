package httpapi

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/keelson/keelson/apiserver/internal/core"
)

// resource serves a request to a resource.
func (h *Handler) resource(w *response, r *http.Request, x *exchange, p resourcePath) error {
	gvr := p.gv.WithResource(p.resource)
	q := query(r.URL)
	watching := p.watch || p.subresource == "" && (r.Method == http.MethodGet) && isTrue(q.Get("watch"))
	verb := verbOf(r.Method, p.name != "", watching)
	if c, ok := h.connects[p.resource+"/"+p.subresource]; ok && gvr.Group == "" {
		return h.connect(w, r, x, c, p, verb)
	}
	// Only what is served is counted by name: paths are the client's, and unbounded.
	x.verb = metricVerb(verb)
	res, ok := h.opts.Core.Lookup(gvr)
	known := ok && p.rest == ""
	if known && p.subresource != "" {
		_, known = res.Subresource(p.subresource)
	}
	if !known {
		// Who may not ask gets no hint of what is there.
		if err := h.allow(r.Context(), authorizer.AttributesRecord{
			Verb: verb, APIGroup: gvr.Group, APIVersion: gvr.Version, Resource: p.resource, Subresource: p.subresource,
			Namespace: p.namespace, Name: p.name, ResourceRequest: true,
		}); err != nil {
			return err
		}
		if gvr.Group != "" && h.discovery.document("/apis/"+gvr.Group) == nil {
			return errNoSuchPath
		}
		return errNotFoundPath()
	}
	x.resource(gvr, p, verb, q)
	t := core.Target{Resource: res, Subresource: p.subresource, Namespace: p.namespace, Name: p.name}
	if !res.Namespaced {
		if p.namespace != "" && p.resource != "namespaces" {
			return errNotFoundPath()
		}
		t.Namespace = ""
	}
	if watching {
		return h.watch(w, r, x, t, q)
	}
	release, err := h.admit(x, verb)
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := context.WithTimeout(r.Context(), h.timeout(q))
	defer cancel()
	if r, err = h.authorized(r.WithContext(ctx), t, verb); err != nil {
		return err
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		if p.name == "" {
			return h.list(w, r, t, q)
		}
		return h.get(w, r, t, q)
	case http.MethodPost:
		return h.create(w, r, t, q)
	case http.MethodPut:
		return h.update(w, r, t, q)
	case http.MethodPatch:
		return h.patch(w, r, t, q)
	case http.MethodDelete:
		if p.name == "" {
			return h.deleteCollection(w, r, t, q)
		}
		return h.delete(w, r, t, q)
	}
	return errMethod()
}

// authorized decides before any of the body is read; the core doesn't ask again.
func (h *Handler) authorized(r *http.Request, t core.Target, verb string) (*http.Request, error) {
	switch verb {
	case "create", "update", "patch", "delete":
		ctx, err := h.opts.Core.Authorize(r.Context(), t, verb)
		if err != nil {
			return r, err
		}
		r = r.WithContext(ctx)
	}
	// Objects of all namespaces can be listed and watched, but neither created nor deleted.
	if t.Resource.Namespaced && t.Namespace == "" && r.Method != http.MethodGet {
		if _, err := h.opts.Core.Authorize(r.Context(), t, verb); err != nil {
			return r, err
		}
		return r, errMethod()
	}
	if r.Method == http.MethodHead || !t.Resource.HasVerb(t.Subresource, verb) {
		return r, errMethod()
	}
	return r, nil
}

// query parses leniently, as net/url's Query does, and returns nil for an empty one.
func query(u *url.URL) url.Values {
	if u.RawQuery == "" {
		return nil
	}
	return u.Query()
}

// isTrue reads a boolean as apimachinery's conversion of queries does.
func isTrue(v string) bool {
	switch strings.ToLower(v) {
	case "", "false", "0":
		return false
	}
	return true
}

// timeout is what the client asks for, within the server's bound.
func (h *Handler) timeout(q url.Values) time.Duration {
	if q != nil {
		if v := q.Get("timeout"); v != "" {
			if d, err := time.ParseDuration(v); err == nil && d > 0 && d < h.opts.RequestTimeout {
				return d
			}
		}
	}
	return h.opts.RequestTimeout
}

// admit counts a request that ends soon, and refuses it when there are too many of them.
func (h *Handler) admit(x *exchange, verb string) (release func(), err error) {
	n, limit, kind := &h.reading, h.opts.MaxInFlight, "readOnly"
	switch verb {
	case "create", "update", "patch", "delete":
		n, limit, kind = &h.mutating, h.opts.MaxMutatingInFlight, "mutating"
	}
	now := n.Add(1)
	if limit > 0 && now > int64(limit) {
		n.Add(-1)
		h.metrics.rejected(kind)
		return nil, errTooManyRequests()
	}
	return func() { n.Add(-1) }, nil
}

func (h *Handler) get(w http.ResponseWriter, r *http.Request, t core.Target, q url.Values) error {
	a, err := negotiate(r, true)
	if err != nil {
		return err
	}
	opts, err := getOptions(q)
	if err != nil {
		return err
	}
	o, err := h.opts.Core.Get(r.Context(), t, opts)
	if err != nil {
		return err
	}
	h.writeObject(w, r, http.StatusOK, a, t.Resource, o)
	return nil
}

func (h *Handler) list(w http.ResponseWriter, r *http.Request, t core.Target, q url.Values) error {
	a, err := negotiate(r, true)
	if err != nil {
		return err
	}
	opts, err := listOptions(q, "", false)
	if err != nil {
		return err
	}
	l, err := h.opts.Core.List(r.Context(), t, opts.ListOptions)
	if err != nil {
		return err
	}
	h.sendList(w, r, a, t.Resource, l)
	return nil
}

func (h *Handler) sendList(w http.ResponseWriter, r *http.Request, a accepted, res *core.Resource, l *core.List) {
	if a.convert.kind != "" {
		h.writeConvertedList(w, r, a, res, l)
		return
	}
	h.writeList(w, r, a, res, l)
}

func (h *Handler) create(w http.ResponseWriter, r *http.Request, t core.Target, q url.Values) error {
	if t.Name != "" && t.Subresource == "" {
		return errMethod()
	}
	a, err := negotiate(r, true)
	if err != nil {
		return err
	}
	opts, err := createOptions(q)
	if err != nil {
		return err
	}
	obj, err := h.decode(r.Context(), r, t.Resource, t.Subresource, opts.FieldValidation)
	if err != nil {
		return err
	}
	o, err := h.opts.Core.Create(r.Context(), t, obj, opts)
	if err != nil {
		return err
	}
	h.writeObject(w, r, http.StatusCreated, a, t.Resource, o)
	return nil
}

func created(yes bool) int {
	if yes {
		return http.StatusCreated
	}
	return http.StatusOK
}

func (h *Handler) update(w http.ResponseWriter, r *http.Request, t core.Target, q url.Values) error {
	if t.Name == "" {
		return errMethod()
	}
	a, err := negotiate(r, true)
	if err != nil {
		return err
	}
	opts, err := updateOptions(q)
	if err != nil {
		return err
	}
	obj, err := h.decode(r.Context(), r, t.Resource, t.Subresource, opts.FieldValidation)
	if err != nil {
		return err
	}
	if err := checkName(obj, t.Namespace, t.Name); err != nil {
		return err
	}
	o, isNew, err := h.opts.Core.Update(r.Context(), t, obj, opts)
	if err != nil {
		return err
	}
	h.writeObject(w, r, created(isNew), a, t.Resource, o)
	return nil
}

func (h *Handler) patch(w http.ResponseWriter, r *http.Request, t core.Target, q url.Values) error {
	if t.Name == "" {
		return errMethod()
	}
	pt, err := patchType(r)
	if err != nil {
		return err
	}
	a, err := negotiate(r, true)
	if err != nil {
		return err
	}
	opts, err := patchOptions(q, types.PatchType(pt))
	if err != nil {
		return err
	}
	body, release, err := h.readBody(r)
	if err != nil {
		return err
	}
	defer release()
	o, isNew, err := h.opts.Core.Patch(r.Context(), t, types.PatchType(pt), body, opts)
	if err != nil {
		return err
	}
	h.writeObject(w, r, created(isNew), a, t.Resource, o)
	return nil
}

func (h *Handler) delete(w http.ResponseWriter, r *http.Request, t core.Target, q url.Values) error {
	a, err := negotiate(r, true)
	if err != nil {
		return err
	}
	opts, err := h.deleteOptions(r, q)
	if err != nil {
		return err
	}
	o, deleted, err := h.opts.Core.Delete(r.Context(), t, opts)
	if err != nil {
		return err
	}
	code := http.StatusOK
	//nolint:staticcheck // the deprecated field decides the code, as in Kubernetes
	if orphan := opts.OrphanDependents; !deleted && orphan != nil && !*orphan {
		code = http.StatusAccepted
	}
	h.writeObject(w, r, code, a, t.Resource, o)
	return nil
}

func (h *Handler) deleteCollection(w http.ResponseWriter, r *http.Request, t core.Target, q url.Values) error {
	a, err := negotiate(r, true)
	if err != nil {
		return err
	}
	list, err := listOptions(q, "", false)
	if err != nil {
		return err
	}
	opts, err := h.deleteOptions(r, q)
	if err != nil {
		return err
	}
	l, err := h.opts.Core.DeleteCollection(r.Context(), t, opts, list.ListOptions)
	if err != nil {
		return err
	}
	h.sendList(w, r, a, t.Resource, l)
	return nil
}

// connect serves a streaming subresource.
func (h *Handler) connect(w *response, r *http.Request, x *exchange, c *Connect, p resourcePath, verb string) error {
	if verb == "deletecollection" || p.name == "" {
		return errNotFoundPath()
	}
	if verb == "list" {
		verb = "get"
	}
	x.resource(p.gv.WithResource(p.resource), p, verb, nil)
	a := authorizer.AttributesRecord{
		Verb: verb, APIVersion: p.gv.Version, Resource: p.resource, Subresource: p.subresource, Namespace: p.namespace, Name: p.name, ResourceRequest: true,
	}
	if err := h.allow(r.Context(), a); err != nil {
		return err
	}
	if c.Upgrade && verb == "get" {
		// A WebSocket begins with a GET, but running a command in a pod takes more than the permission to read.
		a.Verb = "create"
		if err := h.allow(r.Context(), a); err != nil {
			return err
		}
	}
	served := false
	for _, v := range c.Verbs {
		served = served || v == verb
	}
	if !served {
		return errMethod()
	}
	x.longRunning = true
	defer h.metrics.longRunning(x)()
	ctx, cancel := h.streams.begin(r.Context())
	defer cancel()
	defer endWrites(ctx, w)()
	return c.Serve(w, r.WithContext(ctx), ConnectRequest{Resource: p.resource, Subresource: p.subresource, Namespace: p.namespace, Name: p.name, Path: p.rest})
}
