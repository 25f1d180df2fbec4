package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.org/x/sync/errgroup"

	"github.com/keelson/keelson/store"
)

const (
	// maxAdvance bounds how long Advance takes: etcd has no other way to skip a revision than to write.
	maxAdvance = 10_000_000
	advancers  = 64
	advanceKey = "\x00keelson-advance"
)

var _ store.AdvanceLimiter = (*Store)(nil)

// MaxAdvance implements store.AdvanceLimiter.
func (s *Store) MaxAdvance() int64 { return maxAdvance }

// Advance implements store.Advancer. Of the whole etcd each revision on the way takes a write, some thousands a
// second; more than ten million are refused with store.ErrInvalid. It compacts the whole etcd.
func (s *Store) Advance(ctx context.Context, rev int64) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.calls.Done()
	current, err := s.newest(ctx)
	if err != nil {
		return s.readError(ctx, err, "advance")
	}
	if rev-current > maxAdvance {
		return fmt.Errorf("%w: advance from revision %d to %d: etcd has to write each, want at most %d", store.ErrInvalid, current, rev, maxAdvance)
	}
	key := s.opts.Prefix + advanceKey
	if current < rev {
		var written atomic.Int64
		group, gctx := errgroup.WithContext(ctx)
		for range advancers {
			group.Go(func() error {
				for written.Add(1) <= rev-current {
					if _, err := s.client.Put(gctx, key, ""); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return s.readError(ctx, err, fmt.Sprintf("advance to revision %d", rev))
		}
	}
	res, err := s.client.Delete(ctx, key)
	if err == nil {
		_, err = s.client.Compact(ctx, res.Header.Revision)
	}
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return s.readError(ctx, err, fmt.Sprintf("advance to revision %d", rev))
	}
	s.raiseCompacted(res.Header.Revision)
	return nil
}
