package apiserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/auth/ca"
	"github.com/keelson/keelson/apiserver/auth/node"
	"github.com/keelson/keelson/apiserver/auth/rbac"
	"github.com/keelson/keelson/apiserver/auth/tokens"
	"github.com/keelson/keelson/apiserver/internal/connect"
	"github.com/keelson/keelson/apiserver/internal/core"
	"github.com/keelson/keelson/apiserver/internal/httpapi"
	"github.com/keelson/keelson/apiserver/internal/inproc"
	"github.com/keelson/keelson/store"
)

// Server is an API server on one store. Its methods may be called from any goroutine. Requests made before Run has
// loaded the store wait for it.
type Server struct {
	opts   Options
	store  store.Store
	ca     *ca.Authority
	reader *reader
	self   *lateClient // acts as the server itself
	tokens *tokens.Manager
	// tokenAuthenticator knows static and service-account tokens.
	tokenAuthenticator authenticator.Token
	authorizer         authorizer.Authorizer
	rbac               *rbac.Authorizer // nil if Options has another authorizer, as is node
	node               *node.Authorizer
	policy             nodeAndRBAC
	policyCache        *inproc.Cache // tells both
	core               *core.Core
	connector          *connect.Connector
	handler            *httpapi.Handler
	inflight

	started atomic.Bool
	ready   chan struct{}
	stopped chan struct{}
	address atomic.Pointer[netip.AddrPort] // of the first listener
	mu      sync.Mutex
	err     error
}

var _ http.Handler = (*Server)(nil)

// self is the user the server acts as on its own behalf.
var self user.Info = &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}

// New returns a server over st, which stays the caller's to close after Run has returned. It reads or makes the certificate authority in
// Options.Dir and starts nothing.
func New(st store.Store, opts Options) (*Server, error) {
	if st == nil {
		return nil, errors.New("apiserver: expected a store")
	}
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	s := &Server{opts: opts, store: st, reader: &reader{}, self: &lateClient{}, ready: make(chan struct{}), stopped: make(chan struct{})}
	for _, step := range []func() error{s.initAuthentication, s.initAuthorization, s.initCore, s.initHandler} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("apiserver: %w", err)
		}
	}
	return s, nil
}

func (s *Server) initAuthentication() (err error) {
	if s.ca, err = ca.New(ca.Options{Dir: s.opts.Dir, Clock: s.opts.Clock}); err != nil {
		return err
	}
	s.tokens, err = tokens.New(s.ca.ServiceAccountKey(), s.reader, tokens.Options{
		Issuer: s.opts.ServiceAccountIssuer, Audiences: s.opts.ServiceAccountAudiences, Clock: s.opts.Clock,
	})
	s.tokenAuthenticator = tokenUnion{newStaticTokens(s.opts.Tokens), s.tokens}
	return err
}

func (s *Server) initAuthorization() (err error) {
	if s.opts.Authorizer != nil {
		s.authorizer = privileged{s.opts.Authorizer}
		return nil
	}
	if s.rbac, err = rbac.New(rbac.Options{Logger: s.opts.Logger.WithName("rbac")}); err != nil {
		return err
	}
	if s.node, err = node.New(node.Options{Logger: s.opts.Logger.WithName("node-authorizer")}); err != nil {
		return err
	}
	s.policy = nodeAndRBAC{s.node, s.rbac, newCatchUp(s.policyIsCurrent, s.opts.Logger.WithName("authorizer"))}
	s.authorizer = privileged{s.policy}
	return nil
}

func (s *Server) initCore() error {
	groups, err := s.groups()
	if err != nil {
		return err
	}
	admission, err := s.admission()
	if err != nil {
		return err
	}
	s.core, err = core.New(core.Options{
		Store: s.store, Groups: groups, Authorizer: s.authorizer, Admission: admission,
		Clock: s.opts.Clock, Logger: s.opts.Logger.WithName("core"), Metrics: s.opts.Metrics,
	})
	if err != nil {
		return err
	}
	s.reader.core.Store(s.core)
	s.self.Client = s.Client(self)
	s.policyCache = s.cache(self)
	return nil
}

func (s *Server) initHandler() (err error) {
	s.connector, err = connect.New(connect.Options{
		Reader: s.reader, AllowLoopback: s.opts.unprivileged(), Logger: s.opts.Logger.WithName("connect"),
		KubeletTLS: &tls.Config{
			MinVersion:           tls.VersionTLS12,
			GetClientCertificate: s.ca.ClientTLS("kube-apiserver-kubelet-client", user.SystemPrivilegedGroup),
			RootCAs:              s.opts.KubeletCAs,
			InsecureSkipVerify:   s.opts.KubeletCAs == nil,
		},
	})
	if err != nil {
		return err
	}
	authn, err := s.authenticators()
	if err != nil {
		return err
	}
	connects := s.connector.Connects()
	spec, err := openAPI(s.core.Resources(), connects)
	if err != nil {
		return err
	}
	s.handler, err = httpapi.New(httpapi.Options{
		Core: s.core, Authenticator: authn, Authorizer: s.authorizer, Connects: connects, Checks: s.checks(), OpenAPI: spec, Extra: s.extraPaths(),
		Version: versionInfo(), RequestTimeout: s.opts.RequestTimeout,
		MaxInFlight: s.opts.MaxRequestsInFlight, MaxMutatingInFlight: s.opts.MaxMutatingRequestsInFlight,
		Clock: s.opts.Clock, Logger: s.opts.Logger.WithName("http"), Metrics: s.opts.Metrics,
	})
	return err
}

