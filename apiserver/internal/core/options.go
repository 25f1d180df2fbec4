package core

import (
	"context"
	"fmt"
	"strings"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/clock"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/store"
)

// Options configures a Core.
type Options struct {
	// Store holds the objects; required. It is not closed by the Core.
	Store store.Store
	// Groups are the API groups to serve; required.
	Groups []kind.Group
	// Authorizer decides every request; nil allows all.
	Authorizer authorizer.Authorizer
	// Admission is called for every write: as MutationInterface, then as ValidationInterface; nil admits all.
	// It must not keep or, when validating, modify the objects it is shown.
	Admission admission.Interface
	// Scheme is filled with the groups' types; default a new one.
	Scheme *runtime.Scheme
	// KeyPrefix is the root of all keys; default "/registry/".
	KeyPrefix string
	// MaxObjectBytes bounds a stored object; default 1.5 MiB, as etcd's requests.
	MaxObjectBytes int
	// HistoryEvents and HistoryBytes bound, per resource, the events kept for watches from older
	// revisions; defaults 16384 and 8 MiB of superseded objects as stored (decoded
	// they take several times that).
	HistoryEvents int
	HistoryBytes  int64

	Clock   clock.WithTicker      // default the real one
	Logger  logr.Logger           // default discards
	Metrics prometheus.Registerer // default none
}

func (o Options) withDefaults() Options {
	if o.Scheme == nil {
		o.Scheme = runtime.NewScheme()
	}
	if o.KeyPrefix == "" {
		o.KeyPrefix = "/registry/"
	}
	if o.MaxObjectBytes == 0 {
		o.MaxObjectBytes = 3 << 19
	}
	if o.HistoryEvents == 0 {
		o.HistoryEvents = 16384
	}
	if o.HistoryBytes == 0 {
		o.HistoryBytes = 8 << 20
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	return o
}

func (o Options) validate() error {
	switch {
	case o.Store == nil:
		return fmt.Errorf("core: Options.Store is nil, a store is required")
	case len(o.Groups) == 0:
		return fmt.Errorf("core: Options.Groups is empty, at least one API group is required")
	case !strings.HasPrefix(o.KeyPrefix, "/") || !strings.HasSuffix(o.KeyPrefix, "/"):
		return fmt.Errorf("core: Options.KeyPrefix is %q, it must begin and end with a slash", o.KeyPrefix)
	case o.MaxObjectBytes < 0 || o.HistoryEvents < 0 || o.HistoryBytes < 0:
		return fmt.Errorf("core: Options.MaxObjectBytes, HistoryEvents and HistoryBytes must not be negative")
	}
	return nil
}

type userAgentKey struct{}

// WithUserAgent names the client of a request: its part before the first slash is the field manager of writes whose options name none.
func WithUserAgent(ctx context.Context, userAgent string) context.Context {
	return context.WithValue(ctx, userAgentKey{}, userAgent)
}

type untrackedKey struct{}

// WithoutManagedFields makes creations record no owner of the fields, as for objects older than managed fields. What a server makes at its
// first start need not wait for the schemas then.
func WithoutManagedFields(ctx context.Context) context.Context {
	return context.WithValue(ctx, untrackedKey{}, true)
}

func untracked(ctx context.Context) bool { return ctx.Value(untrackedKey{}) != nil }
