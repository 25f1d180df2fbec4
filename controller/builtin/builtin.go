package builtin

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/leader"
	"github.com/keelson/keelson/controller/resources"
)

// Options configures a Set.
type Options struct {
	// Common is given to every controller, but for LeaderElection, which elects
	// the whole set, by default with a Lease named kube-controller-manager.
	controller.Common
	// Controllers switches controllers: "name" on, "-name" off, "*" all that are
	// on by default. The default is "*". A controller whose requirement below is
	// not met is off by default, and naming it is an error.
	Controllers []string
	// Resources lists all kinds for the garbage collector and the namespace
	// controller; by default those the client's scheme and RESTMapper know.
	Resources resources.Lister
	// RootCA is the PEM bundle that pods verify the API server with; required by
	// root-ca-certificate-publisher-controller.
	RootCA []byte
	// ClusterCIDRs hold pods' addresses; required by node-ipam-controller.
	ClusterCIDRs []netip.Prefix
	// NodeMaskIPv4 and NodeMaskIPv6 are the lengths of nodes' prefixes; 0 means
	// 24 and 64.
	NodeMaskIPv4, NodeMaskIPv6 int
	// SigningCert and SigningKey sign what CertificateSigningRequests ask for;
	// required by certificatesigningrequest-controller.
	SigningCert *x509.Certificate
	SigningKey  crypto.Signer
	// ApproveKubeletServing is that of package certificates.
	ApproveKubeletServing bool
	// NodeGracePeriod is how long a Node may show no life; 0 means 50s.
	NodeGracePeriod time.Duration
}

// runnable is what every controller's package has.
type runnable interface{ Run(context.Context) error }

// entry makes one controller.
type entry struct {
	name string
	// unmet says what is missing for the controller to run; empty if nothing is.
	unmet func(Options) string
	new   func(client.WithWatch, cache.Cache, Options) (runnable, error)
}

// Set is a number of controllers.
type Set struct {
	names       []string
	controllers []runnable
	elector     *leader.Elector
}

// Names returns the names of all controllers there are.
func Names() []string {
	var out []string
	for _, e := range entries() {
		out = append(out, e.name)
	}
	return out
}

// New makes the controllers that o asks for. It starts nothing. The cache is
// started by its owner.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Set, error) {
	if c == nil || cc == nil {
		return nil, errors.New("builtin: client or cache is nil")
	}
	switches := o.Controllers
	if len(switches) == 0 {
		switches = []string{"*"}
	}
	for _, s := range switches {
		if name := strings.TrimPrefix(s, "-"); name != "*" && !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("builtin: Options.Controllers has %q, expected \"*\" or one of %s", s, strings.Join(Names(), ", "))
		}
	}
	election := o.LeaderElection
	o.LeaderElection = nil
	set := &Set{}
	if election != nil {
		lo := *election
		if lo.Name == "" {
			lo.Name = "kube-controller-manager"
		}
		if lo.Clock == nil {
			lo.Clock = o.Clock
		}
		if lo.Logger.GetSink() == nil {
			lo.Logger = o.Logger
		}
		e, err := leader.New(c, lo)
		if err != nil {
			return nil, err
		}
		set.elector = e
	}
	for _, e := range entries() {
		named := slices.Contains(switches, e.name)
		if slices.Contains(switches, "-"+e.name) || !named && !slices.Contains(switches, "*") {
			continue
		}
		if e.unmet != nil {
			if missing := e.unmet(o); missing != "" {
				if named {
					return nil, fmt.Errorf("builtin: %s needs Options.%s", e.name, missing)
				}
				continue
			}
		}
		r, err := e.new(c, cc, o)
		if err != nil {
			return nil, fmt.Errorf("builtin: %s: %w", e.name, err)
		}
		set.names = append(set.names, e.name)
		set.controllers = append(set.controllers, r)
	}
	return set, nil
}

// Names returns the names of the set's controllers.
func (s *Set) Names() []string { return slices.Clone(s.names) }

// Run runs all controllers until ctx ends or one fails, and returns after all
// have ended.
func (s *Set) Run(ctx context.Context) error {
	work := func(ctx context.Context) error {
		var run []func(context.Context) error
		for _, c := range s.controllers {
			run = append(run, c.Run)
		}
		if err := controller.RunAll(ctx, run...); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}
	if s.elector != nil {
		return s.elector.Run(ctx, work)
	}
	return work(ctx)
}
