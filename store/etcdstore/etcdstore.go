package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/keelson/keelson/store"
)

const (
	// listChunk is how many pairs are asked for at a time.
	listChunk = 5000
	// closeGrace is how long Close waits for running commits before it cuts the connection.
	closeGrace = 5 * time.Second
)

// Store is a store.Store on etcd.
type Store struct {
	opts   Options
	client *clientv3.Client
	feed   *feed

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup
	done   chan struct{} // closed by Close

	streams   atomic.Int64 // names of gRPC streams
	compacted atomic.Int64 // the highest revision known to be compacted to
}

var _ store.Store = (*Store)(nil)

// New connects to an etcd and checks that it answers, and lets the keys under Options.Prefix be read, within ctx and Options.DialTimeout.
func New(ctx context.Context, endpoints []string, opts Options) (*Store, error) {
	opts = opts.withDefaults()
	if err := opts.validate(endpoints); err != nil {
		return nil, err
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: opts.TLS, Username: opts.Username, Password: opts.Password,
		DialTimeout: opts.DialTimeout, DialKeepAliveTime: opts.KeepAlive, DialKeepAliveTimeout: opts.KeepAlive,
		PermitWithoutStream: true, Logger: zap.NewNop(),
	})
	if err != nil {
		return nil, unreachable(endpoints, opts, err)
	}
	s := &Store{opts: opts, client: client, done: make(chan struct{})}
	s.compacted.Store(1)
	s.feed = newFeed(s)
	ctx, cancel := context.WithTimeout(ctx, opts.DialTimeout)
	defer cancel()
	// All that is going to be read; a watch that is not permitted would only ever be tried again.
	key, end := s.bounds("", "")
	if _, err := client.Get(ctx, key, clientv3.WithRange(end), clientv3.WithLimit(1), clientv3.WithKeysOnly()); err != nil {
		_ = client.Close()
		return nil, unreachable(endpoints, opts, err)
	}
	return s, nil
}

// begin registers a call; the caller calls s.calls.Done when it succeeds.
func (s *Store) begin(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.calls.Add(1)
	return nil
}

func (s *Store) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Store) kv(p *mvccpb.KeyValue) store.KV {
	return store.KV{
		Key: string(p.Key[len(s.opts.Prefix):]), Value: p.Value,
		CreateRevision: p.CreateRevision, ModRevision: p.ModRevision,
	}
}

// bounds returns etcd's range of the keys that are at least from and have the prefix.
func (s *Store) bounds(from, prefix string) (key, end string) {
	key = s.opts.Prefix + from
	if key == "" {
		key = "\x00"
	}
	end, ok := store.PrefixEnd(s.opts.Prefix + prefix)
	if !ok {
		end = "\x00" // etcd's way to say that there is no end
	}
	return key, end
}

// newest returns etcd's revision, linearizably.
func (s *Store) newest(ctx context.Context) (int64, error) {
	res, err := s.client.Get(ctx, s.opts.Prefix+"\x00", clientv3.WithCountOnly())
	if err != nil {
		return 0, err
	}
	return res.Header.Revision, nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string, rev int64) (store.GetResult, error) {
	if key == "" || rev < 0 {
		return store.GetResult{}, fmt.Errorf("%w: get of %q at revision %d", store.ErrInvalid, key, rev)
	}
	if err := s.begin(ctx); err != nil {
		return store.GetResult{}, err
	}
	defer s.calls.Done()
	res, err := s.client.Get(ctx, s.opts.Prefix+key, clientv3.WithRev(rev))
	if err != nil {
		return store.GetResult{}, s.readError(ctx, err, fmt.Sprintf("get at revision %d", rev))
	}
	out := store.GetResult{Revision: rev}
	if rev == 0 {
		out.Revision = res.Header.Revision
	}
	if len(res.Kvs) > 0 {
		kv := s.kv(res.Kvs[0])
		out.KV = &kv
	}
	return out, nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, opts store.ListOptions) (store.ListResult, error) {
	if err := opts.Check(); err != nil {
		return store.ListResult{}, err
	}
	if err := s.begin(ctx); err != nil {
		return store.ListResult{}, err
	}
	defer s.calls.Done()
	for {
		res, err := s.list(ctx, opts)
		if errors.Is(err, rpctypes.ErrCompacted) && opts.Revision == 0 && ctx.Err() == nil {
			continue // compaction has overtaken the list of the newest revision
		}
		if err != nil {
			return store.ListResult{}, s.readError(ctx, err, fmt.Sprintf("list at revision %d", opts.Revision))
		}
		return res, nil
	}
}

func (s *Store) list(ctx context.Context, opts store.ListOptions) (store.ListResult, error) {
	from := opts.Prefix
	if opts.After >= from && opts.After != "" {
		from = opts.After + "\x00"
	}
	out := store.ListResult{Revision: opts.Revision}
	for {
		key, end := s.bounds(from, opts.Prefix)
		if end != "\x00" && key >= end {
			if out.Revision == 0 {
				rev, err := s.newest(ctx)
				out.Revision = rev
				return out, err
			}
			return out, s.probe(ctx, out.Revision)
		}
		limit := listChunk
		if opts.Limit > 0 {
			limit = min(limit, opts.Limit-len(out.KVs))
		}
		ops := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithRev(out.Revision), clientv3.WithLimit(int64(limit))}
		if opts.KeysOnly {
			ops = append(ops, clientv3.WithKeysOnly())
		}
		res, err := s.client.Get(ctx, key, ops...)
		if err != nil {
			return store.ListResult{}, err
		}
		if out.Revision == 0 {
			out.Revision = res.Header.Revision
		}
		out.KVs = slices.Grow(out.KVs, len(res.Kvs))
		for _, p := range res.Kvs {
			out.KVs = append(out.KVs, s.kv(p))
		}
		out.More, out.Remaining = res.More, res.Count-int64(len(res.Kvs))
		if !res.More || len(out.KVs) == opts.Limit {
			return out, nil
		}
		from = out.KVs[len(out.KVs)-1].Key + "\x00"
	}
}

