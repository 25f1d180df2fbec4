package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/uuid"
	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/clock"

	"github.com/keelson/keelson/apiserver/internal/core"
)

// inMemory is the remote address of requests that came through no socket.
const inMemory = "in-memory"

// ConnectRequest is a request to a streaming subresource.
type ConnectRequest struct {
	Resource, Subresource, Namespace, Name string
	// Path follows the subresource, with its leading slash; empty if there is none.
	Path string
}

// Connect is a streaming subresource: exec, log, proxy.
type Connect struct {
	Resource, Subresource string
	// Kind in discovery.
	Kind  string
	Verbs []string
	// Upgrade marks those whose GET may change protocol, which then needs the permission to create, too.
	Upgrade bool
	// Serve answers an authorized request, or returns the error to send while nothing has been written.
	Serve func(w http.ResponseWriter, r *http.Request, c ConnectRequest) error
}

// Check is a named health check.
type Check struct {
	Name  string
	Check func(r *http.Request) error
	// ReadyOnly leaves it out of livez.
	ReadyOnly bool
}

// Options of a Handler. Core is required.
type Options struct {
	Core *core.Core
	// Authenticator of requests; nil makes everybody anonymous. Requests through the in-memory transport carry their user.
	Authenticator authenticator.Request
	// Authorizer of what is not the core's: other paths, connects, impersonation. Nil allows all.
	Authorizer authorizer.UnconditionalAuthorizer
	Connects   []Connect
	Checks     []Check
	// OpenAPI serves /openapi/.
	OpenAPI http.Handler
	// Extra serves further paths, exact, after authorization.
	Extra   map[string]http.Handler
	Version version.Info
	// MaxBodyBytes default 3 MiB.
	MaxBodyBytes int64
	// RequestTimeout of all but watches, logs and connects; default 60 s.
	RequestTimeout time.Duration
	// MaxInFlight and MaxMutatingInFlight bound the requests served at one time, watches and connects aside; 0 means no bound.
	MaxInFlight, MaxMutatingInFlight int
	Clock                            clock.PassiveClock
	Logger                           logr.Logger
	// Metrics, if set, gets the request metrics and is served at /metrics.
	Metrics interface {
		prometheus.Registerer
		prometheus.Gatherer
	}
}

// Handler serves the API.
type Handler struct {
	opts      Options
	logger    logr.Logger
	decoders  *decoders
	discovery *discovery
	connects  map[string]*Connect
	metrics   *metrics
	paths     map[string]http.HandlerFunc

	buffers, large, gzips *sync.Pool
	reading, mutating     atomic.Int64
	streams               streams
}

// New returns a handler.
func New(o Options) (*Handler, error) {
	if o.Core == nil {
		return nil, fmt.Errorf("httpapi: Options.Core: expected a core")
	}
	if o.MaxBodyBytes == 0 {
		o.MaxBodyBytes = 3 << 20
	}
	if o.RequestTimeout == 0 {
		o.RequestTimeout = 60 * time.Second
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	h := &Handler{
		opts: o, logger: o.Logger, decoders: newDecoders(o.Core.Scheme()), connects: map[string]*Connect{},
		buffers: newBuffers(), large: newBuffers(),
		gzips: &sync.Pool{New: func() any { z, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed); return z }},
	}
	for i := range o.Connects {
		c := &o.Connects[i]
		h.connects[c.Resource+"/"+c.Subresource] = c
	}
	var err error
	if h.metrics, err = newMetrics(o.Metrics); err != nil {
		return nil, err
	}
	if h.discovery, err = newDiscovery(o.Core.Resources(), o.Connects); err != nil {
		return nil, err
	}
	h.paths = h.otherPaths()
	return h, nil
}

type identityKey struct{}

// WithIdentity marks a request as made by u: it is not authenticated again. Only a transport within the process may use it.
func WithIdentity(ctx context.Context, u user.Info) context.Context {
	return context.WithValue(ctx, identityKey{}, u)
}

// ServeHTTP serves one request.
func (h *Handler) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := &response{ResponseWriter: rw}
	x := &exchange{start: h.opts.Clock.Now()}
	defer func() {
		p := recover()
		if p != nil && p != http.ErrAbortHandler {
			h.logger.Error(fmt.Errorf("%v", p), "Request panicked", "method", r.Method, "path", r.URL.Path, "stack", string(debug.Stack()))
			h.metrics.panicked()
			if !w.wrote {
				h.sendError(w, r, apierrors.NewInternalError(fmt.Errorf("apiserver panic'd on %s %s", r.Method, r.URL.Path)))
				p = nil
			}
		}
		h.metrics.done(x, w, h.opts.Clock.Now().Sub(x.start))
		if p != nil {
			panic(http.ErrAbortHandler)
		}
	}()
	header := w.Header()
	id := r.Header.Get("Audit-Id")
	if id == "" || len(id) > 64 {
		id = uuid.NewString()
	}
	header.Set("Audit-Id", id)
	header.Set("Cache-Control", "no-cache, private")
	ctx := withWarnings(r.Context(), header, w)
	if ua := r.UserAgent(); ua != "" {
		ctx = core.WithUserAgent(ctx, ua)
	}
	ctx, err := h.identify(ctx, r)
	if err == nil {
		r = r.WithContext(ctx)
		err = h.route(w, r, x)
	}
	if err == nil {
		return
	}
	if errors.Is(err, errNoSuchPath) {
		http.NotFound(w, r)
		return
	}
	if w.wrote {
		h.logger.V(1).Info("Request failed after its answer began", "path", r.URL.Path, "err", err.Error())
		return
	}
	h.sendError(w, r, err)
}

