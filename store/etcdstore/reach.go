package etcdstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

const (
	// reachTime bounds reach.
	reachTime = 2 * time.Second
	// refusedWithin is how soon a server that doesn't accept the client's certificate says so.
	refusedWithin = 200 * time.Millisecond
)

// unreachable is what New says when the client fails with err.
func unreachable(endpoints []string, opts Options, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		// The client goes on trying until its context ends, and then tells only that.
		if why := reach(endpoints, opts); why != nil {
			err = fmt.Errorf("%w: %w", err, why)
		}
	}
	return fmt.Errorf("etcdstore: connect to %s: %w", strings.Join(endpoints, ", "), err)
}

// reach returns why endpoints can't be connected to, nil if nothing is in the way.
func reach(endpoints []string, opts Options) error {
	ctx, cancel := context.WithTimeout(context.Background(), min(reachTime, opts.DialTimeout))
	defer cancel()
	errs := make(chan error, len(endpoints))
	for _, e := range endpoints {
		go func() {
			err := dial(ctx, e, opts.TLS)
			if err != nil {
				err = fmt.Errorf("%s: %w", e, err)
			}
			errs <- err
		}()
	}
	var all []error
	for range endpoints {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// dial tries to connect to an endpoint, written as etcd's client reads it. Sockets of the file system are not tried.
func dial(ctx context.Context, endpoint string, config *tls.Config) error {
	scheme, address, ok := strings.Cut(endpoint, "://")
	if !ok {
		scheme, address = "", endpoint
	}
	switch {
	case strings.HasPrefix(endpoint, "unix"):
		return nil
	case scheme != "https" && (scheme != "" || config == nil):
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(refusedWithin)); err != nil {
		return err
	}
	var timeout net.Error
	if _, err := conn.Read(make([]byte, 1)); err != nil && !(errors.As(err, &timeout) && timeout.Timeout()) {
		return err
	}
	return nil
}
