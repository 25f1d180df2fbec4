package boltstore

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/internal/cowtree"
)

const (
	// What a frame of the log takes at most, so that its memory and its time are bounded.
	maxBatch      = 4096
	maxBatchBytes = 32 << 20
	// maxCommitBytes is what one commit may have, so that it fits into a frame with what is before it.
	maxCommitBytes = maxFrame / 2
	// How many relaxed commits, and how many bytes of them, wait for the disk before new ones do too.
	maxUnflushed      = 1 << 16
	maxUnflushedBytes = 32 << 20
	// reserveAhead is how many revisions are reserved at once for relaxed commits.
	reserveAhead = 1 << 20
)

type editor = *cowtree.Editor[ref]

// request is a commit or a compaction that waits for its answer.
type request struct {
	ops       []store.Op
	relaxed   bool
	compactTo int64
	advance   bool
	advanceTo int64
	bytes     int
	done      chan result

	// What evaluation found.
	rev      int64 // of the commit, or the newest if it changes nothing
	recs     []encoded
	conflict *store.ConflictError
	current  ref // what the conflicting key has
}

type result struct {
	rev int64
	err error
}

// encoded is a record to be written. Its value is the caller's.
type encoded struct {
	record
	key string
	val []byte
}

// size is about how many bytes the record takes in the file.
func (e *encoded) size() int64 { return int64(len(e.key) + len(e.val) + recordKeyLen + 24) }

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	r, err := s.request(ops)
	if err != nil {
		return 0, err
	}
	return s.submit(ctx, r)
}

// CommitEach implements store.EachCommitter: what is queued together is made durable together.
func (s *Store) CommitEach(ctx context.Context, commits [][]store.Op) []store.CommitResult {
	out := make([]store.CommitResult, len(commits))
	reqs := make([]*request, len(commits))
	queue := make([]*request, 0, len(commits))
	for i, ops := range commits {
		if reqs[i], out[i].Err = s.request(ops); reqs[i] != nil {
			queue = append(queue, reqs[i])
		}
	}
	err := s.begin(ctx)
	if err == nil {
		defer s.calls.Done()
		s.enqueue(queue...)
	}
	for i, r := range reqs {
		switch {
		case r == nil:
		case err != nil:
			out[i].Err = err
		default:
			out[i].Revision, out[i].Err = s.answer(ctx, r)
		}
	}
	return out
}

// request is that of a commit.
func (s *Store) request(ops []store.Op) (*request, error) {
	if err := store.CheckOps(ops); err != nil {
		return nil, err
	}
	r := &request{ops: ops, relaxed: len(ops) > 0 && len(s.opts.RelaxedPrefixes) > 0}
	for i := range ops {
		r.bytes += len(ops[i].Key) + len(ops[i].Value)
		r.relaxed = r.relaxed && s.opts.relaxed(ops[i].Key)
	}
	if r.bytes+len(ops)*recordMax > maxCommitBytes {
		return nil, fmt.Errorf("%w: a commit of %d bytes, at most %d are possible", store.ErrInvalid, r.bytes, maxCommitBytes)
	}
	return r, nil
}

// Compact implements store.Store. The space is freed in the background.
func (s *Store) Compact(ctx context.Context, rev int64) error {
	if rev < 0 {
		return fmt.Errorf("%w: compaction to revision %d", store.ErrInvalid, rev)
	}
	_, err := s.submit(ctx, &request{compactTo: rev})
	return err
}

// Advance implements store.Advancer.
func (s *Store) Advance(ctx context.Context, rev int64) error {
	_, err := s.submit(ctx, &request{advance: true, advanceTo: rev})
	return err
}

func (s *Store) submit(ctx context.Context, r *request) (int64, error) {
	if err := s.begin(ctx); err != nil {
		return 0, err
	}
	defer s.calls.Done()
	s.enqueue(r)
	return s.answer(ctx, r)
}

// enqueue hands requests to the goroutine that writes.
func (s *Store) enqueue(reqs ...*request) {
	if len(reqs) == 0 {
		return
	}
	for _, r := range reqs {
		r.done = make(chan result, 1)
	}
	s.mu.Lock()
	s.queue = append(s.queue, reqs...)
	s.start()
	s.mu.Unlock()
	s.kick()
}

