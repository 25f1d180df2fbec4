//go:build linux

package processruntime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/processruntime/internal/shim"
	"github.com/keelson/keelson/kubelet/processruntime/internal/wire"
)

// shimConn is a connection to a shim that closes when its context ends.
type shimConn struct {
	*wire.Conn
	ctx    context.Context
	unhook func() bool
}

func (c *shimConn) Close() error {
	c.unhook()
	return c.Conn.Close()
}

// recv reads one response. An error that the shim answers carries its gRPC code.
func (c *shimConn) recv() (shim.Response, []*os.File, error) {
	var resp shim.Response
	files, err := c.Recv(&resp)
	switch {
	case err != nil && c.ctx.Err() != nil:
		return resp, nil, c.ctx.Err()
	case err != nil:
		return resp, nil, fmt.Errorf("the sandbox's shim: %w", err)
	case resp.NotFound, resp.NotRunning:
		return resp, files, status.Error(codes.FailedPrecondition, resp.Error)
	case resp.Error != "":
		return resp, files, errors.New(resp.Error)
	}
	return resp, files, nil
}

// call opens a connection with a request on it.
func (r *Runtime) call(ctx context.Context, sb *sandbox, req shim.Request, files ...*os.File) (*shimConn, error) {
	c, err := wire.Dial(sb.dir, shim.SocketName)
	if err != nil {
		return nil, fmt.Errorf("the sandbox's shim: %w", err)
	}
	sc := &shimConn{Conn: c, ctx: ctx, unhook: context.AfterFunc(ctx, func() { c.Close() })}
	if err := c.Send(req, files...); err != nil {
		sc.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("the sandbox's shim: %w", err)
	}
	return sc, nil
}

// simple makes a call with one answer.
func (r *Runtime) simple(ctx context.Context, sb *sandbox, req shim.Request) error {
	c, err := r.call(ctx, sb, req)
	if err != nil {
		return err
	}
	defer c.Close()
	_, files, err := c.recv()
	for _, f := range files {
		f.Close()
	}
	return err
}

// toStatus gives an error the gRPC code that CRI's clients look at.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown {
		return err
	}
	code := codes.Unknown
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, os.ErrNotExist):
		code = codes.NotFound
	}
	return status.Error(code, err.Error())
}

// adopt loads what an earlier runtime left: what was only half made is undone.
func (r *Runtime) adopt() error {
	base := filepath.Join(r.opts.Root, "sandboxes")
	entries, err := os.ReadDir(base)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := r.adoptSandbox(filepath.Join(base, e.Name())); err != nil {
			return fmt.Errorf("adopting %s: %w", e.Name(), err)
		}
	}
	return nil
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

func (r *Runtime) adoptSandbox(dir string) error {
	sb := &sandbox{dir: dir, config: &runtimeapi.PodSandboxConfig{}}
	err := readJSON(filepath.Join(dir, "sandbox.json"), &sb.rec)
	if errors.Is(err, os.ErrNotExist) {
		return os.RemoveAll(dir) // not begun or nearly gone
	}
	if err != nil {
		return err
	}
	if err := protojson.Unmarshal(sb.rec.Config, sb.config); err != nil {
		return err
	}
	r.sandboxes[sb.rec.ID] = sb
	names, err := os.ReadDir(filepath.Join(dir, "containers"))
	if err != nil {
		return err
	}
	for _, n := range names {
		c := &container{sb: sb, dir: filepath.Join(dir, "containers", n.Name()), config: &runtimeapi.ContainerConfig{}}
		err := readJSON(filepath.Join(c.dir, "container.json"), &c.rec)
		if errors.Is(err, os.ErrNotExist) {
			if err := os.RemoveAll(c.dir); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := protojson.Unmarshal(c.rec.Config, c.config); err != nil {
			return err
		}
		r.containers[c.rec.ID] = c
	}
	if sb.rec.Phase == "creating" {
		ctx, cancel := context.WithTimeout(context.Background(), r.opts.StartTimeout)
		defer cancel()
		sb.mu.Lock()
		defer sb.mu.Unlock()
		if err := r.destroy(ctx, sb); err != nil {
			r.opts.Logger.Error(err, "removing a sandbox that was never completed", "sandbox", sb.rec.ID)
		}
	}
	return nil
}
