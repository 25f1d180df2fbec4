package boltstore

import (
	"fmt"
	"math"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"github.com/keelson/keelson/store"
)

const (
	// idleAfter is how long nothing is committed before the file is brought up to date.
	idleAfter = time.Second
	// retryAfter is how long that waits after it failed, for example because the disk is full.
	retryAfter = 5 * time.Second
)

// startLog begins a log, and has the file say that there is one.
func (s *Store) startLog() error {
	_ = s.wait()
	// Whoever made the file may have failed to sync its name, and no log may outlive its file.
	if err := syncDir(filepath.Dir(s.path)); err != nil {
		return err
	}
	if s.epoch == 0 {
		var err error
		if s.epoch, err = newEpoch(); err != nil {
			return err
		}
	}
	l := newLog(s.path, s.opts.LogBytes)
	if err := l.begin(segment{epoch: s.epoch, number: 1, base: s.logged, reserved: s.reserved}); err != nil {
		l.close()
		return err
	}
	_, err := s.file.write(func(_, meta *bbolt.Bucket) error {
		return putNumbers(meta, number{keyFormat, formatLogged}, number{keyLog, l.current.epoch}, number{keySegment, l.current.number})
	})
	if err != nil {
		l.close()
		return err
	}
	s.confirm()
	s.log, s.needed = l, l.current.number
	return nil
}

// confirm is boltFile.confirm; it is no reason to fail what has happened.
func (s *Store) confirm() {
	if err := s.file.confirm(); err != nil {
		s.opts.Logger.Error(err, "Writing the second meta page failed", "path", s.path)
	}
}

// rotate goes on in the next segment of the log and has the file brought up to what is in the last one.
func (s *Store) rotate() error {
	s.interrupt()
	if s.needed != s.log.current.number {
		s.upkeepStart(s.log.current.number, false)
		if err := s.wait(); err != nil {
			return err
		}
	}
	if err := s.log.rotate(s.logged, s.reserved); err != nil {
		return err
	}
	s.upkeepStart(s.log.current.number, false)
	return nil
}

// upkeep is work on the file that goes on beside commits.
type upkeep struct {
	to, floor, reserved int64 // what the file is to be brought up to
	segment             int64 // the first of the log that is needed then; 0 if none is
	sweep               bool  // sweep everything, else only if there is much
	garbage             int64 // bytes that are obsolete by floor

	swept bool
	err   error
	done  chan struct{}
}

// behind reports whether the file lacks something, or has what is obsolete.
func (s *Store) behind() bool {
	v := s.view.Load()
	return s.broken == nil && (s.fileRev < s.logged || s.fileSwept < v.floor && v.floor <= s.logged)
}

// interrupt has upkeep end soon and waits for that.
func (s *Store) interrupt() {
	s.hurry.Store(true)
	_ = s.wait()
	s.hurry.Store(false)
}

// upkeepStart begins to bring the file up to what is in the log. No upkeep may be going on.
func (s *Store) upkeepStart(segment int64, sweep bool) {
	u := &upkeep{
		to: s.logged, floor: min(s.view.Load().floor, s.logged), reserved: s.reserved,
		segment: segment, sweep: sweep, garbage: s.garbage, done: make(chan struct{}),
	}
	s.upkeep = u
	s.writer.Add(1)
	go func() {
		defer s.writer.Done()
		s.keepUp(u)
		close(u.done)
		s.mu.Lock()
		if !s.closed {
			s.start() // there may be more to do
		}
		s.mu.Unlock()
		s.kick()
	}()
}

// reap takes note of upkeep that has ended.
func (s *Store) reap() {
	if s.upkeep == nil {
		return
	}
	select {
	case <-s.upkeep.done:
		_ = s.wait()
	default:
	}
}

// wait waits for upkeep to end and returns how it ended.
func (s *Store) wait() error {
	u := s.upkeep
	if u == nil {
		return nil
	}
	<-u.done
	s.upkeep = nil
	s.fileRev, s.fileSwept = s.file.rev, s.file.swept
	if s.fileRev >= u.to && u.segment > 0 {
		s.needed = u.segment
	}
	if u.swept {
		s.garbage -= u.garbage
	}
	if u.err != nil {
		s.choresAt = time.Now().Add(retryAfter)
		s.opts.Logger.Error(u.err, "Bringing the file up to date failed", "path", s.path)
	}
	return u.err
}

