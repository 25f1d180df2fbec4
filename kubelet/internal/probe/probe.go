// Package probe does what a probe or a lifecycle hook asks for, once: an HTTP request, a TCP connection, a gRPC health check.
package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// userAgent is what Kubernetes' probes call themselves.
const userAgent = "kube-probe/1.37"

// maxBody bounds what is read of an answer.
const maxBody = 10 << 10

// Port resolves a port that may be the name of one of the container's.
func Port(p intstr.IntOrString, c *corev1.Container) (int, error) {
	port := p.IntValue()
	if p.Type == intstr.String {
		port = 0
		for i := range c.Ports {
			if c.Ports[i].Name == p.StrVal {
				port = int(c.Ports[i].ContainerPort)
			}
		}
		if port == 0 {
			n, err := strconv.Atoi(p.StrVal)
			if err != nil {
				return 0, fmt.Errorf("couldn't find port: %v in container %s", p.StrVal, c.Name)
			}
			port = n
		}
	}
	if port < 1 || port > 65535 {
		return 0, fmt.Errorf("invalid port number: %v", port)
	}
	return port, nil
}

// URL is where an HTTP probe or hook goes.
func URL(a *corev1.HTTPGetAction, host string, port int) *url.URL {
	scheme := strings.ToLower(string(a.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	if a.Host != "" {
		host = a.Host
	}
	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path}
	}
	u.Scheme, u.Host = scheme, net.JoinHostPort(host, strconv.Itoa(port))
	return u
}

// Client makes HTTP requests without verifying certificates, keeping no connection, and following redirects on the same host only.
func Client() *http.Client {
	return &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, DisableCompression: true, Proxy: nil},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if req.URL.Hostname() != via[0].URL.Hostname() {
				return http.ErrUseLastResponse
			}
			if len(via) >= 10 {
				return errors.New("stopped after 10 redirects")
			}
			return nil
		},
	}
}

// Request makes the request of an HTTP probe or hook.
func Request(ctx context.Context, a *corev1.HTTPGetAction, u *url.URL, agent string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, h := range a.HTTPHeaders {
		req.Header.Add(h.Name, h.Value)
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", agent)
	}
	switch accept := req.Header.Get("Accept"); {
	case accept != "":
	case len(req.Header["Accept"]) > 0:
		req.Header.Del("Accept")
	default:
		req.Header.Set("Accept", "*/*")
	}
	req.Host = req.Header.Get("Host")
	return req, nil
}

// HTTP succeeds on an answer from 200 to 399.
func HTTP(ctx context.Context, client *http.Client, a *corev1.HTTPGetAction, host string, port int) (bool, string) {
	req, err := Request(ctx, a, URL(a, host, port), userAgent)
	if err != nil {
		return false, err.Error()
	}
	resp, err := client.Do(req)
	if err != nil {
		return false, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return false, err.Error()
	}
	if resp.StatusCode >= http.StatusOK && resp.StatusCode < http.StatusBadRequest {
		return true, string(body)
	}
	return false, fmt.Sprintf("HTTP probe failed with statuscode: %d", resp.StatusCode)
}

// TCP succeeds if a connection can be made.
func TCP(ctx context.Context, host string, port int) (bool, string) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return false, err.Error()
	}
	_ = conn.Close()
	return true, ""
}

// GRPC succeeds if the health service says SERVING.
func GRPC(ctx context.Context, host string, port int, service string, timeout time.Duration) (bool, string) {
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithUserAgent(userAgent), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return false, err.Error()
	}
	defer func() { _ = conn.Close() }()
	resp, err := grpc_health_v1.NewHealthClient(conn).Check(metadata.NewOutgoingContext(ctx, metadata.MD{}), &grpc_health_v1.HealthCheckRequest{Service: service}, grpc.WaitForReady(true))
	switch {
	case status.Code(err) == codes.Unimplemented:
		return false, fmt.Sprintf("this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", status.Convert(err).Message())
	case status.Code(err) == codes.DeadlineExceeded, status.Code(err) == codes.Canceled:
		return false, fmt.Sprintf("timeout: failed to connect service %q within %v: %v", addr, timeout, err)
	case err != nil:
		return false, fmt.Sprintf("error: health rpc probe failed: %v", err)
	case resp.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING:
		return false, fmt.Sprintf("service unhealthy (responded with %q)", resp.GetStatus().String())
	}
	return true, "service healthy"
}