// Run serves until ctx ends, and returns nil then, or what kept it from serving. It returns when everything it started, and every request, has
// ended. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	if s.started.Swap(true) {
		return errors.New("apiserver: Run was called before")
	}
	err := s.run(ctx)
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	close(s.stopped)
	return err
}

func (s *Server) run(ctx context.Context) error {
	listeners, err := s.listen(ctx)
	if err != nil {
		return err
	}
	if len(listeners) > 0 {
		if a, ok := local(listeners[0]); ok {
			s.address.Store(&a)
		}
	}
	// What serves requests ends before what they are served from.
	inner, stopCore := context.WithCancel(context.WithoutCancel(ctx))
	defer stopCore()
	var below errgroup.Group
	outer, cancel := context.WithCancel(ctx)
	defer cancel()
	below.Go(func() error {
		defer cancel()
		return ended(inner, s.core.Run(inner))
	})
	if s.rbac != nil {
		below.Go(func() error {
			defer cancel()
			return ended(inner, s.followPolicy(inner))
		})
	}
	above, outer := errgroup.WithContext(outer)
	above.Go(func() error { return s.serve(outer, listeners) })
	above.Go(func() error {
		if err := s.bootstrap(outer, s.advertised(listeners)); err != nil {
			return ended(outer, fmt.Errorf("apiserver: bootstrap: %w", err))
		}
		close(s.ready)
		return nil
	})
	err = above.Wait()
	s.drain()
	stopCore()
	if e := below.Wait(); err == nil {
		err = e
	}
	s.connector.Close()
	return err
}

// ended is err, unless it only says that ctx has ended.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return nil
	}
	return err
}

// followPolicy keeps the authorizers up to date with the roles and bindings, and with what the pods of nodes use.
func (s *Server) followPolicy(ctx context.Context) error {
	if err := s.core.WaitReady(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.policyCache.Start(ctx) })
	group.Go(func() error { return s.rbac.Run(ctx, s.policyCache) })
	group.Go(func() error { return s.node.Run(ctx, s.policyCache) })
	return group.Wait()
}

// policyIsCurrent blocks until the authorizers know everything that was committed before the call, also by other servers of the store.
func (s *Server) policyIsCurrent(ctx context.Context) error {
	for _, step := range []func(context.Context) error{s.core.Sync, s.rbac.WaitReady, s.node.WaitReady, s.policyCache.Flush} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Ready is closed when the server has loaded the store, made what a cluster begins with, and listens.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// WaitReady blocks until Ready, and returns the context's error, or Run's if that comes first.
func (s *Server) WaitReady(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stopped:
		select {
		case <-s.ready:
			return nil
		default:
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.err != nil {
			return s.err
		}
		return errStopped
	}
}

// ServeHTTP serves requests of a caller's own http.Server. They are authenticated: by the client certificate of their
// TLS connection, which must have been asked for (tls.RequestClientCert), or by token.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	e := &external{cancel}
	if !s.begin(e) {
		http.Error(w, errStopped.Error(), http.StatusServiceUnavailable)
		return
	}
	defer s.end(e)
	s.handler.ServeHTTP(w, r.WithContext(ctx))
}

// URL is the address of the first listener for programs on this machine, https://HOST:PORT; empty until Run listens.
func (s *Server) URL() string {
	if a := s.address.Load(); a != nil {
		return "https://" + a.String()
	}
	return ""
}

// Client returns a client for components of this process, which acts as u.
func (s *Server) Client(u user.Info) client.WithWatch {
	return inproc.NewClient(s.core, u, inproc.ClientOptions{})
}

// Cache returns a cache for components of this process, which reads as u. Its informers hand out the server's own objects, which must not
// be modified. The caller starts it.
func (s *Server) Cache(u user.Info) cache.Cache { return s.cache(u) }

func (s *Server) cache(u user.Info) *inproc.Cache {
	return inproc.NewCache(s.core, u, inproc.CacheOptions{Clock: s.opts.Clock, Logger: s.opts.Logger.WithName("cache")})
}

// Scheme has the types of everything that is served.
func (s *Server) Scheme() *runtime.Scheme { return s.core.Scheme() }

// CA is the cluster's certificate authority.
func (s *Server) CA() *ca.Authority { return s.ca }

// Tokens issues and verifies service-account tokens.
func (s *Server) Tokens() *tokens.Manager { return s.tokens }

// Authorizer decides who may do what.
func (s *Server) Authorizer() authorizer.Authorizer { return s.authorizer }
