package etcdserve

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/keelson/keelson/store"
)

// etcd's watches may begin with the events of the compacted revision, a store's only behind it. So what
// a client compacts to a revision, the store compacts to the one before.

// bounds returns the newest revision, and the oldest that a watch can begin with, at most 0 if there has been no compaction.
func (s *Server) bounds(ctx context.Context) (current, oldest int64, err error) {
	oldest = s.compacted.Load()
	current, floor, err := s.s.Revision(ctx)
	if err != nil {
		return 0, 0, err
	}
	if floor > 1 {
		oldest = max(oldest, floor+1)
	}
	return current, oldest, nil
}

// readable returns an error if a revision is compacted.
func (s *Server) readable(ctx context.Context, rev int64) error {
	current, oldest, err := s.bounds(ctx)
	if err == nil && rev < min(oldest, current) {
		err = store.ErrCompacted
	}
	return err
}

func (k *kvServer) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	s := k.s
	s.compacting.Lock()
	defer s.compacting.Unlock()
	current, oldest, err := s.bounds(ctx)
	switch {
	case err != nil:
		return nil, grpcError(err)
	case r.Revision > current:
		return nil, rpctypes.ErrGRPCFutureRev
	case r.Revision <= min(oldest, current):
		return nil, rpctypes.ErrGRPCCompacted
	case r.Revision > 1:
		if err := s.s.Compact(ctx, r.Revision-1); err != nil {
			return nil, grpcError(err)
		}
	}
	s.compacted.Store(r.Revision)
	h, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.CompactionResponse{Header: h}, nil
}