// answer waits for a request's, or takes the request back when ctx ends.
func (s *Store) answer(ctx context.Context, r *request) (int64, error) {
	select {
	case res := <-r.done:
		return res.rev, res.err
	case <-ctx.Done():
	}
	s.mu.Lock()
	i := slices.Index(s.queue, r)
	if i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
	}
	s.mu.Unlock()
	if i >= 0 {
		return 0, ctx.Err()
	}
	select {
	case res := <-r.done:
		return res.rev, res.err
	default:
		return 0, fmt.Errorf("%w: %w", store.ErrUnknownOutcome, ctx.Err())
	}
}

// start starts the goroutine that writes, if there is none. The caller holds s.mu.
func (s *Store) start() {
	if !s.running {
		s.running = true
		s.writer.Add(1)
		go s.run()
	}
}

// kick ends the writing goroutine's waiting.
func (s *Store) kick() {
	select {
	case s.kicked <- struct{}{}:
	default:
	}
}

// run does what there is to write, and ends.
func (s *Store) run() {
	defer s.writer.Done()
	for {
		s.gather()
		s.reap()
		s.mu.Lock()
		n, bytes := 0, 0
		for n < len(s.queue) && n < maxBatch && bytes < maxBatchBytes {
			bytes += s.queue[n].bytes
			n++
		}
		batch := slices.Clone(s.queue[:n])
		s.queue = slices.Delete(s.queue, 0, n)
		at, more := s.chores()
		if n == 0 && (s.closed || !more) {
			s.running = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		switch {
		case n > 0:
			s.processAll(batch)
			s.choresAt = time.Now().Add(idleAfter)
		case !s.await(at):
		case s.relaxedWait() && !s.flushAt.After(at):
			s.process(nil)
		default:
			s.idle()
		}
	}
}

// gather lets those that have just been answered queue up again, for as long as more of them come.
func (s *Store) gather() {
	for queued := -1; ; {
		runtime.Gosched()
		s.mu.Lock()
		n := len(s.queue)
		s.mu.Unlock()
		if n <= queued || n >= maxBatch {
			return
		}
		queued = n
	}
}

// relaxedWait reports whether relaxed commits wait for the disk.
func (s *Store) relaxedWait() bool { return s.view.Load().rev > s.logged }

// chores returns when there is something to be done besides answering requests, if there is.
func (s *Store) chores() (at time.Time, more bool) {
	if s.relaxedWait() {
		at, more = s.flushAt, true
	}
	if s.upkeep == nil && s.behind() && (!more || s.choresAt.Before(at)) {
		at, more = s.choresAt, true
	}
	return at, more
}

// await waits until then and returns true, or false when something else comes before.
func (s *Store) await(then time.Time) bool {
	d := time.Until(then)
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.kicked:
		return false
	}
}

// batch is what process is about to do.
type batch struct {
	s     *Store
	e     editor
	base  int64 // the published revision
	rev   int64
	recs  [][]encoded // by revision from base+1
	floor int64
}

func (s *Store) newBatch(v *view) *batch {
	return &batch{s: s, e: v.tree.Edit(), base: v.rev, rev: v.rev, floor: v.floor}
}

// processAll answers the requests, those to skip revisions one by one.
func (s *Store) processAll(reqs []*request) {
	for len(reqs) > 0 {
		n := 0
		for n < len(reqs) && !reqs[n].advance {
			n++
		}
		if n > 0 {
			s.process(reqs[:n])
			reqs = reqs[n:]
			continue
		}
		reqs[0].done <- result{err: s.advance(reqs[0].advanceTo)}
		reqs = reqs[1:]
	}
}

// pending is what a frame leads to once it is known to be durable.
type pending struct {
	frame  frame
	bytes  []byte // of the frame, as frame.begin has begun it
	slab   *slab  // that bytes is of
	view   *view
	recs   [][]encoded // those that are not published yet
	events [][]store.Event
}

