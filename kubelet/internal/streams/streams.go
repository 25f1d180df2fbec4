// Package streams serves the connections of exec, attach and port-forward for runtimes that have no streaming server of their own.
package streams

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
)

// Server is a streaming server that listens.
type Server struct {
	streaming.Server
	http     *http.Server
	listener net.Listener
}

// Listen opens a server's port. What its requests do ends with ctx.
func Listen(ctx context.Context, addr string, backend streaming.Runtime) (*Server, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	config := streaming.DefaultConfig
	config.Addr = l.Addr().String()
	s, err := streaming.NewServer(config, backend)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	// The library takes a client that hangs up for an error, and logs it; what matters is answered to the client.
	ctx = logr.NewContext(ctx, logr.Discard())
	return &Server{Server: s, listener: l, http: &http.Server{
		Handler: s, ReadHeaderTimeout: 30 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx },
	}}, nil
}

// Serve works until Close, which is no error.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends Serve and the connections that are not upgraded yet; the others end with the context.
func (s *Server) Close() error { return s.http.Close() }

// Gate hands out the URLs of a server's streams, for what runs.
type Gate struct {
	// Running is nil for a container that runs.
	Running func(id string) error
	// Ready is nil for a sandbox that is ready.
	Ready func(id string) error
	// Server finds or starts the server.
	Server func() (*Server, error)
}

// Exec hands out the URL of a command.
func (g Gate) Exec(req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	if err := g.Running(req.GetContainerId()); err != nil {
		return nil, err
	}
	s, err := g.Server()
	if err != nil {
		return nil, err
	}
	return s.GetExec(req)
}

// Attach hands out the URL of a container's own streams.
func (g Gate) Attach(req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	if err := g.Running(req.GetContainerId()); err != nil {
		return nil, err
	}
	s, err := g.Server()
	if err != nil {
		return nil, err
	}
	return s.GetAttach(req)
}

// PortForward hands out the URL of connections to a sandbox's ports.
func (g Gate) PortForward(req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	if err := g.Ready(req.GetPodSandboxId()); err != nil {
		return nil, err
	}
	s, err := g.Server()
	if err != nil {
		return nil, err
	}
	return s.GetPortForward(req)
}
