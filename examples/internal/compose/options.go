package compose

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
	"github.com/keelson/keelson/store"
)

// Addresses of a cluster whose pods have network namespaces, and of one without privilege, whose addresses are the host's loopback ones.
var (
	privileged   = addresses{service: prefix("10.96.0.0/12"), pods: prefix("10.244.0.0/16"), dns: addr("10.96.0.10")}
	unprivileged = addresses{service: prefix("127.96.0.0/16"), pods: prefix("127.64.0.0/16"), dns: addr("127.96.0.10")}
)

type addresses struct {
	service, pods netip.Prefix
	dns           netip.Addr
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

const domain = "cluster.local"

// Options of New. Only Store and Dir are required.
type Options struct {
	Store store.Store
	// Dir holds everything but the store: keys, and below it the nodes' state.
	Dir string
	// Listen is where the API server serves. Default 127.0.0.1:0.
	Listen []string
	// Nodes is how many nodes the process runs, named node-1, node-2, ….
	Nodes int
	// Runtime is auto, process, cri=SOCKET or fake. Proxy is auto, nft, user or none.
	Runtime, Proxy string
	// KillPods ends the pods with the process; otherwise the next one on the same Dir adopts them.
	KillPods    bool
	NoScheduler bool
	// NodeGracePeriod is how long a node may show no life. Default: Kubernetes', 50s.
	NodeGracePeriod  time.Duration
	NoControllers    bool
	DisableAdmission []string
	// Profile of the scheduler. Default plugins.Default().
	Profile scheduler.Profile
	Logger  logr.Logger
}

func (o Options) withDefaults() Options {
	if len(o.Listen) == 0 {
		o.Listen = []string{"127.0.0.1:0"}
	}
	if o.Runtime == "" {
		o.Runtime = "auto"
	}
	if o.Proxy == "" {
		o.Proxy = "auto"
	}
	if o.Profile == nil {
		o.Profile = plugins.Default()
	}
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	return o
}

func (o Options) validate() error {
	switch {
	case o.Store == nil:
		return fmt.Errorf("store: want one")
	case o.Dir == "":
		return fmt.Errorf("data directory: want one")
	case o.Nodes < 0:
		return fmt.Errorf("nodes: %d: want 0 or more", o.Nodes)
	}
	switch r := o.Runtime; {
	case r == "auto", r == "process", r == "fake", strings.HasPrefix(r, "cri=") && len(r) > 4:
	default:
		return fmt.Errorf("runtime: %q: want auto, process, cri=SOCKET or fake", r)
	}
	switch o.Proxy {
	case "auto", "nft", "user", "none":
	default:
		return fmt.Errorf("proxy: %q: want auto, nft, user or none", o.Proxy)
	}
	return nil
}