// idle brings the file up to date while nothing else is to be done.
func (s *Store) idle() {
	s.reap()
	if s.upkeep != nil || !s.behind() {
		return
	}
	segment := int64(0)
	if s.log != nil {
		segment = s.log.current.number
	}
	s.upkeepStart(segment, true)
}

// keepUp does what u says. It is the only one to use s.file meanwhile.
func (s *Store) keepUp(u *upkeep) {
	b := s.file
	applied := u.to - b.rev
	if u.err = s.bringUp(u.to, u.floor, u.reserved, u.segment); u.err != nil {
		return
	}
	size := int64(0)
	u.err = b.db.View(func(tx *bbolt.Tx) error { size = tx.Size(); return nil })
	if u.err != nil || b.sweeping == b.swept && !u.sweep && u.garbage < max(garbageMin, size/100*garbagePercent) {
		return
	}
	// While commits go on, no more is swept than keeps the file bounded.
	for swept := int64(0); ; swept += sweepChunk {
		if s.hurry.Load() && swept > 2*applied {
			return
		}
		fresh := b.sweeping == b.swept
		more, err := b.sweep(u.floor)
		if u.err = err; err != nil {
			return
		}
		u.swept = u.swept || fresh
		if !more {
			return
		}
	}
}

// bringUp puts what the log has up to revision to into the file. Segment is the first of the log that is
// needed then, 0 if none is.
func (s *Store) bringUp(to, floor, reserved, segment int64) error {
	b := s.file
	_, err := b.write(func(records, meta *bbolt.Bucket) error {
		key := make([]byte, 0, recordKeyLen)
		err := s.frames.each(b.rev, to, func(rev int64, index uint32, v []byte) error {
			return records.Put(appendRecordKey(key, rev, index), v)
		})
		if err != nil {
			return err
		}
		if err := putNumbers(meta, number{keyFloor, floor}, number{keyReserved, reserved}); err != nil {
			return err
		}
		if segment > 0 {
			return putNumber(meta, keySegment, segment)
		}
		return putNumbers(meta, number{keyFormat, format}, number{keyLog, 0}, number{keySegment, 0})
	})
	if err != nil {
		return err
	}
	b.rev = max(b.rev, to)
	s.overlay.trim(to)
	s.frames.trim(to)
	return nil
}

// advance is what Advance does, on the goroutine that writes.
func (s *Store) advance(rev int64) error {
	if err := s.settle(); err != nil {
		return err
	}
	if err := s.flush(); err != nil {
		return err
	}
	_ = s.wait() // should it have failed, the same is tried again
	v := s.view.Load()
	segment := int64(0)
	if s.log != nil {
		segment = s.log.current.number
	}
	if err := s.bringUp(v.rev, v.floor, s.reserved, segment); err != nil {
		return err
	}
	rev = max(rev, v.rev)
	unknown, err := s.file.skip(rev, s.reserved)
	if err != nil {
		if unknown {
			err = fmt.Errorf("%w: %w", store.ErrUnknownOutcome, err)
			s.broken = fmt.Errorf("boltstore: an advance is not settled; open the store again: %w", err)
		}
		return err
	}
	s.confirm()
	s.needed = segment
	s.fileRev, s.fileSwept, s.logged, s.garbage = rev, rev, rev, 0
	if s.reserved <= rev {
		s.reserved = 0
	}
	s.overlay.reset(rev + 1)
	s.hub.Scan()
	s.sizes.trim(math.MaxInt64)
	s.tail.reset()
	s.view.Store(&view{rev: rev, floor: rev, tree: v.tree})
	s.hub.Published()
	return nil
}

// finish leaves everything in the file, at Close.
func (s *Store) finish() error {
	err := s.settle()
	if err == nil {
		err = s.flush()
	}
	_ = s.wait()
	if s.log == nil {
		return err
	}
	if err == nil {
		// Nothing is lost if that fails: it is in the log.
		if ferr := s.bringUp(s.logged, s.view.Load().floor, 0, 0); ferr != nil {
			s.opts.Logger.Error(ferr, "Bringing the file up to date failed; the log is left", "path", s.path)
		} else if ferr := s.log.remove(); ferr != nil {
			s.opts.Logger.Error(ferr, "Removing the log failed", "path", s.path)
		}
	}
	s.log.close()
	return err
}
