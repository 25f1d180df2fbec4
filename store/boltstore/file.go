package boltstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
	"unsafe"

	"go.etcd.io/bbolt"
)

var (
	recordsBucket = []byte("records")
	metaBucket    = []byte("keelson.store")

	keyFormat   = []byte("format")
	keyFloor    = []byte("floor")    // the compacted revision
	keySwept    = []byte("swept")    // obsolete records up to this revision are gone
	keySweeping = []byte("sweeping") // those up to this one may be gone; absent is as swept
	keyReserved = []byte("reserved") // relaxed commits use revisions up to this; 0 after a clean Close
	keyTxn      = []byte("txn")      // the number of the last write transaction
	keyLog      = []byte("log")      // the epoch of the log
	keySegment  = []byte("segment")  // the first segment of the log that is needed
)

// A file that has all there is has format 1; formatLogged is one whose newest commits are in the log.
const (
	format       = 1
	formatLogged = 2
)

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

type number struct {
	key []byte
	n   int64
}

func putNumbers(b *bbolt.Bucket, numbers ...number) error {
	for _, n := range numbers {
		if err := putNumber(b, n.key, n.n); err != nil {
			return err
		}
	}
	return nil
}

// boltFile is the bbolt file as who writes it sees it, one goroutine at a time.
type boltFile struct {
	path string
	db   *bbolt.DB

	recordBytes *atomic.Int64 // the store's

	rev      int64   // the newest revision in it
	swept    int64   // obsolete records up to here are gone
	sweeping int64   // the pass that is under way sweeps up to here
	obsolete []place // what the pass has still to delete, sorted

	doubt  error // why the newest transaction may not be on disk, although bbolt shows it
	broken error // why nothing can be written any more
}

// write runs f in a transaction and makes it durable. If it returns an error, nothing of it is in
// the file, unless unknown is true: then it may be.
func (b *boltFile) write(f func(records, meta *bbolt.Bucket) error) (unknown bool, err error) {
	if b.broken != nil {
		return false, b.broken
	}
	if b.doubt != nil {
		// Another transaction would write over pages of the last one that is certainly on disk.
		if err := b.harden(); err != nil {
			return false, fmt.Errorf("boltstore: write %s: %w, and before: %w", b.path, err, b.doubt)
		}
		b.doubt = nil
	}
	var txn int64
	committing, err := b.transact(func(tx *bbolt.Tx) error {
		records, meta := tx.Bucket(recordsBucket), tx.Bucket(metaBucket)
		records.FillPercent = 1 // records are only appended
		last, ok := getNumber(meta, keyTxn)
		if !ok {
			return &DamageError{Path: b.path, Where: "txn", What: "missing or its checksum is wrong"}
		}
		txn = last + 1
		if err := putNumber(meta, keyTxn, txn); err != nil {
			return err
		}
		return f(records, meta)
	})
	if err == nil {
		return false, nil
	}
	err = fmt.Errorf("boltstore: write %s: %w", b.path, err)
	if !committing || b.broken != nil {
		return false, err
	}
	// Nobody knows which of the two meta pages is the newest on disk, but for bbolt, that goes on from what it sees.
	shown := false
	rerr := b.db.View(func(tx *bbolt.Tx) error {
		now, _ := getNumber(tx.Bucket(metaBucket), keyTxn)
		shown = now == txn
		return nil
	})
	if rerr != nil {
		b.broken = fmt.Errorf("%w, and then: %w", err, rerr)
		return true, b.broken
	}
	if herr := b.harden(); herr != nil {
		b.doubt = err
		return true, err
	}
	if shown { // all of its other pages had been synced before
		return false, nil
	}
	return false, err
}

// confirm has both of bbolt's meta pages say what the last transaction has written, so that damage to the newest
// one does not take back what is not in the log too.
func (b *boltFile) confirm() error {
	_, err := b.write(func(_, _ *bbolt.Bucket) error { return nil })
	return err
}

func (b *boltFile) transact(f func(tx *bbolt.Tx) error) (committing bool, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	tx, err := b.db.Begin(true)
	if err != nil {
		return false, err
	}
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		err = &DamageError{Path: b.path, Where: "writing", What: fmt.Sprint(r)}
		b.broken = err // what bbolt keeps in memory cannot be trusted any more
		defer func() { _ = recover() }()
		_ = tx.Rollback()
	}()
	if err := f(tx); err != nil {
		_ = tx.Rollback()
		return false, err
	}
	return true, tx.Commit()
}

// harden writes both meta pages as bbolt sees them and syncs them. After a write or sync has failed, or the
// process that had written them was killed, what the file shows need not be what is on disk, and after
// a failure another sync alone does not change that.
func (b *boltFile) harden() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = &DamageError{Path: b.path, Where: "pages 0 and 1", What: fmt.Sprint(r)}
		}
	}()
	f, err := os.OpenFile(b.path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("boltstore: %w", err)
	}
	defer f.Close()
	info := b.db.Info()
	mapped := *(**byte)(unsafe.Pointer(&info.Data)) // not of Go's heap
	pages := bytes.Clone(unsafe.Slice(mapped, 2*info.PageSize))
	if _, err := f.WriteAt(pages, 0); err != nil {
		return fmt.Errorf("boltstore: %w", err)
	}
	if err := syncData(f); err != nil {
		return fmt.Errorf("boltstore: %w", err)
	}
	return nil
}

// skip writes that to is the newest revision, and the oldest one that can be read, and that
// no obsolete records are left.
func (b *boltFile) skip(to, reserved int64) (unknown bool, err error) {
	if reserved <= to {
		reserved = 0
	}
	freed := int64(0)
	unknown, err = b.write(func(records, meta *bbolt.Bucket) error {
		obsolete, err := findObsolete(b.path, records, b.swept, b.rev)
		if err != nil {
			return err
		}
		if freed, err = deleteRecords(records, obsolete); err != nil {
			return err
		}
		return putNumbers(meta, number{keyFloor, to}, number{keySwept, to}, number{keySweeping, to}, number{keyReserved, reserved})
	})
	if err == nil {
		b.rev, b.swept, b.sweeping, b.obsolete = to, to, to, nil
		b.recordBytes.Add(-freed)
	}
	return unknown, err
}
