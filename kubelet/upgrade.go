package kubelet

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxRefusal bounds what is passed on of an answer that refuses to upgrade.
const maxRefusal = 64 << 10

// proxyStream passes a connection that is to be upgraded on to the runtime's streaming server, which speaks SPDY and WebSocket.
func (k *Kubelet) proxyStream(w http.ResponseWriter, r *http.Request, location string) {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" {
		http.Error(w, fmt.Sprintf("the runtime's streaming address %q is not a URL", location), http.StatusInternalServerError)
		return
	}
	if !strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade") || r.Header.Get("Upgrade") == "" {
		http.Error(w, "Upgrade request required", http.StatusBadRequest)
		return
	}
	back, err := dialStream(r.Context(), u)
	if err != nil {
		http.Error(w, fmt.Sprintf("dialing the runtime's streaming server: %v", err), http.StatusBadGateway)
		return
	}
	defer func() { _ = back.Close() }()
	// Whatever blocks below ends with the request.
	defer context.AfterFunc(r.Context(), func() { _ = back.Close() })()

	out := r.Clone(r.Context())
	out.URL, out.Host, out.RequestURI = u, u.Host, ""
	out.Header.Del("Authorization")
	if err := out.Write(back); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	reader := bufio.NewReader(back)
	resp, err := http.ReadResponse(reader, out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		for name, values := range resp.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, io.LimitReader(resp.Body, maxRefusal))
		return
	}
	front, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer func() { _ = front.Close() }()
	_ = front.SetDeadline(time.Time{})
	head := &http.Response{StatusCode: resp.StatusCode, ProtoMajor: 1, ProtoMinor: 1, Header: resp.Header}
	if err := writeHead(front, head); err != nil {
		return
	}
	ended := make(chan struct{}, 2)
	go func() {
		defer func() { ended <- struct{}{} }()
		_, err := io.Copy(back, buffered)
		if err == nil || errors.Is(err, io.EOF) {
			closeWrite(back)
		}
	}()
	go func() {
		defer func() { ended <- struct{}{} }()
		_, err := io.Copy(front, reader)
		if err == nil || errors.Is(err, io.EOF) {
			closeWrite(front)
		}
		// The server has said everything: nothing that the client still sends matters.
		_ = front.Close()
	}()
	<-ended
	<-ended
}

func dialStream(ctx context.Context, u *url.URL) (net.Conn, error) {
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), map[string]string{"https": "443"}[u.Scheme])
		if u.Scheme != "https" {
			host = net.JoinHostPort(u.Hostname(), "80")
		}
	}
	if u.Scheme == "https" {
		// The runtime's certificate is its own; its address came from the runtime itself.
		d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}}
		return d.DialContext(ctx, "tcp", host)
	}
	return (&net.Dialer{Timeout: 30 * time.Second}).DialContext(ctx, "tcp", host)
}

func writeHead(w io.Writer, resp *http.Response) error {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", resp.StatusCode, http.StatusText(resp.StatusCode))
	if err := resp.Header.Write(&b); err != nil {
		return err
	}
	b.WriteString("\r\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func closeWrite(c net.Conn) {
	if t, ok := c.(*trackedConn); ok {
		c = t.Conn
	}
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
