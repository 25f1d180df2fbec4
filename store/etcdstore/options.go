package etcdstore

import (
	"crypto/tls"
	"fmt"
	"time"

	"github.com/go-logr/logr"
)

// Options of New; the zero value is the default.
type Options struct {
	// Prefix is put before every key, for example "/keelson". Stores with prefixes of which
	// none begins with another can share an etcd.
	Prefix string
	// TLS is used for https endpoints: its roots to verify the servers, its certificate
	// to authenticate as a client.
	TLS *tls.Config
	// Username and Password authenticate if etcd's authentication is on.
	Username, Password string
	// DialTimeout bounds New, and the getting of tokens; 0 means 5 seconds.
	DialTimeout time.Duration
	// KeepAlive is how often an idle connection is probed, and how long an answer may take
	// before the next endpoint is tried; 0 means 10 seconds.
	KeepAlive time.Duration
	// WatchLog is how many events are kept in memory for watchers; 0 means 16384. Watchers that
	// are further behind read from etcd.
	WatchLog int
	// Logger gets what happens in the background; the zero Logger discards it.
	Logger logr.Logger
}

func (o Options) withDefaults() Options {
	if o.DialTimeout == 0 {
		o.DialTimeout = 5 * time.Second
	}
	if o.KeepAlive == 0 {
		o.KeepAlive = 10 * time.Second
	}
	if o.WatchLog == 0 {
		o.WatchLog = 16384
	}
	return o
}

func (o Options) validate(endpoints []string) error {
	switch {
	case len(endpoints) == 0:
		return fmt.Errorf("etcdstore: there are no endpoints, want at least one URL")
	case o.DialTimeout < 0:
		return fmt.Errorf("etcdstore: Options.DialTimeout is %v, want at least 0", o.DialTimeout)
	case o.KeepAlive < 0:
		return fmt.Errorf("etcdstore: Options.KeepAlive is %v, want at least 0", o.KeepAlive)
	case o.WatchLog < 0:
		return fmt.Errorf("etcdstore: Options.WatchLog is %d, want at least 0", o.WatchLog)
	case o.Username == "" && o.Password != "":
		return fmt.Errorf("etcdstore: Options.Password is set and Options.Username is not")
	}
	return nil
}
