package processruntime

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	"github.com/keelson/keelson/cni"
)

// Isolation is how much containers are separated from the machine.
type Isolation string

const (
	// IsolationAuto takes the most that the machine permits.
	IsolationAuto Isolation = ""
	// IsolationNamespaces needs root.
	IsolationNamespaces Isolation = "namespaces"
	// IsolationUserNS needs unprivileged user namespaces.
	IsolationUserNS Isolation = "userns"
	// IsolationNone needs nothing.
	IsolationNone Isolation = "none"
)

// Options for New. Root is required.
type Options struct {
	// Root is the directory for images and state, absolute. It is made if it isn't there.
	Root string
	// Network attaches pods that don't use the node's network. Nil leaves every pod on the node's network. A Network
	// with a method NeedsNetNS() bool that answers false gives addresses without network namespaces (loopback
	// addresses, say); it is the only kind that works without root.
	Network cni.Network
	// Isolation is the level to use; the default is the best there is. New fails if the machine does not permit it.
	Isolation Isolation
	// Snapshotter is "overlay" or "copy"; the default is overlay where it works.
	Snapshotter string
	// DisableCgroups leaves limits unset and measures by /proc even where cgroups are writable.
	DisableCgroups bool
	// InitPath is a binary that calls Init; the default is this program.
	InitPath string
	// StreamAddr is where exec, attach and port-forward connections are served. The default is a free port of 127.0.0.1.
	StreamAddr string
	// InsecureRegistries are spoken to without TLS, as host or host:port. Registries on this machine always are.
	InsecureRegistries []string
	// RegistryTransport replaces the HTTP transport to registries.
	RegistryTransport http.RoundTripper
	// PidsLimit bounds the processes of each container where cgroups are writable; zero sets no limit.
	PidsLimit int64
	// KeepWildcardBinds leaves processes alone that listen on all addresses. Otherwise those of a pod that has an
	// address but no network namespace get the pod's address instead, so that several replicas can listen on one port.
	KeepWildcardBinds bool
	// KillOnClose ends all pods with Close, and when this program ends in any other way.
	KillOnClose bool
	// StartTimeout bounds the start of a helper. The default is 30 seconds.
	StartTimeout time.Duration

	Logger logr.Logger
	Clock  clock.PassiveClock
}

func (o Options) withDefaults() Options {
	if o.StreamAddr == "" {
		o.StreamAddr = "127.0.0.1:0"
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 30 * time.Second
	}
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	return o
}

func (o Options) validate() error {
	bad := func(field, format string, args ...any) error {
		return fmt.Errorf("processruntime: Options.%s %s", field, fmt.Sprintf(format, args...))
	}
	if !filepath.IsAbs(o.Root) {
		return bad("Root", "is %q, want an absolute directory", o.Root)
	}
	if strings.ContainsAny(o.Root, ",:\\\n") {
		return bad("Root", "is %q, want a path without comma, colon, backslash and newline (they separate overlay options)", o.Root)
	}
	switch o.Isolation {
	case IsolationAuto, IsolationNamespaces, IsolationUserNS, IsolationNone:
	default:
		return bad("Isolation", "is %q, want namespaces, userns, none or nothing", o.Isolation)
	}
	switch o.Snapshotter {
	case "", "overlay", "copy":
	default:
		return bad("Snapshotter", "is %q, want overlay, copy or nothing", o.Snapshotter)
	}
	if o.InitPath != "" && !filepath.IsAbs(o.InitPath) {
		return bad("InitPath", "is %q, want an absolute path", o.InitPath)
	}
	if _, _, err := net.SplitHostPort(o.StreamAddr); err != nil {
		return bad("StreamAddr", "is %q, want host:port: %v", o.StreamAddr, err)
	}
	if o.StartTimeout < 0 {
		return bad("StartTimeout", "is %v, want a positive duration", o.StartTimeout)
	}
	if o.PidsLimit < 0 {
		return bad("PidsLimit", "is %d, want zero or more", o.PidsLimit)
	}
	return nil
}
