package etcdserve

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"k8s.io/utils/clock"

	"github.com/keelson/keelson/store"
)

const (
	maxLeaseTTL = 9_000_000_000
	expireEvery = 500 * time.Millisecond
)

// leases are those that have been granted.
type leases struct {
	clock clock.WithTicker
	mu    sync.Mutex
	byID  map[int64]*lease
	// gone are leases that ended without keys. A commit of its own for their records would raise the
	// revision, as the end of such a lease does not; they go with the next one, and are going while it runs.
	gone, going map[int64]struct{}
}

type lease struct {
	id, ttl int64
	expires time.Time
	keys    map[string]struct{}
	revoked bool
	// recorded says that there is, or may be, a record of it in the store.
	recorded bool
}

func newLeases(c clock.WithTicker) *leases {
	return &leases{clock: c, byID: map[int64]*lease{}, gone: map[int64]struct{}{}, going: map[int64]struct{}{}}
}

func (ls *leases) exists(id int64) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.byID[id]
	return l != nil && !l.revoked
}

// record returns a lease that a commit is about to write the record of, nil if there is none. It returns
// errOvertaken while another commit deletes the record of an earlier one with this id.
func (ls *leases) record(id int64) (*lease, error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.byID[id]
	if l == nil || l.revoked {
		return nil, rpctypes.ErrGRPCLeaseNotFound
	}
	if _, ok := ls.going[id]; ok {
		return nil, errOvertaken
	}
	l.recorded = true
	return l, nil
}

// move detaches a key from one lease and attaches it to another; 0 is none.
func (ls *leases) move(key string, from, to int64) {
	if from == to {
		return
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l := ls.byID[from]; l != nil {
		delete(l.keys, key)
	}
	if l := ls.byID[to]; l != nil {
		l.keys[key] = struct{}{}
	}
}

func (ls *leases) grant(id, ttl int64) (*lease, error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.byID[id] != nil {
		return nil, rpctypes.ErrGRPCLeaseExist
	}
	for id == 0 {
		if id = rand.Int64(); ls.byID[id] != nil {
			id = 0
		}
	}
	l := &lease{id: id, ttl: ttl, expires: ls.clock.Now().Add(time.Duration(ttl) * time.Second), keys: map[string]struct{}{}}
	ls.byID[id] = l
	delete(ls.gone, id)
	return l, nil
}

// takeGone returns the leases whose records the caller's commit deletes; it calls wentWith when that is over.
func (ls *leases) takeGone() (ids []int64) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for id := range ls.gone {
		ids = append(ids, id)
		ls.going[id] = struct{}{}
	}
	clear(ls.gone)
	return ids
}

