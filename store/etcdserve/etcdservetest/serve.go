// Package etcdservetest serves stores to the etcd clients of tests:
//
//	url, _ := etcdservetest.Serve(t, s, etcdserve.Options{})
//	client, err := clientv3.New(clientv3.Config{Endpoints: []string{url}})
package etcdservetest

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/etcdserve"
)

// Serve serves s at a loopback address of its own, until the test ends or stop is called, which may be called more than once. An
// error of the server is one of the test. Options.ClientURLs, if empty, are the URL that is returned.
func Serve(t testing.TB, s store.Store, opts etcdserve.Options) (url string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	scheme := "http://"
	if opts.TLS != nil {
		scheme = "https://"
	}
	url = scheme + l.Addr().String()
	if len(opts.ClientURLs) == 0 {
		opts.ClientURLs = []string{url}
	}
	srv, err := etcdserve.New(s, opts)
	if err != nil {
		_ = l.Close()
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return url, stop
}
