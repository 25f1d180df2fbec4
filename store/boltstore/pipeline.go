package boltstore

import (
	"fmt"
	"sync"
	"time"

	"github.com/keelson/keelson/store"
)

const (
	// flightMin is how many requests there are at least, of two batches, for one of them to be written while the other is evaluated.
	flightMin = 24
	// turnaround is about what a request takes to be answered, to be followed by the next one of the same writer, and that to be evaluated.
	turnaround = 5 * time.Microsecond
)

// pipeline has up to two batches under way: one that fly writes and syncs, and on top of it an open one, which takes in requests until
// the first is durable. What is open has been seen by nobody: should the one before it fail, its requests are evaluated again.
type pipeline struct {
	mu     sync.Mutex
	open   *batch   // nil if there is none
	flying *batch   // the newest one that fly has got and that has not been published
	flight bool     // there is a goroutine in fly, to which the log belongs
	landed []*batch // those that fly is done with, in order

	crowd  int           // how many requests there were at once of late
	append time.Duration // how long writing and syncing took of late
	always bool          // for tests: a batch is written while the next one is evaluated, whatever that brings
}

// pays reports whether n requests are done sooner in two batches, one of which is evaluated while the other one is
// written, than in one batch: two syncs have to take less than one and the time between them. The caller holds p.mu.
func (p *pipeline) pays(n int) bool {
	return p.always || n >= flightMin && p.append < time.Duration(n)*turnaround
}

// write appends the frame of b to the log.
func (p *pipeline) write(b *batch, l *wal) {
	began := time.Now()
	b.maybe, b.err = l.append(&b.frame, b.data)
	took := time.Since(began)
	p.mu.Lock()
	p.append += (took - p.append) / 4
	p.mu.Unlock()
}

// busy reports whether there is a batch under way.
func (p *pipeline) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flight || p.open != nil || len(p.landed) > 0
}

// room returns how many requests the open batch may still get, and how many bytes of them. Of a crowd, half are written
// while the others are evaluated.
func (p *pipeline) room() (requests, bytes int, busy bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	requests, bytes, busy = maxBatch, maxBatchBytes, p.flight || p.open != nil || len(p.landed) > 0
	if !p.flight && !p.always && p.pays(p.crowd) {
		requests = min(maxBatch, max(1, (p.crowd+1)/2))
	}
	if p.open != nil {
		requests, bytes = requests-len(p.open.reqs), bytes-p.open.bytes
	}
	return requests, bytes, busy
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
		b.answer(nil, nil)
		return true
	}
	b.encode(&s.frames, &s.overlay)
	if err := s.makeRoom(b); err != nil {
		s.complete(b, false, err)
		return true
	}
	// Relaxed commits wait while a batch is in flight, so one that has some is written here.
	p.mu.Lock()
	if b.relaxed || !p.pays(max(p.crowd, len(b.reqs))) {
		p.mu.Unlock()
		p.write(b, s.log)
		s.conclude(b)
		return true
	}
	p.flight, p.flying = true, b
	p.mu.Unlock()
	s.writer.Add(1)
	go s.fly(b)
	return true
}

// fly writes a batch, and then what has become the open one meanwhile, for as long as that pays and nothing else
// has to be done to the log first.
func (s *Store) fly(b *batch) {
	defer s.writer.Done()
	for b != nil {
		s.pipeline.write(b, s.log)
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
	if b.err == nil && next != nil && len(next.recs) > 0 && l.fits(next.room()) {
		if n := len(b.reqs) + len(next.reqs); p.pays(n) && len(next.reqs) >= n/4 {
			p.open, p.flying = nil, next
			return next
		}
	}
	p.flight = false
	return nil
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
	s.mu.Lock()
	crowd := len(b.reqs) + len(s.queue)
	s.mu.Unlock()
	p := &s.pipeline
	p.mu.Lock()
	if p.flying == b {
		p.flying = nil
	}
	for _, other := range []*batch{p.flying, p.open} {
		if other != nil {
			crowd += len(other.reqs)
		}
	}
	p.crowd = crowd
	p.mu.Unlock()
	var unknownErr error
	if unknown {
		unknownErr = fmt.Errorf("%w: %w", store.ErrUnknownOutcome, err)
	}
	b.answer(err, unknownErr)
}
