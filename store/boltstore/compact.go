package boltstore

import (
	"cmp"
	"slices"

	"go.etcd.io/bbolt"
)

const (
	// sweepChunk is how many obsolete records are deleted in one transaction.
	sweepChunk = 4096
	// How many bytes of obsolete records are left alone while commits go on, at least and in percent of the file.
	// Sweeping rewrites the pages that they are in, which costs the less the more there are in each:
	// under random updates at 25 percent, each commit has 2.4 records written once more, at 40 percent 1.3.
	garbageMin     = 8 << 20
	garbagePercent = 40
)

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

// add returns how many bytes the records take.
func (z *sizes) add(recs []encoded) (bytes int64) {
	for i := range recs {
		bytes += recs[i].size()
	}
	z.addBytes(recs[0].rev, bytes)
	return bytes
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

// trim forgets what is not after floor, in whole steps, and returns how many bytes that is.
func (z *sizes) trim(floor int64) (bytes int64) {
	n := 0
	for n < len(z.marks) && z.marks[n].last <= floor {
		bytes += z.marks[n].bytes
		n++
	}
	z.bytes -= bytes
	z.marks = append(z.marks[:0], z.marks[n:]...)
	return bytes
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

// sweep deletes a chunk of the records that are obsolete at floor, and reports whether there are more.
// A pass goes through all of them in the order in which they are in the file, so that it
// rewrites each page once.
func (b *boltFile) sweep(floor int64) (more bool, err error) {
	if b.sweeping == b.swept {
		if floor <= b.swept {
			return false, nil
		}
		err := b.db.View(func(tx *bbolt.Tx) (err error) {
			b.obsolete, err = findObsolete(b.path, tx.Bucket(recordsBucket), b.swept, floor)
			return err
		})
		if err != nil {
			return false, err
		}
		b.sweeping = floor
	}
	n := min(len(b.obsolete), sweepChunk)
	done := n == len(b.obsolete)
	freed := int64(0)
	_, err = b.write(func(records, meta *bbolt.Bucket) error {
		if freed, err = deleteRecords(records, b.obsolete[:n]); err != nil {
			return err
		}
		if done {
			return putNumbers(meta, number{keySwept, b.sweeping}, number{keySweeping, b.sweeping})
		}
		return putNumber(meta, keySweeping, b.sweeping)
	})
	if err != nil {
		return true, err
	}
	b.recordBytes.Add(-freed)
	b.obsolete = b.obsolete[n:]
	if done {
		b.swept, b.obsolete = b.sweeping, nil
	}
	return !done, nil
}

// deleteRecords deletes records and returns how many bytes they had.
func deleteRecords(records *bbolt.Bucket, places []place) (bytes int64, err error) {
	c := records.Cursor()
	key := make([]byte, 0, recordKeyLen)
	for _, p := range places {
		key = appendRecordKey(key[:0], p.rev, p.index)
		k, v := c.Seek(key)
		if string(k) != string(key) {
			continue // an earlier pass has deleted it
		}
		bytes += int64(len(k) + len(v))
		if err := c.Delete(); err != nil {
			return bytes, err
		}
	}
	return bytes, nil
}

// place is where a record is in the file.
type place struct {
	rev   int64
	index uint32
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.rev, q.rev), cmp.Compare(p.index, q.index))
}

// findObsolete returns the places of the records that the changes of the revisions in (swept, floor] have made
// obsolete, in order.
func findObsolete(path string, records *bbolt.Bucket, swept, floor int64) (obsolete []place, err error) {
	c := records.Cursor()
	for k, v := c.Seek(recordKey(swept+1, 0)); k != nil; k, v = c.Next() {
		r, err := decodeRecord(k, v)
		if err != nil {
			return nil, damagedRecord(path, ref{mod: r.rev, index: r.index}, err.Error())
		}
		if r.rev > floor {
			break
		}
		if r.prev != 0 {
			obsolete = append(obsolete, place{r.prev, r.prevIndex})
		}
		if r.deleted {
			obsolete = append(obsolete, place{r.rev, r.index})
		}
	}
	slices.SortFunc(obsolete, place.compare)
	return obsolete, nil
}
