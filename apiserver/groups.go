package apiserver

import (
	"net/netip"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/clock"

	"github.com/keelson/keelson/apiserver/internal/ipalloc"
	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/apps"
	"github.com/keelson/keelson/apiserver/kinds/authentication"
	"github.com/keelson/keelson/apiserver/kinds/authorization"
	"github.com/keelson/keelson/apiserver/kinds/autoscaling"
	"github.com/keelson/keelson/apiserver/kinds/batch"
	"github.com/keelson/keelson/apiserver/kinds/certificates"
	"github.com/keelson/keelson/apiserver/kinds/coordination"
	"github.com/keelson/keelson/apiserver/kinds/core"
	"github.com/keelson/keelson/apiserver/kinds/discovery"
	"github.com/keelson/keelson/apiserver/kinds/events"
	"github.com/keelson/keelson/apiserver/kinds/networking"
	"github.com/keelson/keelson/apiserver/kinds/node"
	"github.com/keelson/keelson/apiserver/kinds/policy"
	"github.com/keelson/keelson/apiserver/kinds/rbac"
	"github.com/keelson/keelson/apiserver/kinds/resource"
	"github.com/keelson/keelson/apiserver/kinds/scheduling"
	"github.com/keelson/keelson/apiserver/kinds/storage"
)

// GroupOptions are what declarations of kinds depend on. The zero value declares them all, without addresses for Services,
// and with reviews that know no token and allow everything.
type GroupOptions struct {
	// ServiceCIDRs are the ranges of Services' addresses, NodePorts that of their node ports.
	ServiceCIDRs []netip.Prefix
	NodePorts    PortRange
	// AllowLoopback lets endpoints have loopback addresses.
	AllowLoopback bool
	// EventTTL is how long Events are kept.
	EventTTL time.Duration
	// Authenticator answers TokenReviews; Audiences are the server's own.
	Authenticator authenticator.Token
	Audiences     authenticator.Audiences
	// Authorizer answers access reviews, and whether a user may give permissions that it does not have.
	Authorizer authorizer.UnconditionalAuthorizer
	// Rules and Policy know what users may do; a *rbac.Authorizer is both.
	Rules  authorizer.RuleResolver
	Policy rbac.Policy
	// Virtuals are added to the group they belong to by name ("" for serviceaccounts/token).
	Virtuals map[string][]*kind.Virtual
	Clock    clock.PassiveClock
}

// DefaultGroups returns the API groups of Kubernetes that a Server serves.
func DefaultGroups(o GroupOptions) ([]kind.Group, error) {
	var review authenticator.Request
	if o.Authenticator != nil {
		review = bearertoken.New(o.Authenticator)
	}
	coreOptions := core.Options{AllowLoopback: o.AllowLoopback, EventTTLSeconds: int64(o.EventTTL / time.Second), Clock: o.Clock}
	for _, p := range o.ServiceCIDRs {
		a, err := ipalloc.NewAddresses(p)
		if err != nil {
			return nil, err
		}
		coreOptions.ServiceIPs = append(coreOptions.ServiceIPs, a)
	}
	if o.NodePorts != (PortRange{}) {
		p, err := ipalloc.NewPorts(o.NodePorts.First, o.NodePorts.Last)
		if err != nil {
			return nil, err
		}
		coreOptions.NodePorts = p
	}
	groups := []kind.Group{
		core.Group(coreOptions),
		apps.Group(),
		authentication.Group(authentication.Options{Authenticator: review, Audiences: o.Audiences, Clock: o.Clock}),
		authorization.Group(authorization.Options{Authorizer: o.Authorizer, Rules: o.Rules}),
		autoscaling.Group(),
		batch.Group(),
		certificates.Group(certificates.Options{Clock: o.Clock}),
		coordination.Group(),
		discovery.Group(discovery.Options{AllowLoopback: o.AllowLoopback}),
		events.Group(),
		networking.Group(),
		node.Group(),
		policy.Group(),
		rbac.Group(rbac.Options{Authorizer: o.Authorizer, Policy: o.Policy}),
		resource.Group(resource.Options{Authorizer: o.Authorizer, Clock: o.Clock}),
		scheduling.Group(),
		storage.Group(),
	}
	for i := range groups {
		groups[i].Virtuals = append(groups[i].Virtuals, o.Virtuals[groups[i].Name]...)
	}
	return groups, nil
}

// groups are those that the server serves.
func (s *Server) groups() ([]kind.Group, error) {
	o := GroupOptions{
		ServiceCIDRs: s.opts.ServiceCIDRs, NodePorts: s.opts.NodePorts, AllowLoopback: s.opts.unprivileged(), EventTTL: s.opts.EventTTL,
		Authenticator: s.tokenAuthenticator, Audiences: s.tokens.Audiences(), Authorizer: s.authorizer,
		Virtuals: map[string][]*kind.Virtual{"": {s.tokens.Virtual()}}, Clock: s.opts.Clock,
	}
	if s.rbac != nil {
		o.Rules, o.Policy = s.policy, s.rbac
	}
	groups, err := DefaultGroups(o)
	if err != nil {
		return nil, err
	}
	warnOfUnenforced(groups, s.opts.Enforced)
	return mergeGroups(groups, s.opts.Groups), nil
}

// mergeGroups adds own to defaults; a group of the same name is replaced.
func mergeGroups(defaults, own []kind.Group) []kind.Group {
	out := append([]kind.Group(nil), defaults...)
next:
	for _, g := range own {
		for i := range out {
			if out[i].Name == g.Name {
				out[i] = g
				continue next
			}
		}
		out = append(out, g)
	}
	return out
}
