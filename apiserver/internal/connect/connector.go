package connect

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/internal/httpapi"
)

// DefaultKubeletPort is where a kubelet serves that reports no port.
const DefaultKubeletPort = 10250

// Options of a Connector. Reader is required.
type Options struct {
	// Reader of pods, services, endpoint slices and nodes.
	Reader client.Reader
	// KubeletTLS is the client side of connections to kubelets: the API server's certificate and whom to trust. It is cloned.
	KubeletTLS *tls.Config
	// AllowLoopback lets pods and services be proxied to that have loopback addresses, as they have on nodes without privilege.
	AllowLoopback bool
	Logger        logr.Logger
}

// Connector serves the subresources. Close releases its idle connections.
type Connector struct {
	opts    Options
	kubelet *http.Transport
	other   *http.Transport
}

// New returns a connector.
func New(o Options) (*Connector, error) {
	if o.Reader == nil {
		return nil, fmt.Errorf("connect: Options.Reader: expected a reader")
	}
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	if o.KubeletTLS == nil {
		o.KubeletTLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	o.KubeletTLS = o.KubeletTLS.Clone()
	o.KubeletTLS.NextProtos = []string{"http/1.1"} // what is to be upgraded can't be HTTP/2
	c := &Connector{opts: o}
	c.kubelet = newTransport(o.KubeletTLS)
	// What runs in pods has certificates of its own making.
	c.other = newTransport(&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	return c, nil
}

func newTransport(cfg *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       cfg,
		TLSHandshakeTimeout:   10 * time.Second,
		MaxIdleConnsPerHost:   25,
		IdleConnTimeout:       30 * time.Second,
		DisableCompression:    true,
		ResponseHeaderTimeout: 0,
	}
}

// Close closes idle connections; those in use end with their requests.
func (c *Connector) Close() {
	c.kubelet.CloseIdleConnections()
	c.other.CloseIdleConnections()
}

var (
	execVerbs  = []string{"create", "get"}
	proxyVerbs = []string{"create", "delete", "get", "patch", "update"}
)

// Connects declares the subresources.
func (c *Connector) Connects() []httpapi.Connect {
	return []httpapi.Connect{
		{Resource: "pods", Subresource: "log", Kind: "Pod", Verbs: []string{"get"}, Serve: c.log},
		{Resource: "pods", Subresource: "exec", Kind: "PodExecOptions", Verbs: execVerbs, Upgrade: true, Serve: c.remoteCommand},
		{Resource: "pods", Subresource: "attach", Kind: "PodAttachOptions", Verbs: execVerbs, Upgrade: true, Serve: c.remoteCommand},
		{Resource: "pods", Subresource: "portforward", Kind: "PodPortForwardOptions", Verbs: execVerbs, Upgrade: true, Serve: c.portForward},
		{Resource: "pods", Subresource: "proxy", Kind: "PodProxyOptions", Verbs: proxyVerbs, Serve: c.proxy},
		{Resource: "services", Subresource: "proxy", Kind: "ServiceProxyOptions", Verbs: proxyVerbs, Serve: c.proxy},
		{Resource: "nodes", Subresource: "proxy", Kind: "NodeProxyOptions", Verbs: proxyVerbs, Serve: c.proxy},
	}
}

func (c *Connector) pod(ctx context.Context, r httpapi.ConnectRequest) (*corev1.Pod, error) {
	p := &corev1.Pod{}
	return p, c.opts.Reader.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: r.Name}, p)
}

// kubeletAddress returns host:port of a node's kubelet.
func (c *Connector) kubeletAddress(ctx context.Context, name string) (string, error) {
	node := &corev1.Node{}
	if err := c.opts.Reader.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
		return "", err
	}
	host, err := nodeHost(node)
	if err != nil {
		return "", err
	}
	port := int(node.Status.DaemonEndpoints.KubeletEndpoint.Port)
	if port == 0 {
		port = DefaultKubeletPort
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

// nodeHost prefers the address that needs no name service.
func nodeHost(node *corev1.Node) (string, error) {
	for _, t := range []corev1.NodeAddressType{
		corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeInternalDNS, corev1.NodeExternalDNS, corev1.NodeHostName,
	} {
		for _, a := range node.Status.Addresses {
			if a.Type == t && a.Address != "" {
				return a.Address, nil
			}
		}
	}
	return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no preferred addresses found; known addresses: %v", node.Status.Addresses))
}
