package boltstore

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

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
	current  ref   // what the conflicting key has
	unread   error // why that cannot be read
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

// run does what there is to write, and ends. It takes in requests and publishes and answers what has become durable, while
// fly, if there is enough to do for two, writes and syncs.
func (s *Store) run() {
	defer s.writer.Done()
	for {
		s.land()
		s.gather()
		s.reap()
		reqs, ended := s.take()
		if ended {
			return
		}
		if len(reqs) > 0 {
			s.admit(reqs)
			s.choresAt = time.Now().Add(idleAfter)
		}
		if !s.launch() {
			s.rest()
		}
	}
}

// rest waits for something to do, and does what is due while there are no requests.
func (s *Store) rest() {
	if s.pipeline.busy() {
		<-s.kicked
		return
	}
	at, more := s.chores()
	switch {
	case !more || !s.await(at):
	case s.relaxedWait() && !s.flushAt.After(at):
		s.admit(nil)
	default:
		s.idle()
	}
}

// take takes what can be evaluated now out of the queue. It reports whether there is nothing left to do, and
// so no goroutine in run any more. What cannot be done beside a batch that is being written waits for that: skipping revisions,
// and relaxed commits, which are published before they are in the log.
func (s *Store) take() (reqs []*request, ended bool) {
	n, bytes, busy := s.pipeline.room()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.queue {
		if len(reqs) >= n || bytes <= 0 || busy && (r.advance || r.relaxed) || r.advance && len(reqs) > 0 {
			break
		}
		reqs = append(reqs, r)
		if bytes -= r.bytes; r.advance {
			break
		}
	}
	s.queue = slices.Delete(s.queue, 0, len(reqs))
	if len(reqs) > 0 || busy {
		return reqs, false
	}
	if _, more := s.chores(); s.closed || !more {
		s.running = false
		return nil, true
	}
	return nil, false
}

// gather lets those that have just been answered queue up again, for as long as more of them come and there is room for them.
func (s *Store) gather() {
	room, _, _ := s.pipeline.room()
	for queued := -1; ; {
		runtime.Gosched()
		s.mu.Lock()
		n := len(s.queue)
		s.mu.Unlock()
		if n <= queued || n >= room {
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

// flushDue reports whether relaxed commits have waited for long enough.
func (s *Store) flushDue() bool {
	return s.relaxedWait() && (time.Until(s.flushAt) <= 0 || s.unflushed() > maxUnflushed || s.unflushedBytes > maxUnflushedBytes)
}

// unflushed is how many relaxed commits wait for the disk.
func (s *Store) unflushed() int { return int(s.view.Load().rev - s.logged) }

// admit evaluates requests, for the batch that is written next.
func (s *Store) admit(reqs []*request) {
	if len(reqs) == 1 && reqs[0].advance {
		reqs[0].done <- result{err: s.advance(reqs[0].advanceTo)}
		return
	}
	if err := s.settle(); err != nil {
		s.flushAt = time.Now().Add(s.opts.RelaxedDelay)
		for _, r := range reqs {
			r.done <- result{err: err}
		}
		return
	}
	if slices.ContainsFunc(reqs, func(r *request) bool { return r.relaxed }) {
		if reqs = s.admitRelaxed(reqs); len(reqs) == 0 {
			return
		}
	}
	p := &s.pipeline
	p.mu.Lock()
	p.joined(s)
	for _, r := range reqs {
		p.joined(s).join(r)
		p.mu.Unlock() // fly may take the open batch away after any of them
		p.mu.Lock()
	}
	p.mu.Unlock()
}

// admitRelaxed publishes and answers the relaxed requests and returns the others. What cannot
// be relaxed now is among them.
func (s *Store) admitRelaxed(reqs []*request) []*request {
	b := s.newBatch(nil)
	var strict []*request
	for _, r := range reqs {
		if !r.relaxed || b.rev >= s.reserved || s.unflushed()+len(b.recs) > maxUnflushed || s.unflushedBytes > maxUnflushedBytes {
			strict = append(strict, r)
			continue
		}
		b.join(r)
	}
	if len(b.reqs) == 0 {
		return strict
	}
	if len(b.recs) > 0 {
		if !s.relaxedWait() {
			s.flushAt = time.Now().Add(s.opts.RelaxedDelay)
		}
		for _, recs := range b.recs {
			for i := range recs {
				s.unflushedBytes += len(recs[i].key) + len(recs[i].val)
			}
		}
		s.show(b)
	}
	b.conflicts(s)
	b.answer(nil, nil)
	return strict
}
