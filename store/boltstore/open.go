package boltstore

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/internal/cowtree"
	"github.com/keelson/keelson/store/internal/watchhub"
)

const (
	fileMode = 0o600
	// mmapSize is the address space that a file may grow into before it has to be mapped
	// again, for which bbolt waits until nobody reads.
	mmapSize  = 16 << 30
	allocSize = 4 << 20
	// pageSize is larger than the usual 4 kB so that a page holds several objects: fewer writes
	// a commit, less left empty.
	pageSize = 8 << 10
)

// Open opens the store in the file at path, which it creates if there is none; the directory must
// exist. Errors: ErrInUse, *DamageError, those of the file system. The store has no goroutine
// but while it has something to do.
func Open(path string, opts Options) (*Store, error) {
	if path == "" {
		return nil, errors.New("boltstore: the path is empty, want the name of a file")
	}
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	s := &Store{opts: opts, path: path, kicked: make(chan struct{}, 1)}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := create(path); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, fmt.Errorf("boltstore: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("boltstore: %s is not a regular file", path)
	}
	// The structure is checked before bbolt believes it. A reader's lock keeps writers away.
	if info == nil || info.Size() > 0 {
		if err := checkLocked(path, opts); err != nil {
			return nil, err
		}
	}
	if s.db, err = openBolt(path, opts, false); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		_ = s.db.Close()
		return nil, err
	}
	s.hub = watchhub.New(source{s})
	return s, nil
}

func openBolt(path string, opts Options, readOnly bool) (db *bbolt.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, &DamageError{Path: path, Where: "opening", What: fmt.Sprint(r)}
		}
	}()
	o := &bbolt.Options{
		Timeout: opts.LockTimeout, ReadOnly: readOnly, NoStatistics: true,
		NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, PageSize: pageSize,
	}
	// Windows makes the file as large as its mapping.
	if !readOnly && runtime.GOOS != "windows" && math.MaxInt > math.MaxInt32 {
		size := int64(mmapSize)
		o.InitialMmapSize = int(size)
	}
	db, err = bbolt.Open(path, fileMode, o)
	switch {
	case err == nil:
		db.AllocSize = allocSize
		return db, nil
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("%w: %s", ErrInUse, path)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, &DamageError{Path: path, Where: "pages 0 and 1", What: "neither is a valid meta page"}
	}
	return nil, fmt.Errorf("boltstore: open %s: %w", path, err)
}

// checkLocked checks the file's structure while nobody writes to it.
func checkLocked(path string, opts Options) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("boltstore: %w", err)
	}
	defer f.Close()
	// Whether bbolt can open it at all is part of the check, but what it makes of less than its
	// first pages is not to be relied on.
	if err := checkMeta(path, f); err != nil {
		return err
	}
	db, err := openBolt(path, opts, true)
	if err != nil {
		return err
	}
	defer db.Close()
	return checkFile(path, f)
}

// create makes a new file that is complete before it has its name, so that a crash leaves no
// half of one.
func create(path string) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".new-*")
	if err != nil {
		return fmt.Errorf("boltstore: create %s: %w", path, err)
	}
	tmp := f.Name()
	defer func() { _ = os.Remove(tmp) }()
	if err := f.Close(); err != nil {
		return fmt.Errorf("boltstore: create %s: %w", path, err)
	}
	db, err := openBolt(tmp, Options{}.withDefaults(), false)
	if err != nil {
		return err
	}
	err = db.Update(initialize)
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("boltstore: create %s: %w", path, err)
	}
	// Link fails if another process was faster; then its file is the one. Where there are no
	// hard links, renaming has to do.
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		if err := os.Rename(tmp, path); err != nil {
			return fmt.Errorf("boltstore: create %s: %w", path, err)
		}
	}
	return syncDir(dir)
}

// syncDir makes a file's name durable.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // directories cannot be synced there
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("boltstore: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("boltstore: sync %s: %w", dir, err)
	}
	return nil
}

func initialize(tx *bbolt.Tx) error {
	meta, err := tx.CreateBucketIfNotExists(metaBucket)
	if err != nil {
		return err
	}
	if _, err := tx.CreateBucketIfNotExists(recordsBucket); err != nil {
		return err
	}
	for key, n := range map[string]int64{string(keyFormat): format, string(keyFloor): 1, string(keySwept): 1, string(keyReserved): 0, string(keyTxn): 1} {
		if err := putNumber(meta, []byte(key), n); err != nil {
			return err
		}
	}
	return nil
}