func (ls *leases) wentWith(ids []int64, err error) {
	if len(ids) == 0 {
		return
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, id := range ids {
		delete(ls.going, id)
		if err != nil && ls.byID[id] == nil {
			ls.gone[id] = struct{}{}
		}
	}
}

// loadLeases reads what leases have keys. Each starts with its full time again.
func (s *Server) loadLeases(ctx context.Context) error {
	opts := store.ListOptions{Prefix: leasePrefix, Limit: page}
	for {
		res, err := s.s.List(ctx, opts)
		if err != nil {
			return err
		}
		for _, kv := range res.KVs {
			id, err := strconv.ParseUint(kv.Key[len(leasePrefix):], 16, 64)
			ttl, n := binary.Varint(kv.Value)
			if err != nil || n != len(kv.Value) || ttl < 1 || ttl > maxLeaseTTL {
				return errSide
			}
			l, err := s.leases.grant(int64(id), ttl)
			if err != nil {
				return err
			}
			l.recorded = true
			opts.After = kv.Key
		}
		opts.Revision = res.Revision
		if !res.More {
			break
		}
	}
	opts.Prefix, opts.After = sidePrefix, ""
	for {
		res, err := s.s.List(ctx, opts)
		if err != nil {
			return err
		}
		for _, kv := range res.KVs {
			d, err := decodeSide(kv.Value)
			if err != nil {
				return err
			}
			s.leases.move(kv.Key[len(sidePrefix):], 0, d.lease)
			opts.After = kv.Key
		}
		if !res.More {
			return nil
		}
	}
}

// expireLeases revokes leases when their time has come, until ctx ends.
func (s *Server) expireLeases(ctx context.Context) {
	ticker := s.opts.Clock.NewTicker(expireEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
		now := s.opts.Clock.Now()
		var expired []int64
		s.leases.mu.Lock()
		for id, l := range s.leases.byID {
			if now.After(l.expires) {
				expired = append(expired, id)
			}
		}
		s.leases.mu.Unlock()
		slices.Sort(expired)
		for _, id := range expired {
			if err := s.revoke(ctx, id, true); err != nil && ctx.Err() == nil {
				s.opts.Logger.Error(err, "Lease was not revoked, and will be tried again", "lease", id)
			}
		}
	}
}

// revoke deletes the keys of a lease in one commit, and the lease. With expired it leaves a
// lease alone that has been kept alive since.
func (s *Server) revoke(ctx context.Context, id int64, expired bool) error {
	defer s.locks.everything()() // no commit attaches keys meanwhile
	s.leases.mu.Lock()
	l := s.leases.byID[id]
	if l == nil || expired && !s.leases.clock.Now().After(l.expires) {
		s.leases.mu.Unlock()
		if expired {
			return nil
		}
		return rpctypes.ErrGRPCLeaseNotFound
	}
	l.revoked = true
	ops := []store.Op{}
	for key := range l.keys {
		ops = append(ops, store.Delete(key, store.Any()), store.Delete(sidePrefix+key, store.Any()))
	}
	if len(ops) > 0 {
		ops = append(ops, store.Delete(leaseKey(id), store.Any()))
	}
	s.leases.mu.Unlock()
	var err error
	if len(ops) > 0 {
		_, err = s.s.Commit(ctx, ops...)
	}
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	if err != nil {
		l.revoked = false
		return grpcError(err)
	}
	delete(s.leases.byID, id)
	if len(ops) == 0 && l.recorded {
		s.leases.gone[id] = struct{}{}
	}
	return nil
}

type leaseServer struct {
	pb.UnimplementedLeaseServer
	s *Server
}

func (l *leaseServer) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	if r.TTL > maxLeaseTTL {
		return nil, rpctypes.ErrGRPCLeaseTTLTooLarge
	}
	h, err := l.s.now(ctx)
	if err != nil {
		return nil, err
	}
	granted, err := l.s.leases.grant(r.ID, max(1, r.TTL))
	if err != nil {
		return nil, err
	}
	return &pb.LeaseGrantResponse{Header: h, ID: granted.id, TTL: granted.ttl}, nil
}

func (l *leaseServer) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	if err := l.s.revoke(ctx, r.ID, false); err != nil {
		return nil, err
	}
	h, err := l.s.now(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.LeaseRevokeResponse{Header: h}, nil
}

func (l *leaseServer) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		h, err := l.s.now(stream.Context())
		if err != nil {
			return err
		}
		res := &pb.LeaseKeepAliveResponse{Header: h, ID: r.ID} // without a TTL it says that there is no such lease
		ls := l.s.leases
		ls.mu.Lock()
		if found := ls.byID[r.ID]; found != nil && !found.revoked {
			found.expires = ls.clock.Now().Add(time.Duration(found.ttl) * time.Second)
			res.TTL = found.ttl
		}
		ls.mu.Unlock()
		if err := stream.Send(res); err != nil {
			return err
		}
	}
}

func (l *leaseServer) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	h, err := l.s.now(ctx)
	if err != nil {
		return nil, err
	}
	res := &pb.LeaseTimeToLiveResponse{Header: h, ID: r.ID, TTL: -1}
	ls := l.s.leases
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if found := ls.byID[r.ID]; found != nil {
		res.TTL = max(0, int64(found.expires.Sub(ls.clock.Now())/time.Second))
		res.GrantedTTL = found.ttl
		if r.Keys {
			for key := range found.keys {
				res.Keys = append(res.Keys, []byte(key))
			}
			slices.SortFunc(res.Keys, slices.Compare[[]byte])
		}
	}
	return res, nil
}

func (l *leaseServer) LeaseLeases(ctx context.Context, _ *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	h, err := l.s.now(ctx)
	if err != nil {
		return nil, err
	}
	res := &pb.LeaseLeasesResponse{Header: h}
	ls := l.s.leases
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for id := range ls.byID {
		res.Leases = append(res.Leases, &pb.LeaseStatus{ID: id})
	}
	slices.SortFunc(res.Leases, func(a, b *pb.LeaseStatus) int { return int(min(1, max(-1, a.ID-b.ID))) })
	return res, nil
}
