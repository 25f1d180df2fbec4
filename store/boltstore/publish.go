package boltstore

import (
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/keelson/keelson/store"
)

// makeRoom sees to it that there is a log that the frame of b fits into.
func (s *Store) makeRoom(b *batch) error {
	if s.log == nil {
		if err := s.startLog(); err != nil {
			return err
		}
	}
	if !s.log.fits(len(b.data)) {
		return s.rotate()
	}
	return nil
}

// record makes b, which is encoded, durable in the log. If it returns an error, b is not there, unless unknown is
// true: then it may be, and s.unsettled is b until that is known.
func (s *Store) record(b *batch) (unknown bool, err error) {
	if err := s.makeRoom(b); err != nil {
		return false, err
	}
	maybe, err := s.log.append(&b.frame, b.data)
	return s.again(b, maybe, err)
}

// again is told how appending b went. If the segment cannot be trusted any more, it appends b to the next one,
// which disowns what may be of b in this one. It returns what record does.
func (s *Store) again(b *batch, maybe bool, err error) (unknown bool, _ error) {
	if err == nil || s.log.dead == nil {
		return maybe, err
	}
	if maybe {
		s.unsettled = b
	}
	s.opts.Logger.Error(err, "Writing the log failed; going on in its next segment", "path", s.path)
	if rerr := s.rotate(); rerr != nil {
		return maybe, err
	}
	s.unsettled = nil
	if maybe, err = s.log.append(&b.frame, b.data); maybe && err != nil {
		s.unsettled = b
	}
	return maybe, err
}

// settle finds out about a frame of unknown outcome before anything else is done: it is written once more,
// and only then shown to anybody.
func (s *Store) settle() error {
	if s.broken != nil {
		return s.broken
	}
	if s.unsettled == nil {
		return nil
	}
	b := s.unsettled
	if err := s.rotate(); err != nil {
		return fmt.Errorf("boltstore: an earlier commit is not settled: %w", err)
	}
	s.unsettled = nil
	if maybe, err := s.log.append(&b.frame, b.data); err != nil {
		if maybe {
			s.unsettled = b
		}
		return fmt.Errorf("boltstore: an earlier commit is not settled: %w", err)
	}
	s.publish(b)
	return nil
}

// flush makes durable what relaxed commits have not yet.
func (s *Store) flush() error {
	if !s.relaxedWait() {
		return nil
	}
	b := s.newBatch(nil)
	b.encode(&s.frames, &s.overlay)
	if _, err := s.record(b); err != nil {
		return err
	}
	s.publish(b)
	return nil
}

// publish makes b, which is durable, the state of the store.
func (s *Store) publish(b *batch) {
	s.logged, s.reserved, s.unflushedBytes = b.frame.last, b.frame.reserved, 0
	if b.floor > s.view.Load().floor {
		s.hub.Scan()
	}
	b.frame.records = b.data[frameHead:]
	s.frames.hold(b.frame, b.slab)
	s.show(b)
	s.garbage += s.sizes.trim(b.floor)
}

// show publishes what b leads to, to readers and watchers.
func (s *Store) show(b *batch) {
	var events [][]store.Event
	if len(b.recs) > 0 && s.hub.Watched() {
		err := s.read(func(bucket *bbolt.Bucket) (err error) {
			events, err = b.events(s, bucket)
			return err
		})
		if err != nil { // the watchers get it when they read for themselves
			s.opts.Logger.Error(err, "Reading what a commit has replaced failed", "path", s.path)
			events = nil
		}
	}
	for _, r := range b.recs {
		s.recordBytes.Add(s.sizes.add(r))
	}
	s.overlay.add(b.recs...)
	switch {
	case len(events) > 0:
		s.tail.add(b.base+1, events)
	case len(b.recs) > 0:
		s.tail.reset()
	}
	s.view.Store(b.view())
	s.hub.Published()
}
