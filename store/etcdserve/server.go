package etcdserve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/keelson/keelson/store"
)

const (
	// version is the etcd whose API this is; clients look at it for what they may use.
	version = "3.7.0"
	// storageVersion is what etcd's storage is of in snapshots: the oldest that says so.
	storageVersion = "3.6.0"

	memberID  = 0x6b65656c736f6e01
	clusterID = 0x6b65656c736f6e00
	// overhead is what a request may have around its keys and values.
	overhead = 512 << 10
)

// Server serves one store.
type Server struct {
	s      store.Store
	opts   Options
	locks  locks
	leases *leases

	compacting sync.Mutex
	compacted  atomic.Int64 // the last revision that a client has compacted to, -1 if none has

	mu      sync.Mutex
	serving bool
}

// New returns a server of s. It starts nothing; s remains the caller's to close, after Serve.
func New(s store.Store, opts Options) (*Server, error) {
	if s == nil {
		return nil, errors.New("etcdserve: the store is nil")
	}
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	srv := &Server{s: s, opts: opts, leases: newLeases(opts.Clock)}
	srv.compacted.Store(-1)
	return srv, nil
}

// Serve answers requests on l until ctx ends, which is no error, and returns when all that it
// started has ended. It closes l, and can be called once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.mu.Lock()
	again := s.serving
	s.serving = true
	s.mu.Unlock()
	if again {
		_ = l.Close()
		return errors.New("etcdserve: Serve was called before")
	}
	if err := s.loadLeases(ctx); err != nil {
		_ = l.Close()
		return fmt.Errorf("etcdserve: read the leases: %w", err)
	}
	opts := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(s.opts.MaxRequestBytes + overhead), grpc.MaxSendMsgSize(1<<31 - 1), grpc.WaitForHandlers(true),
		grpc.UnaryInterceptor(explainUnimplemented),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
	if s.opts.TLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(s.opts.TLS)))
	}
	g := grpc.NewServer(opts...)
	pb.RegisterKVServer(g, &kvServer{s: s})
	pb.RegisterWatchServer(g, &watchServer{s: s})
	pb.RegisterLeaseServer(g, &leaseServer{s: s})
	pb.RegisterClusterServer(g, &clusterServer{s: s})
	pb.RegisterMaintenanceServer(g, &maintenanceServer{s: s})
	pb.RegisterAuthServer(g, &authServer{})
	h := health.NewServer()
	h.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(g, h)

	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { s.expireLeases(ctx) })
	wg.Go(func() {
		<-ctx.Done()
		h.Shutdown()
		g.Stop()
	})
	err := g.Serve(l)
	ended := ctx.Err() != nil
	cancel()
	wg.Wait()
	if ended || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// explainUnimplemented says whose fault it is when a client asks for what is not there.
func explainUnimplemented(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	res, err := handler(ctx, req)
	if status.Code(err) == codes.Unimplemented {
		err = status.Errorf(codes.Unimplemented, "etcdserve: %s is not supported on this store, which is not an etcd", path.Base(info.FullMethod))
	}
	return res, err
}

func (s *Server) header(rev int64) *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: clusterID, MemberId: memberID, Revision: rev, RaftTerm: 1}
}

// now returns a header with the newest revision.
func (s *Server) now(ctx context.Context) (*pb.ResponseHeader, error) {
	rev, _, err := s.s.Revision(ctx)
	if err != nil {
		return nil, grpcError(err)
	}
	return s.header(rev), nil
}

// grpcError is the one place where the store's errors become etcd's.
func grpcError(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrUnknownOutcome):
		return rpctypes.ErrGRPCTimeout
	case errors.Is(err, store.ErrCompacted):
		return rpctypes.ErrGRPCCompacted
	case errors.Is(err, store.ErrFutureRevision):
		return rpctypes.ErrGRPCFutureRev
	case errors.Is(err, store.ErrClosed):
		return rpctypes.ErrGRPCStopped
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return status.FromContextError(err).Err()
	case errors.Is(err, store.ErrInvalid):
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}

type clusterServer struct {
	pb.UnimplementedClusterServer
	s *Server
}

func (c *clusterServer) MemberList(ctx context.Context, _ *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	h, err := c.s.now(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.MemberListResponse{Header: h, Members: []*pb.Member{
		{ID: memberID, Name: c.s.opts.Name, ClientURLs: c.s.opts.ClientURLs},
	}}, nil
}

type maintenanceServer struct {
	pb.UnimplementedMaintenanceServer
	s *Server
}

func (m *maintenanceServer) Status(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	h, err := m.s.now(ctx)
	if err != nil {
		return nil, err
	}
	res := &pb.StatusResponse{
		Header: h, Version: version, StorageVersion: storageVersion, Leader: memberID, RaftTerm: 1,
		RaftIndex: uint64(h.Revision), RaftAppliedIndex: uint64(h.Revision),
	}
	if sizer, ok := m.s.s.(store.Sizer); ok {
		if res.DbSize, res.DbSizeInUse, err = sizer.Size(ctx); err != nil {
			return nil, grpcError(err)
		}
	}
	return res, nil
}

func (m *maintenanceServer) Alarm(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	if r.Action == pb.AlarmRequest_ACTIVATE {
		return nil, status.Error(codes.Unimplemented, "activation of alarms")
	}
	h, err := m.s.now(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.AlarmResponse{Header: h}, nil
}

type authServer struct{ pb.UnimplementedAuthServer }

func (*authServer) Authenticate(context.Context, *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	return nil, rpctypes.ErrGRPCAuthNotEnabled
}