// process answers the requests with at most one frame in the log.
func (s *Store) process(reqs []*request) {
	if err := s.settle(); err != nil {
		s.flushAt = time.Now().Add(s.opts.RelaxedDelay)
		for _, r := range reqs {
			r.done <- result{err: err}
		}
		return
	}
	strict := s.processRelaxed(reqs)
	published := s.view.Load()
	b := s.newBatch(published)
	conflicts := false
	for _, r := range strict {
		if r.ops == nil && r.compactTo > 0 {
			if r.compactTo <= b.base {
				b.floor = max(b.floor, r.compactTo)
			}
			continue
		}
		b.evaluate(r)
		conflicts = conflicts || r.conflict != nil
	}
	b.floor = max(b.floor, s.autoFloor(b))
	reserve := s.reserved
	if b.rev > s.reserved && slices.ContainsFunc(strict, func(r *request) bool { return r.relaxed }) {
		reserve = b.rev + reserveAhead
	}
	var events [][]store.Event
	var err error
	if conflicts || len(b.recs) > 0 && s.hub.Watched() {
		err = s.read(func(bucket *bbolt.Bucket) (err error) {
			if events, err = b.events(bucket); err != nil {
				return err
			}
			return b.conflicts(bucket, strict)
		})
	}
	flush := s.relaxedWait() && (time.Until(s.flushAt) <= 0 || s.unflushed() > maxUnflushed || s.unflushedBytes > maxUnflushedBytes)
	if err != nil || len(b.recs) == 0 && b.floor == published.floor && reserve == s.reserved && !flush {
		b.answer(strict, err, nil)
		return
	}
	next := &pending{
		frame:  frame{base: s.logged, last: b.rev, floor: b.floor, reserved: reserve},
		view:   &view{rev: b.rev, floor: b.floor, tree: b.e.Tree()},
		recs:   b.recs,
		events: events,
	}
	next.encode(&s.frames, s.overlay.revisions(s.logged, b.base), b.recs)
	unknown, err := s.record(next)
	if err == nil {
		s.publish(next)
	} else {
		s.flushAt = time.Now().Add(s.opts.RelaxedDelay)
		s.opts.Logger.Error(err, "Commit failed", "path", s.path, "unknownOutcome", unknown)
	}
	var unknownErr error
	if unknown {
		unknownErr = fmt.Errorf("%w: %w", store.ErrUnknownOutcome, err)
	}
	b.answer(strict, err, unknownErr)
}

// encode makes the bytes of the frame.
func (p *pending) encode(memory *frames, revs ...[][]encoded) {
	n := frameHead + frameTail + sectorLen
	for _, part := range revs {
		for _, recs := range part {
			for i := range recs {
				n += recordMax + len(recs[i].key) + len(recs[i].val)
			}
		}
	}
	p.bytes, p.slab = memory.buffer(n)
	p.bytes = p.frame.begin(p.bytes)
	for _, part := range revs {
		for _, recs := range part {
			for i := range recs {
				p.bytes = appendLogged(p.bytes, &recs[i])
			}
		}
	}
}

// unflushed is how many relaxed commits wait for the disk.
func (s *Store) unflushed() int { return int(s.view.Load().rev - s.logged) }

// answer tells strict requests how it went; unknownErr is for those whose change may survive.
func (b *batch) answer(reqs []*request, err, unknownErr error) {
	for _, r := range reqs {
		res := result{rev: r.rev, err: err}
		switch {
		case unknownErr != nil && (len(r.recs) > 0 || r.compactTo > 0):
			res = result{err: unknownErr}
		case err != nil:
			res = result{err: err}
		case r.compactTo > b.base:
			res.err = fmt.Errorf("%w: compaction to revision %d, the newest is %d", store.ErrFutureRevision, r.compactTo, b.base)
		case r.conflict != nil:
			res = result{err: r.conflict}
		}
		r.done <- res
	}
}

