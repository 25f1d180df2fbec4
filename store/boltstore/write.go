package boltstore

import (
	"encoding/binary"
	"fmt"
	"runtime/debug"

	"go.etcd.io/bbolt"

	"github.com/keelson/keelson/store"
)

var (
	recordsBucket = []byte("records")
	metaBucket    = []byte("keelson.store")

	keyFormat   = []byte("format")
	keyFloor    = []byte("floor")    // the compacted revision
	keySwept    = []byte("swept")    // obsolete records up to this revision are gone
	keyReserved = []byte("reserved") // relaxed commits use revisions up to this; 0 after a clean Close
	keyTxn      = []byte("txn")      // the number of the last write transaction
)

const format = 1

// A number is stored with the checksum of its key and itself.
func putNumber(b *bbolt.Bucket, key []byte, n int64) error {
	v := binary.BigEndian.AppendUint64(nil, uint64(n))
	return b.Put(key, binary.BigEndian.AppendUint32(v, checksum(key, v)))
}

func getNumber(b *bbolt.Bucket, key []byte) (n int64, ok bool) {
	v := b.Get(key)
	if len(v) != 12 || binary.BigEndian.Uint32(v[8:]) != checksum(key, v[:8]) {
		return 0, false
	}
	n = int64(binary.BigEndian.Uint64(v))
	return n, n >= 0
}

func putRecords(b *bbolt.Bucket, recs []encoded) error {
	for i := range recs {
		if err := b.Put(recordKey(recs[i].rev, recs[i].index), recs[i].data); err != nil {
			return err
		}
	}
	return nil
}

// pending is what a transaction leads to once it is known to be durable.
type pending struct {
	view     *view
	first    int64 // the revision of recs[0]
	recs     [][]encoded
	events   [][]store.Event
	flushed  bool
	reserved int64
	swept    int64
}

// write runs f in a transaction and makes it durable. If it returns an error, nothing of it
// is in the file, unless unknown is true: then it is, but a power cut may take it out again.
func (s *Store) write(f func(tx *bbolt.Tx) error) (unknown bool, err error) {
	if s.broken != nil {
		return false, s.broken
	}
	var txn int64
	err = s.transact(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		last, ok := getNumber(meta, keyTxn)
		if !ok {
			return s.bad("txn", "missing or its checksum is wrong")
		}
		txn = last + 1
		if err := putNumber(meta, keyTxn, txn); err != nil {
			return err
		}
		return f(tx)
	})
	if err == nil {
		return false, nil
	}
	err = fmt.Errorf("boltstore: write %s: %w", s.path, err)
	rerr := s.db.View(func(tx *bbolt.Tx) error {
		now, _ := getNumber(tx.Bucket(metaBucket), keyTxn)
		unknown = txn != 0 && now == txn
		return nil
	})
	if rerr != nil {
		s.broken = fmt.Errorf("%w, and then: %w", err, rerr)
		return true, s.broken
	}
	return unknown, err
}

func (s *Store) transact(f func(tx *bbolt.Tx) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	tx, err := s.db.Begin(true)
	if err != nil {
		return err
	}
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		err = &DamageError{Path: s.path, Where: "writing", What: fmt.Sprint(r)}
		s.broken = err // what bbolt keeps in memory cannot be trusted any more
		defer func() { _ = recover() }()
		_ = tx.Rollback()
	}()
	if err := f(tx); err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

// settle finds out about a commit of unknown outcome before anything else is done: what the
// file shows of it is made durable by another transaction, and only then shown to anybody.
func (s *Store) settle() error {
	if s.unsettled == nil {
		return s.broken
	}
	if _, err := s.write(func(*bbolt.Tx) error { return nil }); err != nil {
		return fmt.Errorf("boltstore: an earlier commit is not settled: %w", err)
	}
	next := s.unsettled
	s.unsettled = nil
	s.publish(next)
	return nil
}

// publish makes p, which is durable, the state of the store.
func (s *Store) publish(p *pending) {
	if p.flushed {
		s.unflushed = nil
	}
	s.reserved, s.swept = p.reserved, p.swept
	for _, recs := range p.recs {
		s.sizes.add(recs)
	}
	if p.view.floor > s.view.Load().floor {
		s.hub.Scan()
		s.sizes.trim(p.view.floor)
	}
	s.show(p.view, p.first, p.events)
	if p.flushed {
		s.overlay.clear()
	}
}

// show publishes v to readers and watchers.
func (s *Store) show(v *view, first int64, events [][]store.Event) {
	switch {
	case len(events) > 0:
		s.tail.add(first, events)
	case v.rev >= first:
		s.tail.reset()
	}
	s.view.Store(v)
	s.hub.Published()
}

// finish writes what is only in memory, at Close.
func (s *Store) finish() error {
	if err := s.settle(); err != nil {
		return err
	}
	if len(s.unflushed) == 0 && s.reserved == 0 {
		return nil
	}
	_, err := s.write(func(tx *bbolt.Tx) error {
		if err := putRecords(tx.Bucket(recordsBucket), s.unflushed); err != nil {
			return err
		}
		return putNumber(tx.Bucket(metaBucket), keyReserved, 0)
	})
	return err
}
