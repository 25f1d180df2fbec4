package kubelet

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

// Addr is where the server listens; nil before it does.
func (k *Kubelet) Addr() net.Addr {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.listener == nil {
		return nil
	}
	return k.listener.Addr()
}

// listen opens the server's port, and returns what serves on it.
func (k *Kubelet) listen(ctx context.Context) (func(context.Context) error, error) {
	config, err := k.tlsConfig()
	if err != nil {
		return nil, err
	}
	inner, err := (&net.ListenConfig{}).Listen(ctx, "tcp", k.opts.Listen)
	if err != nil {
		return nil, fmt.Errorf("kubelet: Options.Listen: %w", err)
	}
	l := &connListener{Listener: inner, conns: map[net.Conn]bool{}}
	k.mu.Lock()
	k.listener = inner
	k.mu.Unlock()
	return func(ctx context.Context) error {
		var handlers sync.WaitGroup
		handler := k.Handler()
		server := &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				handlers.Add(1)
				defer handlers.Done()
				handler.ServeHTTP(w, r)
			}),
			TLSConfig: config, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
			// Streams are upgraded connections, which HTTP/2 has none of.
			TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
			BaseContext:  func(net.Listener) context.Context { return ctx },
			ErrorLog:     log.New(logWriter{k}, "", 0),
		}
		ended := make(chan error, 1)
		go func() { ended <- server.ServeTLS(l, "", "") }()
		var err error
		select {
		case <-ctx.Done():
			_ = server.Close()
			if err = <-ended; errors.Is(err, http.ErrServerClosed) {
				err = ctx.Err()
			}
		case err = <-ended:
		}
		// Upgraded connections are no longer the server's: closing them ends their handlers.
		l.closeAll()
		handlers.Wait()
		return err
	}, nil
}

type logWriter struct{ k *Kubelet }

func (w logWriter) Write(b []byte) (int, error) {
	w.k.log.V(1).Info("HTTP server", "message", string(b))
	return len(b), nil
}

func (k *Kubelet) tlsConfig() (*tls.Config, error) {
	config := k.opts.TLS.Clone()
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if len(config.Certificates) == 0 && config.GetCertificate == nil && config.GetConfigForClient == nil {
		cert, err := k.selfSigned()
		if err != nil {
			return nil, fmt.Errorf("kubelet: serving certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	if k.opts.ClientCA != nil {
		config.ClientCAs, config.ClientAuth = k.opts.ClientCA, tls.VerifyClientCertIfGiven
	}
	return config, nil
}

func (k *Kubelet) selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "system:node:" + k.opts.NodeName, Organization: []string{"system:nodes"}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{k.opts.NodeName, k.opts.Hostname, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, ip := range k.opts.NodeIPs {
		template.IPAddresses = append(template.IPAddresses, ip.AsSlice())
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// connListener knows the connections it accepted, so that those that were hijacked can be closed too.
type connListener struct {
	net.Listener
	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

type trackedConn struct {
	net.Conn
	l *connListener
}

func (l *connListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	t := &trackedConn{c, l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	l.conns[t] = true
	return t, nil
}

func (c *trackedConn) Close() error {
	c.l.mu.Lock()
	delete(c.l.conns, c)
	c.l.mu.Unlock()
	return c.Conn.Close()
}

func (l *connListener) closeAll() {
	l.mu.Lock()
	l.closed = true
	list := make([]net.Conn, 0, len(l.conns))
	for c := range l.conns {
		list = append(list, c)
	}
	l.mu.Unlock()
	for _, c := range list {
		_ = c.Close()
	}
}
