package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"

	"github.com/keelson/keelson/apiserver/internal/httpapi"
)

// RESTConfig returns the configuration of a client that acts as u, for any client-go program: its requests go to the server
// without a socket, TLS or authentication. Answers stream; upgraded connections work for callers that use the transport itself,
// which the SPDY and WebSocket dialers of client-go do not: kubectl exec needs a listener.
func (s *Server) RESTConfig(u user.Info) *rest.Config {
	return &rest.Config{
		Host:      "http://kubernetes.in-process",
		Transport: memoryTransport{s, u},
		QPS:       -1,
	}
}

type memoryTransport struct {
	server *Server
	user   user.Info
}

var errStopped = errors.New("apiserver: the server has stopped")

// RoundTrip implements http.RoundTripper.
func (t memoryTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	r := req.WithContext(httpapi.WithIdentity(ctx, t.user))
	r.Header = req.Header.Clone()
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.RequestURI, r.RemoteAddr = req.URL.RequestURI(), "in-memory"
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.1", 1, 1
	if r.Host == "" {
		r.Host = req.URL.Host
	}
	if r.Body == nil {
		r.Body = http.NoBody
	}
	w := &memoryResponse{req: req, header: http.Header{}, cancel: cancel, answer: make(chan *http.Response, 1)}
	if !t.server.begin(w) {
		cancel()
		r.Body.Close()
		return nil, errStopped
	}
	go func() {
		defer t.server.end(w)
		defer r.Body.Close()
		defer w.finish()
		t.server.handler.ServeHTTP(w, r)
	}()
	select {
	case resp := <-w.answer:
		if resp == nil {
			cancel()
			return nil, io.ErrUnexpectedEOF
		}
		return resp, nil
	case <-req.Context().Done():
		cancel()
		w.abandon()
		return nil, req.Context().Err()
	}
}

// streamAbove is how much of an answer is kept before it begins to be handed over in parts.
const streamAbove = 256 << 10

// memoryResponse is the handler's side. An answer that ends soon is handed over whole; one that is flushed or
// grows is streamed through a pipe.
type memoryResponse struct {
	req    *http.Request
	header http.Header
	cancel context.CancelFunc
	answer chan *http.Response

	mu       sync.Mutex
	code     int
	sent     http.Header // as it was when the code was written
	buf      bytes.Buffer
	pipe     *io.PipeWriter
	hijacked bool
	given    bool
	left     bool // nobody waits for the answer
	deadline *time.Timer
}

func (w *memoryResponse) Header() http.Header { return w.header }

func (w *memoryResponse) WriteHeader(code int) {
	if code < 200 && code != http.StatusSwitchingProtocols || w.code != 0 {
		return
	}
	w.code, w.sent = code, w.header.Clone()
}

func (w *memoryResponse) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.pipe != nil {
		return w.pipe.Write(b)
	}
	_, _ = w.buf.Write(b)
	if w.buf.Len() > streamAbove {
		return len(b), w.stream()
	}
	return len(b), nil
}

// Flush implements http.Flusher.
func (w *memoryResponse) Flush() {
	w.WriteHeader(http.StatusOK)
	if w.pipe == nil {
		_ = w.stream() // the next write fails too
	}
}

func (w *memoryResponse) stream() error {
	r, p := io.Pipe()
	w.mu.Lock()
	w.pipe = p
	w.mu.Unlock()
	w.give(&memoryBody{Reader: r, close: func() { r.CloseWithError(context.Canceled); w.cancel() }}, -1)
	if w.buf.Len() == 0 {
		return nil
	}
	_, err := p.Write(w.buf.Bytes())
	w.buf = bytes.Buffer{}
	return err
}

// give hands the answer over.
func (w *memoryResponse) give(body io.ReadCloser, length int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.given {
		return
	}
	w.given = true
	if w.left {
		body.Close()
		return
	}
	w.sent.Del("Transfer-Encoding")
	w.answer <- &http.Response{
		Status: http.StatusText(w.code), StatusCode: w.code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, Body: body, ContentLength: length, Request: w.req,
	}
}

// abandon makes whatever is still given away be closed.
func (w *memoryResponse) abandon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = true
	if w.given {
		select {
		case resp := <-w.answer:
			if resp != nil {
				resp.Body.Close()
			}
		default:
		}
	}
}

// abort breaks off an answer that nobody reads.
func (w *memoryResponse) abort() {
	w.cancel()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pipe != nil {
		w.pipe.CloseWithError(errStopped)
	}
}

// finish is called when the handler has returned, or panicked to break the answer off.
func (w *memoryResponse) finish() {
	p := recover()
	switch {
	case w.hijacked:
	case w.pipe != nil && p != nil:
		w.pipe.CloseWithError(io.ErrUnexpectedEOF)
	case w.pipe != nil:
		w.pipe.Close()
	case p != nil:
		w.mu.Lock()
		if !w.given {
			w.given = true
			w.answer <- nil
		}
		w.mu.Unlock()
	default:
		w.WriteHeader(http.StatusOK)
		w.give(&memoryBody{Reader: bytes.NewReader(w.buf.Bytes()), close: w.cancel}, int64(w.buf.Len()))
	}
	if p != nil && p != http.ErrAbortHandler {
		panic(p) // the handler recovers everything else itself
	}
}

type memoryBody struct {
	io.Reader
	close func()
}

func (b *memoryBody) Close() error {
	b.close()
	return nil
}

// SetWriteDeadline is for http.ResponseController: a write that blocks because nobody reads fails then.
func (w *memoryResponse) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deadline != nil {
		w.deadline.Stop()
		w.deadline = nil
	}
	if t.IsZero() || w.pipe == nil {
		return nil
	}
	w.deadline = time.AfterFunc(time.Until(t), func() { w.pipe.CloseWithError(os.ErrDeadlineExceeded) })
	return nil
}

// Hijack implements http.Hijacker: the client gets the other end of a pipe as the body of the answer that
// is written to this one.
func (w *memoryResponse) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.code != 0 || w.hijacked {
		return nil, nil, http.ErrHijacked
	}
	w.hijacked = true
	here, there := net.Pipe()
	go func() {
		br := bufio.NewReader(there)
		resp, err := http.ReadResponse(br, w.req) //nolint:bodyclose // the caller of RoundTrip does
		w.mu.Lock()
		defer w.mu.Unlock()
		w.given = true
		if err != nil || w.left {
			there.Close()
			if !w.left {
				w.answer <- nil
			}
			return
		}
		if resp.StatusCode == http.StatusSwitchingProtocols {
			resp.Body = &memoryConn{Conn: there, r: br, cancel: w.cancel}
		} else {
			body := resp.Body
			resp.Body = &memoryBody{Reader: body, close: func() { body.Close(); there.Close(); w.cancel() }}
		}
		w.answer <- resp
	}()
	return here, bufio.NewReadWriter(bufio.NewReader(here), bufio.NewWriter(here)), nil
}

// memoryConn is an upgraded connection, as the body of a 101 answer.
type memoryConn struct {
	net.Conn
	r      *bufio.Reader
	cancel context.CancelFunc
}

func (c *memoryConn) Read(b []byte) (int, error) { return c.r.Read(b) }

func (c *memoryConn) Close() error {
	c.cancel()
	return c.Conn.Close()
}
