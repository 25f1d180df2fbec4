package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/boltstore"
	"github.com/keelson/keelson/store/etcdserve"
)

// serve keeps the leases of a store in a file in another file beside it.
func (c *command) serve(ctx context.Context) error {
	secured, err := c.server.server()
	if err != nil {
		return err
	}
	return c.with(ctx, true, func(s store.Store) (err error) {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.listen)
		if err != nil {
			return err
		}
		opts := etcdserve.Options{TLS: secured}
		if file, ok := strings.CutPrefix(c.store, "bolt="); ok {
			leases, err := boltstore.Open(file+".leases", boltstore.Options{})
			if err != nil {
				return errors.Join(err, l.Close())
			}
			defer func() { err = errors.Join(err, leases.Close()) }()
			opts.Leases = leases
		}
		url := "http://" + l.Addr().String()
		if secured != nil {
			url = "https://" + l.Addr().String()
		}
		opts.ClientURLs = []string{url}
		srv, err := etcdserve.New(s, opts)
		if err != nil {
			return errors.Join(err, l.Close())
		}
		fmt.Fprintln(c.out, "serving", url)
		return srv.Serve(ctx, l)
	})
}
