package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keelson/keelson/apiserver/auth/ca"
)

// certificates writes what an authority signs into a directory, under names that begin with prefix.
func certificates(t *testing.T, dir, prefix string) {
	t.Helper()
	authority, err := ca.New(ca.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server, err := authority.Serving("etcd", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	client, err := authority.Client("somebody")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"ca.crt": authority.CertificatePEM(), "server.crt": server.CertificatePEM, "server.key": server.KeyPEM,
		"client.crt": client.CertificatePEM, "client.key": client.KeyPEM,
	} {
		if err := os.WriteFile(filepath.Join(dir, prefix+name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// start serves a store in memory until the test ends, and returns its URL.
func start(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"serve", "-store", "memory", "-listen", "127.0.0.1:0"}, args...), nil, pw, io.Discard)
		pw.CloseWithError(errors.Join(io.EOF, err))
		done <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	buf := make([]byte, 100)
	n, err := pr.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	_, url, _ := strings.Cut(strings.TrimSpace(string(buf[:n])), " ")
	return url
}

func TestMutualTLS(t *testing.T) {
	dir := t.TempDir()
	certificates(t, dir, "")
	certificates(t, dir, "other-")
	file := func(name string) string { return filepath.Join(dir, name) }
	url := start(t, "-cert-file", file("server.crt"), "-key-file", file("server.key"), "-trusted-ca-file", file("ca.crt"), "-client-cert-auth")
	if !strings.HasPrefix(url, "https://") {
		t.Fatalf("it serves %s", url)
	}
	put := func(url string, args ...string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		return run(ctx, append(append([]string{"put", "-store", "etcd=" + url}, args...), "/a", "1"), nil, io.Discard, io.Discard)
	}
	if err := put(url, "-cacert", file("ca.crt"), "-cert", file("client.crt"), "-key", file("client.key")); err != nil {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for what, try := range map[string]func() error{
		"a client without a certificate": func() error { return put(url, "-cacert", file("ca.crt")) },
		"a certificate of another authority": func() error {
			return put(url, "-cacert", file("ca.crt"), "-cert", file("other-client.crt"), "-key", file("other-client.key"))
		},
		"the server's certificate as a client's": func() error {
			return put(url, "-cacert", file("ca.crt"), "-cert", file("server.crt"), "-key", file("server.key"))
		},
		"a client that trusts another authority": func() error {
			return put(url, "-cacert", file("other-ca.crt"), "-cert", file("client.crt"), "-key", file("client.key"))
		},
		"a client without TLS": func() error { return put("http" + strings.TrimPrefix(url, "https")) },
	} {
		wg.Go(func() {
			if try() == nil {
				t.Errorf("%s is accepted", what)
			}
		})
	}
	wg.Wait()
	// A new certificate is used by the next connection.
	certificates(t, dir, "new-")
	for _, name := range []string{"server.crt", "server.key"} {
		if err := os.Rename(file("new-"+name), file(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(url, "-cacert", file("new-ca.crt"), "-cert", file("client.crt"), "-key", file("client.key")); err != nil {
		t.Errorf("after the certificate has changed: %v", err)
	}
}

func TestTLSFlags(t *testing.T) {
	dir := t.TempDir()
	certificates(t, dir, "")
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, args := range [][]string{
		{"-cert-file", file("server.crt")},
		{"-cert-file", file("server.crt"), "-key-file", file("client.key")},
		{"-client-cert-auth"},
		{"-trusted-ca-file", file("ca.crt")},
		{"-cert-file", file("server.crt"), "-key-file", file("server.key"), "-client-cert-auth"},
		{"-cert-file", file("server.crt"), "-key-file", file("server.key"), "-trusted-ca-file", file("ca.key")},
		{"-cert-file", file("absent"), "-key-file", file("absent")},
	} {
		refused(t, append([]string{"serve", "-store", "memory", "-listen", "127.0.0.1:0"}, args...)...)
	}
	refused(t, "get", "-store", "etcd=https://127.0.0.1:1", "-cert", file("client.crt"), "/a")
	// Without verification a certificate may be left out.
	url := start(t, "-cert-file", file("server.crt"), "-key-file", file("server.key"))
	ctl(t, "put", "-store", "etcd="+url, "-cacert", file("ca.crt"), "/a", "1")
}
