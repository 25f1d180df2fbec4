package extender

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"

	"github.com/keelson/keelson/scheduler"
)

// Options of New.
type Options struct {
	// FilterVerb, PrioritizeVerb, PreemptVerb and BindVerb are appended to the URL; an empty one is not asked.
	FilterVerb, PrioritizeVerb, PreemptVerb, BindVerb string
	// Weight multiplies the scores of 0 to 10 that prioritize answers. At least 1 if PrioritizeVerb is set.
	Weight int64
	// HTTPS is to be used. Without a CA, certificates are not verified.
	HTTPS bool
	TLS   TLSOptions
	// Timeout of a call. Default 5s.
	Timeout time.Duration
	// NodeCacheCapable extenders are sent names of nodes and UIDs of pods in place of whole objects.
	NodeCacheCapable bool
	// ManagedResources are extended resources that the extender looks after: pods that ask for none of them are none of its business. Default:
	// all pods are.
	ManagedResources []corev1.ResourceName
	// Ignorable: pods are scheduled also while the extender fails.
	Ignorable bool
}

// TLSOptions of the connection. Data comes before files, which are read by New.
type TLSOptions struct {
	Insecure                  bool
	ServerName                string
	CertFile, KeyFile, CAFile string
	CertData, KeyData, CAData []byte
}

const (
	defaultTimeout = 5 * time.Second
	// maxAnswer is 100 kB for each of 5,000 nodes.
	maxAnswer = 500 << 20
)

// Extender is an HTTP service with a say in scheduling. Safe for concurrent use.
type Extender struct {
	url     string
	opts    Options
	managed map[corev1.ResourceName]bool
	client  *http.Client
}

var (
	_ scheduler.Extender  = (*Extender)(nil)
	_ scheduler.Preempter = (*Extender)(nil)
	_ scheduler.Binder    = (*Extender)(nil)
)

// New returns the extender at a URL. It makes no connection.
func New(at string, opts Options) (*Extender, error) {
	u, err := url.Parse(at)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("extender: URL %q: want http://host/path or https://host/path", at)
	}
	if opts.PrioritizeVerb != "" && opts.Weight <= 0 {
		return nil, fmt.Errorf("extender: Options.Weight %d: want 1 or more with a PrioritizeVerb", opts.Weight)
	}
	if opts.Timeout < 0 {
		return nil, fmt.Errorf("extender: Options.Timeout %v: want 0 or more", opts.Timeout)
	}
	if opts.Timeout == 0 {
		opts.Timeout = defaultTimeout
	}
	transport, err := newTransport(opts)
	if err != nil {
		return nil, fmt.Errorf("extender: Options.TLS: %w", err)
	}
	x := &Extender{
		url: strings.TrimRight(at, "/"), opts: opts, managed: map[corev1.ResourceName]bool{},
		client: &http.Client{Transport: transport, Timeout: opts.Timeout},
	}
	for _, r := range opts.ManagedResources {
		x.managed[r] = true
	}
	return x, nil
}

func newTransport(opts Options) (*http.Transport, error) {
	t := opts.TLS
	cfg := rest.Config{TLSClientConfig: rest.TLSClientConfig{
		Insecure: t.Insecure, ServerName: t.ServerName, CertFile: t.CertFile, KeyFile: t.KeyFile, CAFile: t.CAFile,
		CertData: t.CertData, KeyData: t.KeyData, CAData: t.CAData,
	}}
	if opts.HTTPS && t.CAFile == "" && len(t.CAData) == 0 {
		cfg.Insecure = true // as kube-scheduler does
	}
	tlsConfig, err := rest.TLSConfigFor(&cfg)
	if err != nil {
		return nil, err
	}
	return utilnet.SetTransportDefaults(&http.Transport{TLSClientConfig: tlsConfig}), nil
}

// Name is the URL.
func (x *Extender) Name() string { return x.url }

// Ignorable reports whether pods are scheduled also while the extender fails.
func (x *Extender) Ignorable() bool { return x.opts.Ignorable }

// Interested reports whether the pod asks for a resource that the extender manages, or it manages all.
func (x *Extender) Interested(pod *corev1.Pod) bool {
	return len(x.managed) == 0 || x.manages(pod.Spec.Containers) || x.manages(pod.Spec.InitContainers)
}

func (x *Extender) manages(containers []corev1.Container) bool {
	for i := range containers {
		for _, list := range []corev1.ResourceList{containers[i].Resources.Requests, containers[i].Resources.Limits} {
			for name := range list {
				if x.managed[name] {
					return true
				}
			}
		}
	}
	return false
}

// CloseIdleConnections closes the connections that no call uses.
func (x *Extender) CloseIdleConnections() { x.client.CloseIdleConnections() }

func (x *Extender) send(ctx context.Context, verb string, args, result any) error {
	body, err := json.Marshal(args)
	if err != nil {
		return err
	}
	at := x.url + "/" + verb
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := x.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("failed %v with extender at URL %v, code %v", verb, at, resp.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(result); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("answer of %s: %w", at, err)
	}
	return nil
}
