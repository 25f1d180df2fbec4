package boltstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
)

// recovered is a segment as it is found on opening.
type recovered struct {
	segment
	path string
	data []byte
	err  error // why it is none
}

// recover brings v, the state that is in the file, to what the log has, and leaves the log ready to be
// appended to. The file says that it has one of that epoch, needed from segment first on.
func (s *Store) recover(v *view, epoch, first int64) error {
	// What a killed process has written need not be on disk yet; and nothing of it must be shown before it is.
	if err := s.file.harden(); err != nil {
		return err
	}
	s.log, s.epoch, s.needed = newLog(s.path, s.opts.LogBytes), epoch, first
	a, err := s.openSegment(epoch, first)
	if err != nil {
		return err
	}
	b, err := s.openSegment(epoch, first+1)
	if err != nil {
		return err
	}
	if a.err != nil {
		return &DamageError{Path: a.path, Where: fmt.Sprintf("segment %d", first), What: a.err.Error()}
	}
	r := &recovery{s: s, v: v, e: v.tree.Edit(), in: v.rev}
	if b.err != nil {
		err = r.newest(a)
		if err == nil && r.sealed {
			return &DamageError{Path: b.path, Where: fmt.Sprintf("segment %d", first+1), What: b.err.Error()}
		}
	} else {
		err = r.complete(a, b.tail)
		if err == nil && b.base > v.rev {
			return r.bad(a, int(b.tail), fmt.Sprintf("the records behind it, to revision %d, are missing", b.base))
		}
		if err == nil {
			err = r.newest(b)
		}
	}
	if err != nil {
		return err
	}
	v.tree = r.e.Tree()
	s.garbage += s.sizes.trim(v.floor)
	return nil
}

// openSegment reads the file in which a segment should be.
func (s *Store) openSegment(epoch, number int64) (*recovered, error) {
	r := &recovered{path: logPath(s.path, number)}
	f, err := os.OpenFile(r.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		r.err = errors.New("it is missing, and commits were written to it")
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("boltstore: %w", err)
	}
	s.log.files[number%2] = f
	if r.data, err = io.ReadAll(f); err != nil {
		return nil, fmt.Errorf("boltstore: %w", err)
	}
	s.log.sizes[number%2] = int64(len(r.data))
	if r.segment, r.err = decodeSegment(r.data); r.err == nil && (r.epoch != epoch || r.number != number) {
		r.err = fmt.Errorf("it is segment %d of log %x, want segment %d of log %x", r.number, r.epoch, number, epoch)
	}
	return r, nil
}

// recovery applies segments to a state.
type recovery struct {
	s      *Store
	v      *view
	e      editor
	in     int64 // the revision that the file has
	sealed bool
	lastAt int // where the last frame begins, 0 if there is none
}

func (r *recovery) bad(g *recovered, at int, what string) error {
	return &DamageError{Path: g.path, Where: fmt.Sprintf("segment %d, byte %d", g.number, at), What: what}
}

// complete applies a segment whose frames are known to end at tail.
func (r *recovery) complete(g *recovered, tail int64) error {
	if tail < segmentStart || tail > int64(len(g.data)) {
		return r.bad(g, len(g.data), fmt.Sprintf("it ends here, and its records should end at byte %d", tail))
	}
	reached, _, err := r.frames(g, g.data[:tail])
	if err != nil {
		return err
	}
	if reached != int(tail) || r.sealed {
		return r.bad(g, reached, "no valid record begins here")
	}
	return nil
}

// newest applies the newest segment, behind whose last frame there may be a part of another one, and has
// the log go on behind that frame.
func (r *recovery) newest(g *recovered) error {
	r.lastAt = 0
	tail, damaged, err := r.frames(g, g.data)
	if err != nil {
		return err
	}
	if damaged {
		return r.bad(g, tail, "no valid record begins here, and there are some behind it")
	}
	r.s.reserved = max(r.s.reserved, g.reserved)
	l := r.s.log
	l.current, l.tail = g.segment, int64(tail)
	// All but the last frame had been synced before the next one was written. For the last one, see boltFile.harden.
	f := l.file()
	if _, err := f.WriteAt(g.encode(), 0); err != nil {
		return fmt.Errorf("boltstore: %w", err)
	}
	if r.lastAt > 0 {
		if _, err := f.WriteAt(g.data[r.lastAt:tail], int64(r.lastAt)); err != nil {
			return fmt.Errorf("boltstore: %w", err)
		}
	}
	if err := syncData(f); err != nil {
		return fmt.Errorf("boltstore: %w", err)
	}
	l.mark(r.v.rev)
	return nil
}

func (r *recovery) frames(g *recovered, data []byte) (tail int, damaged bool, err error) {
	return g.eachFrame(data, func(at int, f frame) error {
		if r.sealed {
			return r.bad(g, at, "there is a record behind the segment's end")
		}
		if f.kind == frameSeal {
			r.sealed = true
			return nil
		}
		r.lastAt = at
		if err := r.apply(f); err != nil {
			return r.bad(g, at, err.Error())
		}
		return nil
	})
}

// apply makes the changes of a frame.
func (r *recovery) apply(f frame) error {
	s, v := r.s, r.v
	s.reserved, v.floor = max(s.reserved, f.reserved), max(v.floor, f.floor)
	if f.last <= r.in {
		return nil // the file has them
	}
	if f.base != v.rev {
		return fmt.Errorf("it follows revision %d, and the one before it leads to %d", f.base, v.rev)
	}
	var recs []encoded
	err := f.eachRecord(func(rec record) error {
		key := string(rec.key)
		have, ok := r.e.Get(key)
		prev, hasPrev := rec.prevRef()
		if ok != hasPrev || ok && have != prev {
			return fmt.Errorf("revision %d supersedes revision %d of its key, and there is %d", rec.rev, rec.prev, have.mod)
		}
		e := encoded{record: rec, key: key, val: slices.Clone(rec.value)}
		e.record.key, e.record.value = nil, nil
		if rec.deleted {
			r.e.Delete(key)
		} else {
			r.e.Set(key, rec.ref())
		}
		if recs = append(recs, e); rec.index+1 == rec.count {
			s.overlay.add(recs)
			s.recordBytes.Add(s.sizes.add(recs))
			recs = nil
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.frames.hold(f, nil)
	v.rev = f.last
	return nil
}
