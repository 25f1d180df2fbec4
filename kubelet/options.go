package kubelet

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/clock"
)

// Options configure a Kubelet. The zero value runs on the machine it finds itself on.
type Options struct {
	// NodeName is the node's name. Default: the machine's host name.
	NodeName string
	// Clock tells the time. Default: the machine's.
	Clock clock.WithTicker
	// Logger takes the log. Default: nothing is logged.
	Logger logr.Logger
	// Metrics takes the kubelet's metrics, under Kubernetes' names. Default: none are kept but for the server's own page.
	Metrics prometheus.Registerer
	// Gatherer is what /metrics serves beside the kubelet's own. Default: nothing.
	Gatherer prometheus.Gatherer

	// RootDir holds pods' volumes and logs. Default: /var/lib/kubelet. An absolute path is expected.
	RootDir string
	// Pods hands out the node's pods; one Dispatcher can serve many kubelets of a process. Default: one of the kubelet's own.
	Pods *Dispatcher
	// Simulated says that the runtime runs nothing: no volume, file, environment or log is made.
	Simulated bool

	// DisableEvents leaves events unrecorded: in large simulations they are most of what a cluster stores.
	DisableEvents bool

	// NodeLabels and NodeTaints are given to the node when it registers.
	NodeLabels map[string]string
	NodeTaints []corev1.Taint
	ProviderID string
	// NodeIPs are the node's addresses, the primary one first. Default: the first address of the machine that isn't loopback, or else 127.0.0.1.
	NodeIPs []netip.Addr
	// Hostname is the machine's. Default: os.Hostname.
	Hostname string
	// Capacity overrides what the machine is found to have, resource by resource.
	Capacity corev1.ResourceList
	// Reserved is taken off the capacity before pods are given any.
	Reserved corev1.ResourceList
	// MaxPods is how many pods the node takes. Default: 110.
	MaxPods int64
	// Version is shown as the kubelet's. Default: v1.37.0+keelson.
	Version string

	// ClusterDNS and ClusterDomain are how pods resolve names. Default of ClusterDomain: cluster.local.
	ClusterDNS    []string
	ClusterDomain string
	// ResolvConf is the node's own. Default: /etc/resolv.conf.
	ResolvConf string
	// CgroupParent is under which cgroup the runtime puts pods, each in its own. Default: where the runtime likes.
	CgroupParent string

	// Listen is where the HTTPS server listens. Default: 127.0.0.1:0.
	Listen string
	// DisableServer leaves the server out.
	DisableServer bool
	// TLS serves with these certificates. Default: a self-signed one, made anew.
	TLS *tls.Config
	// ClientCA verifies clients' certificates. Default: clients prove themselves by bearer tokens only, through TokenReviews.
	ClientCA *x509.CertPool
	// Authorizer decides what a client may do. Default: SubjectAccessReviews through the kubelet's client, cached for a while.
	Authorizer authorizer.UnconditionalAuthorizer

	// AllowedUnsafeSysctls are what pods may set beside the safe ones; one that ends in * is a prefix. Default: none.
	AllowedUnsafeSysctls []string

	// ContainerLogMaxSize, in bytes, and ContainerLogMaxFiles bound a container's logs. Default: 10 MiB and 5.
	ContainerLogMaxSize  int64
	ContainerLogMaxFiles int
	// ParallelPulls is how many images are pulled at once. Default: 4.
	ParallelPulls int
	// ImageGCThreshold is the percentage of the image file system in use from which unused images are removed; 100 never. Default: 85.
	ImageGCThreshold int
	// RelistPeriod is how often a runtime without EventService is asked what runs. Default: one second.
	RelistPeriod time.Duration
	// NodeStatusPeriod is how often the node's status is looked at and its Lease renewed. Default: 10 seconds.
	NodeStatusPeriod time.Duration
	// LeaseDuration is how long the node counts as alive after a renewal. Default: 40 seconds.
	LeaseDuration time.Duration
	// SyncPeriod is how often volumes made of API objects are brought up to date. Default: one minute.
	SyncPeriod time.Duration
	// Workers is how many pods are worked on at once. Default: 16.
	Workers int
}

func (o Options) withDefaults() (Options, error) {
	if o.Hostname == "" {
		h, err := os.Hostname()
		if err != nil {
			return o, fmt.Errorf("kubelet: Options.Hostname is empty and the machine's can't be had: %w", err)
		}
		o.Hostname = strings.ToLower(h)
	}
	if o.NodeName == "" {
		o.NodeName = o.Hostname
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	str := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	str(&o.RootDir, "/var/lib/kubelet")
	str(&o.Version, "v1.37.0+keelson")
	str(&o.ClusterDomain, "cluster.local")
	str(&o.ResolvConf, "/etc/resolv.conf")
	str(&o.Listen, "127.0.0.1:0")
	if len(o.NodeIPs) == 0 {
		o.NodeIPs = []netip.Addr{machineIP()}
	}
	setDefault(&o.MaxPods, 110)
	setDefault(&o.ContainerLogMaxSize, 10<<20)
	setDefault(&o.ContainerLogMaxFiles, 5)
	setDefault(&o.ParallelPulls, 4)
	setDefault(&o.ImageGCThreshold, 85)
	setDefault(&o.RelistPeriod, time.Second)
	setDefault(&o.NodeStatusPeriod, 10*time.Second)
	setDefault(&o.LeaseDuration, 40*time.Second)
	setDefault(&o.SyncPeriod, time.Minute)
	setDefault(&o.Workers, 16)
	return o, nil
}

func setDefault[T int | int64 | time.Duration](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}

func (o Options) validate() error {
	if errs := validation.IsDNS1123Subdomain(o.NodeName); len(errs) > 0 {
		return fmt.Errorf("kubelet: Options.NodeName is %q, expected a DNS subdomain: %s", o.NodeName, strings.Join(errs, "; "))
	}
	if !filepath.IsAbs(o.RootDir) {
		return fmt.Errorf("kubelet: Options.RootDir is %q, expected an absolute path", o.RootDir)
	}
	for name, v := range map[string]int64{
		"MaxPods": o.MaxPods, "ContainerLogMaxSize": o.ContainerLogMaxSize, "ContainerLogMaxFiles": int64(o.ContainerLogMaxFiles) - 1,
		"ParallelPulls": int64(o.ParallelPulls), "RelistPeriod": int64(o.RelistPeriod), "NodeStatusPeriod": int64(o.NodeStatusPeriod), "LeaseDuration": int64(o.LeaseDuration),
		"SyncPeriod": int64(o.SyncPeriod), "Workers": int64(o.Workers),
	} {
		if v <= 0 {
			return fmt.Errorf("kubelet: Options.%s is too small, expected more than 0 (more than 1 for ContainerLogMaxFiles)", name)
		}
	}
	if o.ImageGCThreshold < 1 || o.ImageGCThreshold > 100 {
		return fmt.Errorf("kubelet: Options.ImageGCThreshold is %d, expected a percentage from 1 to 100", o.ImageGCThreshold)
	}
	if o.LeaseDuration <= o.NodeStatusPeriod {
		return fmt.Errorf("kubelet: Options.LeaseDuration is %v, expected more than NodeStatusPeriod, which is %v", o.LeaseDuration, o.NodeStatusPeriod)
	}
	for _, s := range o.ClusterDNS {
		if _, err := netip.ParseAddr(s); err != nil {
			return fmt.Errorf("kubelet: Options.ClusterDNS has %q, expected addresses: %w", s, err)
		}
	}
	return nil
}
