package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
)

// tlsFiles are the files that a server, or a client, uses.
type tlsFiles struct {
	ca, cert, key string
	// verify makes a server refuse clients without a certificate of the authority.
	verify bool
}

// serverFlags has etcd's names, and so has clientFlags etcdctl's.
func (f *tlsFiles) serverFlags(fs *flag.FlagSet) {
	fs.StringVar(&f.cert, "cert-file", "", "certificate to serve with, which is read again for every connection")
	fs.StringVar(&f.key, "key-file", "", "its key")
	fs.StringVar(&f.ca, "trusted-ca-file", "", "authority of the certificates of clients")
	fs.BoolVar(&f.verify, "client-cert-auth", false, "refuse clients without a certificate of the authority")
}

func (f *tlsFiles) clientFlags(fs *flag.FlagSet) {
	fs.StringVar(&f.ca, "cacert", "", "authority of the certificate of an etcd; the system's if empty")
	fs.StringVar(&f.cert, "cert", "", "certificate to show to an etcd")
	fs.StringVar(&f.key, "key", "", "its key")
}

// pair returns what loads the certificate, nil if there is none.
func (f tlsFiles) pair() (func() (*tls.Certificate, error), error) {
	if (f.cert == "") != (f.key == "") {
		return nil, errors.New("there is a certificate without its key, or a key without its certificate")
	}
	if f.cert == "" {
		return nil, nil
	}
	load := func() (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(f.cert, f.key)
		return &c, err
	}
	_, err := load()
	return load, err
}

func (f tlsFiles) pool() (*x509.CertPool, error) {
	if f.ca == "" {
		return nil, nil
	}
	b, err := os.ReadFile(f.ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s has no certificate", f.ca)
	}
	return pool, nil
}

// server returns the configuration of a server, nil for one without TLS.
func (f tlsFiles) server() (*tls.Config, error) {
	load, err := f.pair()
	if err != nil {
		return nil, err
	}
	pool, err := f.pool()
	if err != nil {
		return nil, err
	}
	switch {
	case load == nil && (pool != nil || f.verify):
		return nil, errors.New("-trusted-ca-file and -client-cert-auth need -cert-file and -key-file")
	case f.verify && pool == nil:
		return nil, errors.New("-client-cert-auth needs -trusted-ca-file")
	case load == nil:
		return nil, nil
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS12, ClientCAs: pool,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return load() },
	}
	if pool != nil {
		c.ClientAuth = tls.VerifyClientCertIfGiven
	}
	if f.verify {
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}

// client returns the configuration of a client, nil if no flag says anything.
func (f tlsFiles) client() (*tls.Config, error) {
	load, err := f.pair()
	if err != nil {
		return nil, err
	}
	pool, err := f.pool()
	if err != nil || load == nil && pool == nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	if load != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return c, nil
}