// load builds the state from the records and checks that they fit together.
func (s *Store) load() error {
	empty := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		k, _ := tx.Cursor().First()
		empty = k == nil
		return nil
	})
	if err == nil && empty {
		err = s.db.Update(initialize)
	}
	if err != nil {
		return fmt.Errorf("boltstore: open %s: %w", s.path, err)
	}
	v := &view{}
	err = s.db.View(func(tx *bbolt.Tx) error {
		meta, records := tx.Bucket(metaBucket), tx.Bucket(recordsBucket)
		if meta == nil || records == nil {
			return s.bad("bucket keelson.store or records", "missing; this may be another program's file")
		}
		version, ok := getNumber(meta, keyFormat)
		if !ok {
			return s.bad("format", "missing or its checksum is wrong")
		}
		if version != format {
			return s.bad("format", fmt.Sprintf("%d, want %d; another version of this program may have written it", version, format))
		}
		for key, to := range map[string]*int64{string(keyFloor): &v.floor, string(keySwept): &s.swept, string(keyReserved): &s.reserved} {
			n, ok := getNumber(meta, []byte(key))
			if !ok {
				return s.bad(key, "missing or its checksum is wrong")
			}
			*to = n
		}
		if v.floor < 1 || s.swept < 1 || s.swept > v.floor {
			return s.bad("floor and swept", fmt.Sprintf("%d and %d contradict each other", v.floor, s.swept))
		}
		return s.replay(records, v)
	})
	if err != nil {
		return err
	}
	if s.reserved > v.rev {
		// Relaxed commits may have been lost, and their revisions been seen.
		s.opts.Logger.Info("Relaxed commits may have been lost in a crash; history starts anew",
			"path", s.path, "revision", v.rev, "next", s.reserved)
		if _, err := s.skip(v.rev, s.reserved); err != nil {
			return err
		}
		v.rev, v.floor = s.reserved, s.reserved
		s.swept = s.reserved
		s.sizes.trim(v.floor)
	}
	s.reserved = 0
	s.view.Store(v)
	return nil
}

// skip writes that to is the newest revision, and the oldest one that can be read, and that
// all obsolete records, up to from, are gone.
func (s *Store) skip(from, to int64) (unknown bool, err error) {
	return s.write(func(tx *bbolt.Tx) error {
		meta, records := tx.Bucket(metaBucket), tx.Bucket(recordsBucket)
		if err := putRecords(records, s.unflushed); err != nil {
			return err
		}
		if _, err := s.sweep(records, meta, s.swept, from, math.MaxInt); err != nil {
			return err
		}
		for key, n := range map[string]int64{string(keyFloor): to, string(keySwept): to, string(keyReserved): 0} {
			if err := putNumber(meta, []byte(key), n); err != nil {
				return err
			}
		}
		return nil
	})
}

// advance is what Advance does, on the goroutine that writes.
func (s *Store) advance(rev int64) error {
	if err := s.settle(); err != nil {
		return err
	}
	v := s.view.Load()
	rev = max(rev, v.rev)
	next := &pending{view: &view{rev: rev, floor: rev, tree: v.tree}, first: rev + 1, flushed: true, swept: rev}
	unknown, err := s.skip(v.rev, rev)
	if err == nil {
		s.publish(next)
	} else if unknown {
		s.unsettled = next
		err = fmt.Errorf("%w: %w", store.ErrUnknownOutcome, err)
	}
	return err
}

func (s *Store) bad(where, what string) error {
	return &DamageError{Path: s.path, Where: where, What: what}
}

// replay makes the tree of v, and its revision, out of the records.
func (s *Store) replay(records *bbolt.Bucket, v *view) error {
	e := cowtree.Tree[ref]{}.Edit()
	last := record{rev: 0}
	check := func(r record, what string) error {
		return s.bad(fmt.Sprintf("revision %d, record %d", r.rev, r.index), what)
	}
	c := records.Cursor()
	for k, val := c.First(); k != nil; k, val = c.Next() {
		r, err := decodeRecord(k, val)
		if err != nil {
			return s.bad(fmt.Sprintf("record %x", k), err.Error())
		}
		complete := last.rev == 0 || last.index+1 == last.count
		switch {
		case r.rev <= s.swept:
			// Some of the revision's records may have been swept.
		case r.rev == last.rev:
			if r.index != last.index+1 || r.count != last.count {
				return check(r, "the record before it is missing")
			}
		case last.rev > s.swept && (!complete || r.rev != last.rev+1), last.rev <= s.swept && r.rev != s.swept+1:
			return check(r, "the records before it are missing")
		case r.index != 0:
			return check(r, "the records before it are missing")
		}
		have, ok := e.Get(string(r.key))
		prev, hasPrev := r.prevRef()
		switch {
		case ok && have.mod == r.rev:
			return check(r, "its key occurs twice in the revision")
		case r.rev > s.swept && (ok != hasPrev || ok && have != prev):
			return check(r, fmt.Sprintf("revision %d of its key, which it supersedes, is missing", r.prev))
		case r.deleted && r.rev > s.swept:
			e.Delete(string(r.key))
		case r.deleted:
			return check(r, "it should have been swept")
		case r.rev <= s.swept && ok:
			return check(r, fmt.Sprintf("it should have taken the place of revision %d", have.mod))
		default:
			e.Set(string(r.key), r.ref())
		}
		if r.rev > v.floor {
			s.sizes.addBytes(r.rev, int64(len(k)+len(val)))
		}
		last = r
		last.key, last.value = nil, nil
	}
	if last.rev > s.swept && last.index+1 != last.count {
		return check(last, "the records behind it are missing")
	}
	v.rev = max(last.rev, s.swept)
	if v.rev < v.floor {
		return s.bad("floor", fmt.Sprintf("%d is above the last revision %d", v.floor, v.rev))
	}
	v.tree = e.Tree()
	return nil
}
