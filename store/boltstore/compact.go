package boltstore

import (
	"time"

	"go.etcd.io/bbolt"
)

// sweepRetry is how long sweeping waits after it failed, for example because the disk is full.
const sweepRetry = 5 * time.Second

// sizes knows how many bytes of records the revisions of history have, in steps.
type sizes struct {
	marks []mark
	bytes int64
}

type mark struct {
	first, last int64
	bytes       int64
}

const markLen = 256

func (z *sizes) add(recs []encoded) {
	n := int64(0)
	for i := range recs {
		n += int64(len(recs[i].data) + recordKeyLen)
	}
	z.addBytes(recs[0].rev, n)
}

func (z *sizes) addBytes(rev, n int64) {
	if len(z.marks) == 0 || rev >= z.marks[len(z.marks)-1].first+markLen {
		z.marks = append(z.marks, mark{first: rev})
	}
	m := &z.marks[len(z.marks)-1]
	m.last = rev
	m.bytes += n
	z.bytes += n
}

func (z *sizes) trim(floor int64) {
	n := 0
	for n < len(z.marks) && z.marks[n].last <= floor {
		z.bytes -= z.marks[n].bytes
		n++
	}
	z.marks = append(z.marks[:0], z.marks[n:]...)
}

// autoFloor returns the revision to which history is to be compacted after the batch.
func (s *Store) autoFloor(b *batch) int64 {
	if s.opts.History < 0 {
		return 0
	}
	floor := int64(0)
	if b.base-b.floor > s.opts.History+s.opts.History/4 {
		floor = b.base - s.opts.History
	}
	over := s.sizes.bytes - s.opts.HistoryBytes
	for i := 0; over > 0 && i < len(s.sizes.marks); i++ {
		over -= s.sizes.marks[i].bytes
		floor = max(floor, min(s.sizes.marks[i].last, b.base))
	}
	return floor
}

// sweepIdle sweeps a piece while nothing else is to be done.
func (s *Store) sweepIdle() {
	floor := s.view.Load().floor
	err := s.settle()
	if err == nil {
		var unknown bool
		swept := s.swept
		unknown, err = s.write(func(tx *bbolt.Tx) (err error) {
			swept, err = s.sweep(tx.Bucket(recordsBucket), tx.Bucket(metaBucket), swept, floor, sweepChunk)
			return err
		})
		if err == nil {
			s.swept = swept
			return
		}
		if unknown {
			v := s.view.Load()
			s.unsettled = &pending{view: v, first: v.rev + 1, reserved: s.reserved, swept: swept}
		}
	}
	s.opts.Logger.Error(err, "Compaction failed", "path", s.path)
	s.sweepAt = time.Now().Add(sweepRetry)
}

// sweep deletes the records that changes of the revisions in (swept, floor] have made obsolete,
// about limit of them, and returns the revision up to which it came.
func (s *Store) sweep(records, meta *bbolt.Bucket, swept, floor int64, limit int) (int64, error) {
	var obsolete [][]byte
	c := records.Cursor()
	reached := floor
	for k, v := c.Seek(recordKey(swept+1, 0)); k != nil; k, v = c.Next() {
		r, err := decodeRecord(k, v)
		if err != nil {
			return swept, s.damaged(ref{mod: r.rev, index: r.index}, err.Error())
		}
		if r.rev > floor {
			break
		}
		if r.index == 0 && len(obsolete) >= limit {
			reached = r.rev - 1
			break
		}
		if r.prev != 0 {
			obsolete = append(obsolete, recordKey(r.prev, r.prevIndex))
		}
		if r.deleted {
			obsolete = append(obsolete, recordKey(r.rev, r.index))
		}
	}
	for _, k := range obsolete {
		if err := records.Delete(k); err != nil {
			return swept, err
		}
	}
	return reached, putNumber(meta, keySwept, reached)
}