// identify finds out who makes the request and, if that is allowed, as whom.
func (h *Handler) identify(ctx context.Context, r *http.Request) (context.Context, error) {
	u, ok := ctx.Value(identityKey{}).(user.Info)
	switch {
	case ok:
	case h.opts.Authenticator != nil:
		resp, found, err := h.opts.Authenticator.AuthenticateRequest(r)
		if err != nil {
			h.logger.V(1).Info("Unable to authenticate the request", "err", err.Error())
			return ctx, errUnauthorized()
		}
		if found {
			u = authenticated(resp.User)
		}
	}
	if u == nil {
		u = &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}
	}
	// The credential has served its purpose; nothing behind this point may pass it on.
	r.Header.Del("Authorization")
	u, err := h.impersonate(ctx, r, u)
	if err != nil {
		return ctx, err
	}
	return request.WithUser(ctx, u), nil
}

// authenticated adds the group that all who are known are in.
func authenticated(u user.Info) user.Info {
	if u.GetName() == user.Anonymous {
		return u
	}
	for _, g := range u.GetGroups() {
		if g == user.AllAuthenticated || g == user.AllUnauthenticated {
			return u
		}
	}
	return &user.DefaultInfo{
		Name: u.GetName(), UID: u.GetUID(), Extra: u.GetExtra(),
		Groups: append(append([]string(nil), u.GetGroups()...), user.AllAuthenticated),
	}
}

// allow asks the authorizer about what the core doesn't know.
func (h *Handler) allow(ctx context.Context, a authorizer.AttributesRecord) error {
	if h.opts.Authorizer == nil {
		return nil
	}
	a.User, _ = request.UserFrom(ctx)
	decision, reason, err := h.opts.Authorizer.Authorize(ctx, a)
	switch {
	case decision == authorizer.DecisionAllow:
		return nil
	case err != nil:
		return apierrors.NewInternalError(err)
	}
	return errForbidden(a, reason)
}

// route serves the request or returns the error to answer with.
func (h *Handler) route(w *response, r *http.Request, x *exchange) error {
	path := r.URL.Path
	if strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/apis/") {
		if p, ok := parsePath(path); ok && p.resource != "" {
			return h.resource(w, r, x, p)
		}
	}
	verb := strings.ToLower(r.Method)
	if err := h.allow(r.Context(), authorizer.AttributesRecord{Verb: verb, Path: path}); err != nil {
		return err
	}
	x.verb = metricMethod(r.Method)
	ctx, cancel := context.WithTimeout(r.Context(), h.opts.RequestTimeout)
	defer cancel()
	r = r.WithContext(ctx)
	if f, ok := h.paths[path]; ok {
		x.subresource = path
		f(w, r)
		return nil
	}
	if f, ok := h.opts.Extra[path]; ok {
		x.subresource = path
		f.ServeHTTP(w, r)
		return nil
	}
	for _, prefix := range []string{"/healthz/", "/livez/", "/readyz/", "/openapi/"} {
		if strings.HasPrefix(path, prefix) {
			x.subresource = strings.TrimSuffix(prefix, "/")
			h.paths[prefix](w, r)
			return nil
		}
	}
	if doc := h.discovery.document(strings.TrimSuffix(path, "/")); doc != nil {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			return errMethod()
		}
		doc.serve(h, w, r)
		return nil
	}
	group, _, _ := strings.Cut(strings.TrimPrefix(path, "/apis/"), "/")
	if strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/apis/") && h.discovery.document("/apis/"+group) != nil {
		return errNotFoundPath()
	}
	return errNoSuchPath
}

// response remembers what has been sent.
type response struct {
	http.ResponseWriter
	code  int
	bytes int64
	wrote bool
}

func (w *response) WriteHeader(code int) {
	if !w.wrote {
		// 1xx answers but the switch of protocols are not final.
		w.wrote = code >= 200 || code == http.StatusSwitchingProtocols
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *response) Write(b []byte) (int, error) {
	if !w.wrote {
		w.wrote, w.code = true, http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

func (w *response) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
