package etcdserve

import (
	"context"

	"github.com/keelson/keelson/store"
)

// commit writes what a transaction has changed, if nothing that it has read has changed since,
// and returns the new revision, 0 if there was nothing to write.
func (s *Server) commit(ctx context.Context, v *view) (int64, error) {
	var ops []store.Op
	var keys []string // that change, in order
	recorded := map[int64]bool{}
	for _, key := range v.order {
		c := v.changed[key]
		if c.before == nil && c.after == nil {
			continue
		}
		keys = append(keys, key)
		cond := store.Absent()
		if c.before != nil {
			cond = store.At(c.before.ModRevision)
		}
		if c.after == nil {
			ops = append(ops, store.Delete(key, cond), store.Delete(sidePrefix+key, store.Any()))
			continue
		}
		ops = append(ops, store.Put(key, c.after.Value, cond))
		d := side{version: c.after.Version, lease: c.after.Lease}
		switch {
		case d.needed():
			ops = append(ops, store.Put(sidePrefix+key, d.encode(), store.Any()))
		default:
			ops = append(ops, store.Delete(sidePrefix+key, store.Any()))
		}
		if d.lease != 0 && !recorded[d.lease] {
			l, err := s.leases.record(d.lease)
			if err != nil {
				return 0, err
			}
			ops = append(ops, l.record())
			recorded[d.lease] = true
		}
	}
	if len(ops) == 0 {
		return 0, nil
	}
	if order := encodeOrder(keys); order != nil {
		ops = append(ops, store.Put(orderKey, order, store.Any()))
	}
	for key, kv := range v.read {
		if v.changed[key] != nil {
			continue
		}
		if kv == nil {
			ops = append(ops, store.Check(key, store.Absent()))
		} else {
			ops = append(ops, store.Check(key, store.At(kv.ModRevision)))
		}
	}
	gone := s.leases.takeGone()
	for _, id := range gone {
		ops = append(ops, store.Delete(leaseKey(id), store.Any()))
	}
	rev, err := s.s.Commit(ctx, ops...)
	s.leases.wentWith(gone, err)
	if err != nil {
		return 0, err
	}
	for key, c := range v.changed {
		from, to := int64(0), int64(0)
		if c.before != nil {
			from = c.before.Lease
		}
		if c.after != nil {
			to = c.after.Lease
		}
		s.leases.move(key, from, to)
	}
	return rev, nil
}
