package connect

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/keelson/keelson/apiserver/internal/httpapi"
)

// remoteCommand serves exec and attach.
func (c *Connector) remoteCommand(w http.ResponseWriter, r *http.Request, cr httpapi.ConnectRequest) error {
	q := r.URL.Query()
	pod, err := c.pod(r.Context(), cr)
	if err != nil {
		return err
	}
	container, err := containerOf(pod, q.Get("container"))
	if err != nil {
		return err
	}
	u, err := c.podURL(r, pod, cr.Subresource)
	if err != nil {
		return err
	}
	u.Path += "/" + container
	p := url.Values{}
	for _, b := range []struct{ from, to string }{
		{"stdin", corev1.ExecStdinParam}, {"stdout", corev1.ExecStdoutParam}, {"stderr", corev1.ExecStderrParam}, {"tty", corev1.ExecTTYParam},
	} {
		if isTrue(q, b.from) {
			p.Add(b.to, "1")
		}
	}
	if cr.Subresource == "exec" {
		if len(q["command"]) == 0 {
			return apierrors.NewBadRequest("you must specify at least 1 command for the container")
		}
		p[corev1.ExecCommandParam] = q["command"]
	}
	if len(p[corev1.ExecStdinParam])+len(p[corev1.ExecStdoutParam])+len(p[corev1.ExecStderrParam]) == 0 {
		return apierrors.NewBadRequest("you must specify at least one of stdin, stdout, stderr")
	}
	u.RawQuery = p.Encode()
	if wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) {
		return c.translate(w, r, u, streamsOf(q))
	}
	return c.passThrough(w, r, u)
}

// portForward serves forwarding, over SPDY, tunnelled SPDY, or the older WebSocket protocols.
func (c *Connector) portForward(w http.ResponseWriter, r *http.Request, cr httpapi.ConnectRequest) error {
	pod, err := c.pod(r.Context(), cr)
	if err != nil {
		return err
	}
	u, err := c.podURL(r, pod, "portForward")
	if err != nil {
		return err
	}
	if ports := r.URL.Query()["ports"]; len(ports) > 0 {
		u.RawQuery = url.Values{"port": {strings.Join(ports, ",")}}.Encode()
	}
	if wsstream.IsWebSocketRequestWithTunnelingProtocol(r) {
		return c.tunnel(w, r, u)
	}
	return c.passThrough(w, r, u)
}

// podURL is the kubelet's address for an action on a pod.
func (c *Connector) podURL(r *http.Request, pod *corev1.Pod, action string) (*url.URL, error) {
	if pod.Spec.NodeName == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name))
	}
	addr, err := c.kubeletAddress(r.Context(), pod.Spec.NodeName)
	if err != nil {
		return nil, err
	}
	return &url.URL{Scheme: "https", Host: addr, Path: "/" + action + "/" + pod.Namespace + "/" + pod.Name}, nil
}

// passThrough connects the client's upgraded connection with the kubelet's.
func (c *Connector) passThrough(w http.ResponseWriter, r *http.Request, u *url.URL) error {
	if !httpstream.IsUpgradeRequest(r) {
		return apierrors.NewBadRequest("Upgrade request required")
	}
	var failed error
	p := &httputil.ReverseProxy{
		Transport: c.kubelet,
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL, pr.Out.Host = u, u.Host
		},
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) {
			failed = backendError(r, fmt.Errorf("error dialing backend: %w", err))
		},
		ErrorLog: nil,
	}
	p.ServeHTTP(w, r)
	return failed
}

// upgrade asks the kubelet to change to SPDY and returns the connection.
func (c *Connector) upgrade(r *http.Request, u *url.URL, protocol string) (io.ReadWriteCloser, *http.Response, error) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, u.String(), nil)
	if err != nil {
		return nil, nil, apierrors.NewInternalError(err)
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "SPDY/3.1")
	req.Header.Set(httpstream.HeaderProtocolVersion, protocol)
	resp, err := c.kubelet.RoundTrip(req)
	if err != nil {
		return nil, nil, backendError(r, fmt.Errorf("error dialing backend: %w", err))
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorText)) // what was read is still the best explanation
		return nil, nil, apierrors.NewInternalError(fmt.Errorf("unable to upgrade connection: %s: %s", resp.Status, strings.TrimSpace(string(body))))
	}
	rwc, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		resp.Body.Close()
		return nil, nil, apierrors.NewInternalError(fmt.Errorf("unable to upgrade connection: %T can't be written to", resp.Body))
	}
	return rwc, resp, nil
}

const tunnelPrefix = "SPDY/3.1+"

// tunnel takes SPDY out of a WebSocket.
func (c *Connector) tunnel(w http.ResponseWriter, r *http.Request, u *url.URL) error {
	var protocols []string
	for _, p := range websocket.Subprotocols(r) {
		if inner, ok := strings.CutPrefix(p, tunnelPrefix); ok {
			protocols = append(protocols, inner)
		}
	}
	backend, resp, err := c.upgrade(r, u, protocols[0]) //nolint:bodyclose // it is backend
	if err != nil {
		return err
	}
	defer backend.Close()
	chosen := resp.Header.Get(httpstream.HeaderProtocolVersion)
	if chosen == "" {
		chosen = protocols[0]
	}
	up := websocket.Upgrader{
		Subprotocols: []string{tunnelPrefix + chosen},
		CheckOrigin:  func(*http.Request) bool { return true }, // no cookies are taken
		Error: func(w http.ResponseWriter, _ *http.Request, code int, reason error) {
			http.Error(w, reason.Error(), code)
		},
	}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return nil // Upgrade has answered
	}
	client := portforward.NewTunnelingConnection("server", conn)
	defer client.Close()
	ctx, cancel := context.WithCancel(r.Context())
	var wg sync.WaitGroup
	pipe := func(dst io.Writer, src io.Reader) {
		defer cancel()
		_, _ = io.Copy(dst, src) // either side's end ends both
	}
	wg.Go(func() { pipe(backend, client) })
	wg.Go(func() { pipe(client, backend) })
	<-ctx.Done()
	client.Close()
	backend.Close()
	wg.Wait()
	return nil
}

// hijackable gives wsstream, which asks for http.Hijacker itself, what http.ResponseController finds.
type hijackable struct{ http.ResponseWriter }

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(h.ResponseWriter).Hijack()
}
