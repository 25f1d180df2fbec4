package etcdserve

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"k8s.io/utils/clock"
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
	// revoked is true while it is being revoked, and granting until it has been granted.
	revoked, granting bool
	// recorded says that there is, or may be, a record of it in the store.
	recorded bool
}

func newLeases(c clock.WithTicker) *leases {
	return &leases{clock: c, byID: map[int64]*lease{}, gone: map[int64]struct{}{}, going: map[int64]struct{}{}}
}

func (ls *leases) exists(id int64) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.get(id) != nil
}

// get returns a lease that is in force, nil if there is none. The caller holds ls.mu.
func (ls *leases) get(id int64) *lease {
	if l := ls.byID[id]; l != nil && !l.revoked && !l.granting {
		return l
	}
	return nil
}

// record returns a lease that a commit is about to write the record of, nil if there is none. It returns
// errOvertaken while another commit deletes the record of an earlier one with this id.
func (ls *leases) record(id int64) (*lease, error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.get(id)
	if l == nil {
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

// reserve makes a lease that is not in force until granted is called.
func (ls *leases) reserve(id, ttl int64) (*lease, error) {
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
	l := &lease{id: id, ttl: ttl, keys: map[string]struct{}{}, granting: true}
	ls.byID[id] = l
	delete(ls.gone, id)
	return l, nil
}

// granted puts a lease into force, or forgets it if ok is false.
func (ls *leases) granted(l *lease, ok bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if !ok {
		delete(ls.byID, l.id)
		return
	}
	l.granting = false
	ls.renew(l)
}

// renew gives a lease its full time. The caller holds ls.mu.
func (ls *leases) renew(l *lease) { l.expires = ls.clock.Now().Add(time.Duration(l.ttl) * time.Second) }

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
			if !l.granting && now.After(l.expires) {
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
	granted, err := l.s.leases.reserve(r.ID, max(1, r.TTL))
	if err != nil {
		return nil, err
	}
	err = l.s.keepLease(ctx, granted)
	l.s.leases.granted(granted, err == nil)
	if err != nil {
		return nil, grpcError(err)
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
		if found := ls.get(r.ID); found != nil {
			ls.renew(found)
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
	if found := ls.byID[r.ID]; found != nil && !found.granting {
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
	for id, found := range ls.byID {
		if !found.granting {
			res.Leases = append(res.Leases, &pb.LeaseStatus{ID: id})
		}
	}
	slices.SortFunc(res.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
	return res, nil
}
