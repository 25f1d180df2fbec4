package connect

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/internal/httpapi"
)

// proxy passes HTTP requests on to a pod, service or node.
func (c *Connector) proxy(w http.ResponseWriter, r *http.Request, cr httpapi.ConnectRequest) error {
	if cr.Path == "" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		// Relative links of what is behind must resolve below the proxy's path.
		to := r.URL.Path + "/"
		if r.URL.RawQuery != "" {
			to += "?" + r.URL.RawQuery
		}
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusMovedPermanently)
		return nil
	}
	scheme, name, port, valid := utilnet.SplitSchemeNamePort(cr.Name)
	if !valid {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid %s request %q", strings.TrimSuffix(cr.Resource, "s"), cr.Name))
	}
	target, transport, err := c.resolve(r.Context(), cr, scheme, name, port)
	if err != nil {
		return err
	}
	prefix := strings.TrimSuffix(r.URL.Path, cr.Path)
	target.Path, target.RawQuery = cr.Path, r.URL.RawQuery
	if target.Path == "" {
		target.Path = "/"
	}
	var failed error
	p := &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1,
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL, pr.Out.Host = target, target.Host
			pr.Out.Header.Set("X-Forwarded-Uri", prefix+target.Path)
			pr.Out.Header.Set("X-Forwarded-Host", r.Host)
			proto := "http"
			if r.TLS != nil {
				proto = "https"
			}
			pr.Out.Header.Set("X-Forwarded-Proto", proto)
			pr.Out.Header.Del("Accept-Encoding") // links can only be rewritten in what can be read
		},
		ModifyResponse: func(resp *http.Response) error { return rewriteResponse(resp, target, prefix) },
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) {
			failed = apierrors.NewServiceUnavailable(fmt.Sprintf("error trying to reach service: %v", err))
			if r.Context().Err() != nil {
				failed = r.Context().Err()
			}
		},
	}
	p.ServeHTTP(w, r)
	return failed
}

// resolve finds where to send a request.
func (c *Connector) resolve(ctx context.Context, cr httpapi.ConnectRequest, scheme, name, port string) (*url.URL, *http.Transport, error) {
	if scheme == "" {
		scheme = "http"
	}
	var host string
	switch cr.Resource {
	case "nodes":
		node := &corev1.Node{}
		if err := c.opts.Reader.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
			return nil, nil, err
		}
		kubeletPort := strconv.Itoa(int(node.Status.DaemonEndpoints.KubeletEndpoint.Port))
		if port == "" || port == kubeletPort {
			addr, err := c.kubeletAddress(ctx, name)
			if err != nil {
				return nil, nil, err
			}
			return &url.URL{Scheme: "https", Host: addr}, c.kubelet, nil
		}
		h, err := nodeHost(node)
		if err != nil {
			return nil, nil, err
		}
		host = h
	case "pods":
		cr.Name = name
		pod, err := c.pod(ctx, cr)
		if err != nil {
			return nil, nil, err
		}
		if port == "" {
			port = firstPort(pod)
		}
		host = pod.Status.PodIP
	default:
		h, p, err := c.endpoint(ctx, cr.Namespace, name, port)
		if err != nil {
			return nil, nil, err
		}
		host, port = h, p
	}
	if err := c.proxyable(host); err != nil {
		return nil, nil, err
	}
	u := &url.URL{Scheme: scheme, Host: host}
	if port != "" {
		u.Host = net.JoinHostPort(host, port)
	} else if strings.Contains(host, ":") {
		u.Host = "[" + host + "]"
	}
	return u, c.other, nil
}

func firstPort(pod *corev1.Pod) string {
	for _, ct := range pod.Spec.Containers {
		if len(ct.Ports) > 0 {
			return strconv.Itoa(int(ct.Ports[0].ContainerPort))
		}
	}
	return ""
}

// proxyable keeps the proxy from being a way to the API server's own machine and its neighbours.
func (c *Connector) proxyable(host string) error {
	ip := net.ParseIP(host)
	if ip == nil {
		return apierrors.NewBadRequest("address not allowed")
	}
	if ip.IsLoopback() && !c.opts.AllowLoopback || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast() || ip.IsInterfaceLocalMulticast() {
		return apierrors.NewBadRequest("address not allowed")
	}
	return nil
}

// endpoint picks one of a service's ready endpoints. port is the name or number of one of the service's, or empty if it has one.
func (c *Connector) endpoint(ctx context.Context, namespace, name, port string) (host, number string, err error) {
	svc := &corev1.Service{}
	if err := c.opts.Reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, svc); err != nil {
		return "", "", err
	}
	portName := port
	if n, err := strconv.ParseInt(port, 10, 32); err == nil {
		found := false
		for _, p := range svc.Spec.Ports {
			if int64(p.Port) == n {
				portName, found = p.Name, true
				break
			}
		}
		if !found {
			return "", "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", n, name))
		}
	}
	slices := &discoveryv1.EndpointSliceList{}
	if err := c.opts.Reader.List(ctx, slices, client.InNamespace(namespace), client.MatchingLabels{discoveryv1.LabelServiceName: name}); err != nil {
		return "", "", err
	}
	type address struct{ host, port string }
	var all []address
	for _, s := range slices.Items {
		if s.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		for _, p := range s.Ports {
			if p.Port == nil || p.Name != nil && *p.Name != portName || p.Name == nil && portName != "" {
				continue
			}
			for _, e := range s.Endpoints {
				if e.Conditions.Ready != nil && !*e.Conditions.Ready || len(e.Addresses) == 0 {
					continue
				}
				all = append(all, address{e.Addresses[0], strconv.Itoa(int(*p.Port))})
			}
		}
	}
	if len(all) == 0 {
		return "", "", apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", name))
	}
	a := all[rand.IntN(len(all))]
	return a.host, a.port, nil
}
