package etcdserve

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/keelson/keelson/store"
)

// A lease that has keys has a record in the store that is served, put by the commit that attaches the first. To grant
// a lease does not raise etcd's revision, so a commit there cannot be part of it; that is what Options.Leases is for,
// which has all leases. One that was granted is in it before the client hears of that, one that is revoked
// is not in it any more before its keys go: what is left in the other store then is as if it had not been revoked.

func leaseKey(id int64) string { return fmt.Sprintf("%s%016x", leasePrefix, uint64(id)) }

// record returns what writes the lease's record.
func (l *lease) record() store.Op {
	return store.Put(leaseKey(l.id), binary.AppendVarint(nil, l.ttl), store.Any())
}

// keepLease makes a lease survive restarts, if there is a store for it.
func (s *Server) keepLease(ctx context.Context, l *lease) error {
	if s.opts.Leases == nil {
		return nil
	}
	_, err := s.opts.Leases.Commit(ctx, l.record())
	return err
}

func (s *Server) dropLease(ctx context.Context, id int64) error {
	if s.opts.Leases == nil {
		return nil
	}
	_, err := s.opts.Leases.Commit(ctx, store.Delete(leaseKey(id), store.Any()))
	return err
}

// loadLeases reads what leases there are. Each starts with its full time again.
func (s *Server) loadLeases(ctx context.Context) error {
	recorded, err := readLeases(ctx, s.s)
	if err != nil {
		return err
	}
	kept := recorded
	if s.opts.Leases != nil {
		if kept, err = readLeases(ctx, s.opts.Leases); err != nil {
			return err
		}
	}
	all := map[int64]*lease{}
	for _, ttls := range []map[int64]int64{recorded, kept} {
		for id, ttl := range ttls {
			if all[id] != nil {
				continue
			}
			l, err := s.leases.reserve(id, ttl)
			if err != nil {
				return err
			}
			_, l.recorded = recorded[id]
			all[id] = l
		}
	}
	if err := s.loadAttached(ctx); err != nil {
		return err
	}
	for id, l := range all {
		if _, ok := kept[id]; !ok && len(l.keys) == 0 {
			// It was revoked, and there has been no commit to delete its record in.
			s.leases.granted(l, false)
			s.leases.gone[id] = struct{}{}
			continue
		} else if !ok {
			if err := s.keepLease(ctx, l); err != nil {
				return err
			}
		}
		s.leases.granted(l, true)
	}
	return nil
}

// readLeases returns the times of the leases that a store has records of, by their IDs.
func readLeases(ctx context.Context, s store.Store) (ttls map[int64]int64, err error) {
	ttls = map[int64]int64{}
	err = each(ctx, s, leasePrefix, func(kv store.KV) error {
		id, err := strconv.ParseUint(kv.Key[len(leasePrefix):], 16, 64)
		ttl, n := binary.Varint(kv.Value)
		if err != nil || n != len(kv.Value) || ttl < 1 || ttl > maxLeaseTTL {
			return errSide
		}
		ttls[int64(id)] = ttl
		return nil
	})
	return ttls, err
}

// loadAttached attaches keys to the leases that they say they have.
func (s *Server) loadAttached(ctx context.Context) error {
	return each(ctx, s.s, sidePrefix, func(kv store.KV) error {
		d, err := decodeSide(kv.Value)
		if err == nil {
			s.leases.move(kv.Key[len(sidePrefix):], 0, d.lease)
		}
		return err
	})
}

// each calls visit for the pairs whose keys have a prefix, at one revision.
func each(ctx context.Context, s store.Store, prefix string, visit func(store.KV) error) error {
	for opts, more := (store.ListOptions{Prefix: prefix, Limit: page}), true; more; {
		res, err := s.List(ctx, opts)
		if err != nil {
			return err
		}
		for _, kv := range res.KVs {
			if err := visit(kv); err != nil {
				return err
			}
			opts.After = kv.Key
		}
		opts.Revision, more = res.Revision, res.More
	}
	return nil
}

// revoke deletes the keys of a lease in one commit, and the lease. With expired it leaves a
// lease alone that has been kept alive since.
func (s *Server) revoke(ctx context.Context, id int64, expired bool) error {
	defer s.locks.everything()() // no commit attaches keys meanwhile
	s.leases.mu.Lock()
	l := s.leases.get(id)
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
	err := s.dropLease(ctx, id)
	if err == nil && len(ops) > 0 {
		if _, err = s.s.Commit(ctx, ops...); err != nil {
			err = errors.Join(err, s.keepLease(context.WithoutCancel(ctx), l))
		}
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