// processRelaxed publishes and answers the relaxed requests and returns the others. What cannot
// be relaxed now is among them.
func (s *Store) processRelaxed(reqs []*request) []*request {
	if len(s.opts.RelaxedPrefixes) == 0 {
		return reqs
	}
	b := s.newBatch(s.view.Load())
	var strict, relaxed []*request
	for _, r := range reqs {
		if !r.relaxed || b.rev >= s.reserved || s.unflushed()+len(b.recs) > maxUnflushed || s.unflushedBytes > maxUnflushedBytes {
			strict = append(strict, r)
			continue
		}
		b.evaluate(r)
		relaxed = append(relaxed, r)
	}
	if len(relaxed) == 0 {
		return strict
	}
	var events [][]store.Event
	err := s.read(func(bucket *bbolt.Bucket) (err error) {
		if events, err = b.events(bucket); err != nil {
			return err
		}
		return b.conflicts(bucket, relaxed)
	})
	if err == nil && len(b.recs) > 0 {
		if !s.relaxedWait() {
			s.flushAt = time.Now().Add(s.opts.RelaxedDelay)
		}
		for _, recs := range b.recs {
			for i := range recs {
				s.unflushedBytes += len(recs[i].key) + len(recs[i].val)
			}
		}
		s.show(&view{rev: b.rev, floor: b.floor, tree: b.e.Tree()}, b.recs, events)
	}
	b.answer(relaxed, err, nil)
	return strict
}

// evaluate looks whether the conditions of r hold and applies its ops to the batch.
func (b *batch) evaluate(r *request) {
	rev := b.rev + 1
	recs := make([]encoded, 0, len(r.ops))
	for i := range r.ops {
		op := &r.ops[i]
		have, ok := b.e.Get(op.Key)
		if !op.If.Holds(have.mod) {
			r.conflict = &store.ConflictError{Key: op.Key, If: op.If, Revision: b.rev}
			r.current = have
			return
		}
		if op.Kind == store.OpCheck || op.Kind == store.OpDelete && !ok {
			continue
		}
		e := encoded{key: op.Key}
		e.rev, e.create = rev, rev
		if ok {
			e.create, e.prev, e.prevIndex = have.create, have.mod, have.index
		}
		if op.Kind == store.OpDelete {
			e.deleted = true
		} else {
			e.val = op.Value
		}
		recs = append(recs, e)
	}
	r.rev = b.rev
	if len(recs) == 0 {
		return
	}
	if len(recs) > 1 {
		slices.SortFunc(recs, func(x, y encoded) int { return strings.Compare(x.key, y.key) })
	}
	for i := range recs {
		e := &recs[i]
		e.index, e.count = uint32(i), uint32(len(recs))
		if e.deleted {
			b.e.Delete(e.key)
		} else {
			b.e.Set(e.key, e.ref())
		}
	}
	b.rev = rev
	b.recs = append(b.recs, recs)
	r.rev, r.recs = rev, recs
}

// value returns the value that r refers to, in the batch or before it.
func (b *batch) value(bucket *bbolt.Bucket, r ref) ([]byte, error) {
	if r.mod > b.base {
		return b.recs[r.mod-b.base-1][r.index].val, nil
	}
	return b.s.value(bucket, r)
}

// events returns what the batch changes, nil if nobody watches.
func (b *batch) events(bucket *bbolt.Bucket) ([][]store.Event, error) {
	if len(b.recs) == 0 || !b.s.hub.Watched() {
		return nil, nil
	}
	out := make([][]store.Event, len(b.recs))
	for i, recs := range b.recs {
		out[i] = make([]store.Event, len(recs))
		for j := range recs {
			r, ev := &recs[j], &out[i][j]
			ev.KV = store.KV{Key: r.key, Value: r.val, CreateRevision: r.create, ModRevision: r.rev}
			if r.deleted {
				ev.Deleted, ev.KV.CreateRevision = true, 0
			}
			if prev, ok := r.prevRef(); ok {
				val, err := b.value(bucket, prev)
				if err != nil {
					return nil, err
				}
				ev.Prev = &store.KV{Key: r.key, Value: val, CreateRevision: prev.create, ModRevision: prev.mod}
			}
		}
	}
	return out, nil
}

// conflicts fills in what the keys of conflicts have.
func (b *batch) conflicts(bucket *bbolt.Bucket, reqs []*request) error {
	for _, r := range reqs {
		if r.conflict == nil || r.current.mod == 0 {
			continue
		}
		val, err := b.value(bucket, r.current)
		if err != nil {
			return err
		}
		r.conflict.Current = &store.KV{
			Key: r.conflict.Key, Value: val, CreateRevision: r.current.create, ModRevision: r.current.mod,
		}
	}
	return nil
}
