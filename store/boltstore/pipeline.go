package boltstore

import (
	"fmt"
	"sync"
	"time"

	"github.com/keelson/keelson/store"
)

// flightMin is how many requests a batch has at least that is written on a goroutine of its own, so that others
// are evaluated meanwhile. For fewer, what that saves is less than what the additional syncs cost.
const flightMin = 16

// pipeline has up to two batches under way: one that fly writes and syncs, and on top of it an open one, which takes in requests until
// the first is durable. What is open has been seen by nobody: should the one before it fail, its requests are evaluated again.
type pipeline struct {
	mu     sync.Mutex
	open   *batch   // nil if there is none
	flying *batch   // the newest one that fly has got and that has not been published
	flight bool     // there is a goroutine in fly, to which the log belongs
	landed []*batch // those that fly is done with, in order
}

// busy reports whether there is a batch under way.
func (p *pipeline) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flight || p.open != nil || len(p.landed) > 0
}

// inFlight reports whether a batch is being written.
func (p *pipeline) inFlight() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flight
}

// room returns how many requests the open batch may still get, and how many bytes of them.
func (p *pipeline) room() (requests, bytes int, busy bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	busy = p.flight || p.open != nil || len(p.landed) > 0
	if p.open == nil {
		return maxBatch, maxBatchBytes, busy
	}
	return maxBatch - len(p.open.reqs), maxBatchBytes - p.open.bytes, busy
}

// joined returns the open batch, which is begun if there is none. The caller holds p.mu.
func (p *pipeline) joined(s *Store) *batch {
	if p.open == nil {
		p.open = s.newBatch(p.flying)
		p.open.raise(s.autoFloor(p.open))
	}
	return p.open
}

// launch writes the open batch, unless one is being written. It reports whether it has done something.
func (s *Store) launch() bool {
	p := &s.pipeline
	p.mu.Lock()
	b := p.open
	if b == nil || p.flight || len(p.landed) > 0 {
		defer p.mu.Unlock()
		return len(p.landed) > 0
	}
	p.open = nil
	p.mu.Unlock()
	if b.relaxed && b.rev > b.reserved {
		b.reserved, b.changed = b.rev+reserveAhead, true
	}
	if len(b.recs) == 0 && !b.changed && !s.flushDue() {
		b.conflicts(s)
		s.answered = len(b.reqs)
		b.answer(nil, nil)
		return true
	}
	b.encode(&s.frames, &s.overlay)
	if err := s.makeRoom(b); err != nil {
		s.complete(b, false, err)
		return true
	}
	// What is relaxed does not go on beside a batch in flight. It is the more often that nothing is.
	if len(b.reqs) < flightMin || b.relaxed {
		b.maybe, b.err = s.log.append(&b.frame, b.data)
		s.conclude(b)
		return true
	}
	p.mu.Lock()
	p.flight, p.flying = true, b
	p.mu.Unlock()
	s.writer.Add(1)
	go s.fly(b)
	return true
}

// fly writes a batch, and then what has become the open one meanwhile, for as long as that is enough and nothing else
// has to be done to the log first.
func (s *Store) fly(b *batch) {
	defer s.writer.Done()
	for b != nil {
		b.maybe, b.err = s.log.append(&b.frame, b.data)
		b = s.pipeline.next(b, s.log)
		s.kick()
		if b != nil {
			b.encode(&s.frames, &s.overlay)
		}
	}
}

// next takes note that b has been written, and returns what is to be written at once, if anything.
func (p *pipeline) next(b *batch, l *wal) *batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.landed = append(p.landed, b)
	next := p.open
	if b.err != nil || next == nil || len(next.reqs) < flightMin || len(next.recs) == 0 || !l.fits(next.room()) {
		p.flight = false
		return nil
	}
	p.open, p.flying = nil, next
	return next
}

// land publishes and answers what has been written.
func (s *Store) land() {
	p := &s.pipeline
	p.mu.Lock()
	landed := p.landed
	p.landed = nil
	p.mu.Unlock()
	for _, b := range landed {
		s.conclude(b)
	}
}

// dissolve queues the requests of the open batch, which is built on one that has failed, once more.
func (s *Store) dissolve() {
	p := &s.pipeline
	p.mu.Lock()
	b := p.open
	p.open = nil
	p.mu.Unlock()
	if b == nil {
		return
	}
	for _, r := range b.reqs {
		r.rev, r.recs, r.conflict, r.current = 0, nil, nil, ref{}
	}
	s.mu.Lock()
	s.queue = append(b.reqs, s.queue...)
	s.mu.Unlock()
}

// conclude is for a batch that has been written, or not.
func (s *Store) conclude(b *batch) {
	unknown, err := s.again(b, b.maybe, b.err)
	s.complete(b, unknown, err)
}

// complete publishes a batch that is durable, and answers its requests.
func (s *Store) complete(b *batch, unknown bool, err error) {
	if err == nil {
		s.publish(b)
		b.conflicts(s)
	} else {
		s.dissolve()
		s.flushAt = time.Now().Add(s.opts.RelaxedDelay)
		s.opts.Logger.Error(err, "Commit failed", "path", s.path, "unknownOutcome", unknown)
	}
	p := &s.pipeline
	p.mu.Lock()
	if p.flying == b {
		p.flying = nil
	}
	p.mu.Unlock()
	var unknownErr error
	if unknown {
		unknownErr = fmt.Errorf("%w: %w", store.ErrUnknownOutcome, err)
	}
	s.answered = len(b.reqs)
	b.answer(err, unknownErr)
}