// probe returns etcd's error for reading at rev, if it cannot be read.
func (s *Store) probe(ctx context.Context, rev int64) error {
	_, err := s.client.Get(ctx, s.opts.Prefix+"\x00", clientv3.WithRev(rev), clientv3.WithCountOnly())
	return err
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	if err := store.CheckOps(ops); err != nil {
		return 0, err
	}
	if err := s.begin(ctx); err != nil {
		return 0, err
	}
	defer s.calls.Done()
	if len(ops) == 0 {
		rev, err := s.newest(ctx)
		if err != nil {
			return 0, s.readError(ctx, err, "commit of nothing")
		}
		return rev, nil
	}
	var compares []clientv3.Cmp
	var then, otherwise []clientv3.Op
	var guarded []int // the ops with conditions, whose keys are read if one does not hold
	for i := range ops {
		op := &ops[i]
		key := s.opts.Prefix + op.Key
		switch op.Kind {
		case store.OpPut:
			then = append(then, clientv3.OpPut(key, string(op.Value)))
		case store.OpDelete:
			then = append(then, clientv3.OpDelete(key))
		}
		cmp := clientv3.ModRevision(key)
		if rev, ok := op.If.Revision(); ok {
			compares = append(compares, clientv3.Compare(cmp, "=", rev))
		} else if op.If == store.Absent() {
			compares = append(compares, clientv3.Compare(cmp, "=", 0))
		} else if op.If == store.Present() {
			compares = append(compares, clientv3.Compare(cmp, ">", 0))
		} else {
			continue
		}
		guarded = append(guarded, i)
		otherwise = append(otherwise, clientv3.OpGet(key))
	}
	res, err := s.client.Txn(ctx).If(compares...).Then(then...).Else(otherwise...).Commit()
	if err != nil {
		return 0, s.commitError(ctx, err)
	}
	if res.Succeeded {
		return res.Header.Revision, nil
	}
	for n, i := range guarded {
		conflict := &store.ConflictError{Key: ops[i].Key, If: ops[i].If, Revision: res.Header.Revision}
		if kvs := res.Responses[n].GetResponseRange().Kvs; len(kvs) > 0 {
			kv := s.kv(kvs[0])
			conflict.Current = &kv
		}
		mod := int64(0)
		if conflict.Current != nil {
			mod = conflict.Current.ModRevision
		}
		if !ops[i].If.Holds(mod) {
			return 0, conflict
		}
	}
	return 0, errors.New("etcdstore: commit: etcd says that a condition does not hold, and all do")
}

// Revision implements store.Store.
func (s *Store) Revision(ctx context.Context) (current, compacted int64, err error) {
	if err := s.begin(ctx); err != nil {
		return 0, 0, err
	}
	defer s.calls.Done()
	// One linearizable read at the last known compaction tells both the newest revision and
	// whether there has been another compaction since.
	for {
		floor := s.compacted.Load()
		res, err := s.client.Get(ctx, s.opts.Prefix+"\x00", clientv3.WithRev(floor), clientv3.WithCountOnly())
		if errors.Is(err, rpctypes.ErrCompacted) {
			err = s.findCompacted(ctx, floor)
			if err == nil {
				continue
			}
		}
		if err != nil {
			return 0, 0, s.readError(ctx, err, "revision")
		}
		s.feed.progress(res.Header.Revision)
		return res.Header.Revision, floor, nil
	}
}

// findCompacted learns the compacted revision, which only a watch that is too late is told.
func (s *Store) findCompacted(ctx context.Context, rev int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for res := range s.client.Watch(ctx, s.opts.Prefix+"\x00", clientv3.WithRev(rev)) {
		if res.CompactRevision > 0 {
			s.raiseCompacted(res.CompactRevision)
			return nil
		}
		if err := res.Err(); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.New("etcdstore: the watch for the compacted revision has ended")
}

func (s *Store) raiseCompacted(rev int64) {
	for {
		old := s.compacted.Load()
		if old >= rev || s.compacted.CompareAndSwap(old, rev) {
			return
		}
	}
}

// Compact implements store.Store. It compacts the whole etcd.
func (s *Store) Compact(ctx context.Context, rev int64) error {
	if rev < 0 {
		return fmt.Errorf("%w: compaction to revision %d", store.ErrInvalid, rev)
	}
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.calls.Done()
	if rev <= s.compacted.Load() {
		return nil
	}
	_, err := s.client.Compact(ctx, rev)
	switch {
	case err == nil:
		s.raiseCompacted(rev)
		return nil
	case errors.Is(err, rpctypes.ErrCompacted):
		return nil
	}
	return s.readError(ctx, err, fmt.Sprintf("compact to revision %d", rev))
}

// Close implements store.Store. It leaves the data in etcd.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.calls.Wait()
		return nil
	}
	s.closed = true
	close(s.done)
	s.mu.Unlock()
	s.feed.close()
	idle := make(chan struct{})
	go func() { s.calls.Wait(); close(idle) }()
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
	err := s.client.Close()
	<-idle
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("etcdstore: close: %w", err)
	}
	return nil
}
