package apiserver

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/clock"

	"github.com/keelson/keelson/apiserver/admission"
	"github.com/keelson/keelson/apiserver/kind"
)

// Admin is the user that may do everything, whatever the policy: a member of system:masters.
var Admin user.Info = &user.DefaultInfo{Name: "kubernetes-admin", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}

// PortRange is an inclusive range of ports.
type PortRange struct{ First, Last int32 }

// Registry takes metrics and gives them out again at /metrics; a *prometheus.Registry is one.
type Registry interface {
	prometheus.Registerer
	prometheus.Gatherer
}

// Options of a Server. The zero value is a server that listens nowhere.
type Options struct {
	// Dir is where the certificate authority and the key of service-account tokens are kept. Empty keeps them in memory:
	// then credentials are good until the server stops.
	Dir string

	// Listen are TCP addresses to serve TLS on (127.0.0.1:6443; port 0 for any). Listeners are sockets already open, which Run closes.
	Listen    []string
	Listeners []net.Listener
	// AdvertiseAddress and AdvertisePort are what the endpoints of the kubernetes Service name. The default is the first listener's
	// address that is not loopback, or that of a network interface if it is unspecified. Without such a listener the Service has no
	// endpoints, unless the cluster lives on loopback addresses itself.
	AdvertiseAddress netip.Addr
	AdvertisePort    int32
	// ServerNames are further names and addresses of the serving certificate.
	ServerNames []string

	// ServiceCIDRs are the Service ranges: one, or one of each IP family. Default 10.96.0.0/12. A range in 127/8 makes a
	// cluster without privilege, whose pods may have loopback addresses.
	ServiceCIDRs []netip.Prefix
	// NodePorts default to 30000 to 32767.
	NodePorts PortRange
	// ClusterDomain is the suffix of Services' names. Default cluster.local.
	ClusterDomain string

	// Enforced names resources that something beside Keelson acts on: "networkpolicies", "horizontalpodautoscalers". Without it,
	// clients that write them are warned that nothing does.
	Enforced []string

	// Groups are served beside those of DefaultGroups; one of the same name replaces it.
	Groups []kind.Group
	// Admission plugins run after those of package admission. DisableAdmission and EnableAdmission switch plugins by name
	// (ServiceAccount, LimitRanger), where the default is not wanted.
	Admission                         []admission.Plugin
	DisableAdmission, EnableAdmission []string

	// Authenticator is asked before the server's own, which know client certificates of its authority and service-account tokens.
	Authenticator authenticator.Request
	// Tokens are static bearer tokens and whom they stand for.
	Tokens map[string]user.Info
	// Authorizer replaces RBAC. Members of system:masters are not subject to it.
	Authorizer authorizer.UnconditionalAuthorizer
	// ServiceAccountIssuer and ServiceAccountAudiences are those of service-account tokens. Default
	// https://kubernetes.default.svc.CLUSTERDOMAIN, and the issuer.
	ServiceAccountIssuer    string
	ServiceAccountAudiences []string

	// KubeletCAs verifies the serving certificates of kubelets. Without it they are not verified, as those of kube-apiserver without
	// --kubelet-certificate-authority.
	KubeletCAs *x509.CertPool

	// MaxRequestsInFlight and MaxMutatingRequestsInFlight bound what is served at one time, watches aside; more are answered with 429. 0: no bound.
	MaxRequestsInFlight, MaxMutatingRequestsInFlight int
	// RequestTimeout bounds requests that are not watches or streams. Default 60 s.
	RequestTimeout time.Duration
	// ShutdownTimeout is what running requests get to end when Run is told to. Default 5 s.
	ShutdownTimeout time.Duration
	// EventTTL is how long Events are kept. Default one hour.
	EventTTL time.Duration

	Clock clock.WithTicker
	// Logger discards by default.
	Logger logr.Logger
	// Metrics default to a registry of the server's own.
	Metrics Registry
}

func (o Options) withDefaults() Options {
	if len(o.ServiceCIDRs) == 0 {
		o.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}
	}
	if o.NodePorts == (PortRange{}) {
		o.NodePorts = PortRange{30000, 32767}
	}
	if o.ClusterDomain == "" {
		o.ClusterDomain = "cluster.local"
	}
	if o.ServiceAccountIssuer == "" {
		o.ServiceAccountIssuer = "https://kubernetes.default.svc." + o.ClusterDomain
	}
	if o.RequestTimeout == 0 {
		o.RequestTimeout = 60 * time.Second
	}
	if o.ShutdownTimeout == 0 {
		o.ShutdownTimeout = 5 * time.Second
	}
	if o.EventTTL == 0 {
		o.EventTTL = time.Hour
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	if o.Metrics == nil {
		o.Metrics = prometheus.NewRegistry()
	}
	return o
}

func (o Options) validate() error {
	bad := func(field string, value any, want string) error {
		return fmt.Errorf("apiserver: Options.%s: %v: expected %s", field, value, want)
	}
	for i, p := range o.ServiceCIDRs {
		if !p.IsValid() || p.Masked() != p {
			return bad("ServiceCIDRs", p, "prefixes without host bits")
		}
		if i == 1 && p.Addr().Is4() == o.ServiceCIDRs[0].Addr().Is4() || i > 1 {
			return bad("ServiceCIDRs", o.ServiceCIDRs, "one prefix, or one of each IP family")
		}
	}
	if o.NodePorts.First < 1 || o.NodePorts.Last > 65535 || o.NodePorts.First > o.NodePorts.Last {
		return bad("NodePorts", o.NodePorts, "a range within 1 to 65535")
	}
	for _, r := range o.Enforced {
		if _, ok := unenforced()[r]; !ok {
			return bad("Enforced", r, `"networkpolicies" or "horizontalpodautoscalers"`)
		}
	}
	if o.AdvertisePort < 0 || o.AdvertisePort > 65535 {
		return bad("AdvertisePort", o.AdvertisePort, "a port")
	}
	for name, d := range map[string]time.Duration{"RequestTimeout": o.RequestTimeout, "ShutdownTimeout": o.ShutdownTimeout, "EventTTL": o.EventTTL} {
		if d < 0 {
			return bad(name, d, "a positive duration")
		}
	}
	if o.MaxRequestsInFlight < 0 || o.MaxMutatingRequestsInFlight < 0 {
		return bad("MaxRequestsInFlight", o.MaxRequestsInFlight, "numbers that are not negative")
	}
	for t, u := range o.Tokens {
		if t == "" || u == nil || u.GetName() == "" {
			return bad("Tokens", "a token", "tokens and users that are not empty")
		}
	}
	return nil
}

// unprivileged reports whether the cluster lives on loopback addresses.
func (o Options) unprivileged() bool { return o.ServiceCIDRs[0].Addr().IsLoopback() }
