package etcdserve

import (
	"context"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/keelson/keelson/store"
)

func (k *kvServer) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	_, compacted, err := k.s.s.Revision(ctx)
	if err != nil {
		return nil, grpcError(err)
	}
	if r.Revision <= compacted && compacted > 1 {
		return nil, rpctypes.ErrGRPCCompacted
	}
	events, err := k.s.eventsAt(ctx, r.Revision)
	if err != nil {
		return nil, grpcError(err)
	}
	if err := k.s.s.Compact(ctx, r.Revision); err != nil {
		return nil, grpcError(err)
	}
	k.s.floor.Store(&floor{r.Revision, events})
	h, err := k.s.now(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.CompactionResponse{Header: h}, nil
}

// floor is the last compaction that was asked for. etcd's watches can begin with the events of the compacted
// revision, a store's only behind it.
type floor struct {
	rev    int64
	events []store.Event
}

// eventsAt returns the events of one revision.
func (s *Server) eventsAt(ctx context.Context, rev int64) ([]store.Event, error) {
	current, compacted, err := s.s.Revision(ctx)
	if err != nil {
		return nil, err
	}
	if rev > current {
		return nil, store.ErrFutureRevision
	}
	if rev <= compacted || rev < 2 {
		return nil, nil
	}
	w, err := s.s.Watch(ctx, store.WatchOptions{After: rev - 1})
	if err != nil {
		return nil, err
	}
	defer w.Close()
	// A store with other writers may have nothing at this revision; now its watchers say that they have come to it.
	if _, _, err := s.s.Revision(ctx); err != nil {
		return nil, err
	}
	for {
		b, err := w.Next(ctx)
		if err != nil {
			return nil, err
		}
		n := 0
		for n < len(b.Events) && b.Events[n].KV.ModRevision == rev {
			n++
		}
		if n > 0 || b.Revision >= rev {
			return slices.Clone(b.Events[:n]), nil
		}
	}
}
