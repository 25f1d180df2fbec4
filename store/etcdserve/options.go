package etcdserve

import (
	"crypto/tls"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	"github.com/keelson/keelson/store"
)

// Options of New; the zero value is the default.
type Options struct {
	// TLS secures the connections; without it they are plain.
	TLS *tls.Config
	// Name of the one member, "default" if empty.
	Name string
	// ClientURLs are told to clients that ask for the members.
	ClientURLs []string
	// MaxRequestBytes bounds a request; 0 means 1.5 MiB.
	MaxRequestBytes int
	// MaxTxnOps bounds the operations of a transaction; 0 means 128.
	MaxTxnOps int
	// ProgressInterval is how often a watch that asked for it hears of progress when nothing
	// happens; 0 means 10 minutes.
	ProgressInterval time.Duration
	// TempDir is where a snapshot is put together; empty is the system's.
	TempDir string
	// Leases keeps what leases there are, of a durable store another one beside it that nobody else uses. Without it, a lease to which
	// no key was ever attached does not outlive a restart, because etcd's revision does not rise when one is granted, and
	// one that was revoked when it had no more keys may come back with a restart.
	Leases store.Store
	// Clock is for leases; nil is the real one.
	Clock clock.WithTicker
	// Logger gets what happens in the background; the zero Logger discards it.
	Logger logr.Logger
}

func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name = "default"
	}
	if o.MaxRequestBytes == 0 {
		o.MaxRequestBytes = 3 << 19
	}
	if o.MaxTxnOps == 0 {
		o.MaxTxnOps = 128
	}
	if o.ProgressInterval == 0 {
		o.ProgressInterval = 10 * time.Minute
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	return o
}

func (o Options) validate() error {
	switch {
	case o.MaxRequestBytes < 0:
		return fmt.Errorf("etcdserve: Options.MaxRequestBytes is %d, want at least 0", o.MaxRequestBytes)
	case o.MaxTxnOps < 0:
		return fmt.Errorf("etcdserve: Options.MaxTxnOps is %d, want at least 0", o.MaxTxnOps)
	case o.ProgressInterval < 0:
		return fmt.Errorf("etcdserve: Options.ProgressInterval is %v, want at least 0", o.ProgressInterval)
	}
	return nil
}
