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

	"github.com/keelson/keelson/store/internal/cowtree"
	"github.com/keelson/keelson/store/internal/watchhub"
)

const (
	fileMode = 0o600
	// mmapSize is the address space that a file may grow into before it has to be mapped
	// again, for which bbolt waits until nobody reads.
	mmapSize  = 16 << 30
	allocSize = 4 << 20
	// pageSize is larger than the usual 4 kB so that a page holds many objects: fewer writes, each of which costs
	// a call, and less left empty.
	pageSize = 32 << 10
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
		if err := mustBeNoLog(path); err != nil {
			return nil, err
		}
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
	s.file = &boltFile{path: path, db: s.db, recordBytes: &s.recordBytes}
	if err := s.load(); err != nil {
		if s.log != nil {
			s.log.close()
		}
		_ = s.db.Close()
		return nil, err
	}
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

// mustBeNoLog refuses to make a new file beside the log of one that has been moved away.
func mustBeNoLog(path string) error {
	for i := range int64(2) {
		if _, err := os.Stat(logPath(path, i)); err != nil {
			continue
		}
		// The log is made after the file and removed before it.
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return &DamageError{Path: path, Where: logPath(path, i), What: "it is there and the file that it belongs to is not"}
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
	var version, epoch, segment int64
	err = s.db.View(func(tx *bbolt.Tx) error {
		meta, records := tx.Bucket(metaBucket), tx.Bucket(recordsBucket)
		if meta == nil || records == nil {
			return s.bad("bucket keelson.store or records", "missing; this may be another program's file")
		}
		var ok bool
		if version, ok = getNumber(meta, keyFormat); !ok {
			return s.bad("format", "missing or its checksum is wrong")
		}
		if version != format && version != formatLogged {
			return s.bad("format", fmt.Sprintf("%d, want %d or %d; another version of this program may have written it", version, format, formatLogged))
		}
		numbers := map[string]*int64{string(keyFloor): &v.floor, string(keySwept): &s.file.swept, string(keyReserved): &s.reserved}
		if version == formatLogged {
			numbers[string(keyLog)], numbers[string(keySegment)] = &epoch, &segment
		}
		if meta.Get(keySweeping) != nil {
			numbers[string(keySweeping)] = &s.file.sweeping
		}
		for key, to := range numbers {
			n, ok := getNumber(meta, []byte(key))
			if !ok {
				return s.bad(key, "missing or its checksum is wrong")
			}
			*to = n
		}
		f := s.file
		f.sweeping = max(f.sweeping, f.swept)
		if v.floor < 1 || f.swept < 1 || f.swept > v.floor || f.sweeping > v.floor {
			return s.bad("floor and swept", fmt.Sprintf("%d, %d and %d contradict each other", v.floor, f.swept, f.sweeping))
		}
		return s.replay(records, v)
	})
	if err != nil {
		return err
	}
	s.file.rev, s.file.sweeping = v.rev, s.file.swept // what is left of a pass is looked for once more
	s.overlay.reset(v.rev + 1)
	s.fileRev, s.fileSwept = v.rev, s.file.swept
	if version == formatLogged {
		if err := s.recover(v, epoch, segment); err != nil {
			return err
		}
	}
	s.logged = v.rev
	s.view.Store(v)
	s.hub = watchhub.New(source{s})
	if s.reserved > v.rev {
		// Relaxed commits may have been lost, and their revisions been seen.
		s.opts.Logger.Info("Relaxed commits may have been lost in a crash; history starts anew",
			"path", s.path, "revision", v.rev, "next", s.reserved)
		return s.advance(s.reserved)
	}
	s.reserved = 0
	return nil
}

func (s *Store) bad(where, what string) error {
	return &DamageError{Path: s.path, Where: where, What: what}
}

// replay makes the tree of v, and its revision, out of the records.
func (s *Store) replay(records *bbolt.Bucket, v *view) error {
	e := cowtree.Tree[ref]{}.Edit()
	swept, sweeping := s.file.swept, s.file.sweeping
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
		case r.rev <= sweeping:
			// Some of the revision's records may have been swept.
		case r.rev == last.rev:
			if r.index != last.index+1 || r.count != last.count {
				return check(r, "the record before it is missing")
			}
		case last.rev > sweeping && (!complete || r.rev != last.rev+1), last.rev <= sweeping && r.rev != sweeping+1:
			return check(r, "the records before it are missing")
		case r.index != 0:
			return check(r, "the records before it are missing")
		}
		have, ok := e.Get(string(r.key))
		prev, hasPrev := r.prevRef()
		switch {
		case ok && have.mod == r.rev:
			return check(r, "its key occurs twice in the revision")
		case r.rev > sweeping && (ok != hasPrev || ok && have != prev):
			return check(r, fmt.Sprintf("revision %d of its key, which it supersedes, is missing", r.prev))
		case r.deleted && r.rev > swept:
			e.Delete(string(r.key))
		case r.deleted:
			return check(r, "it should have been swept")
		case r.rev <= swept && ok:
			return check(r, fmt.Sprintf("it should have taken the place of revision %d", have.mod))
		default:
			e.Set(string(r.key), r.ref())
		}
		bytes := int64(len(k) + len(val))
		s.recordBytes.Add(bytes)
		switch {
		case r.rev > v.floor:
			s.sizes.addBytes(r.rev, bytes)
		case r.rev > swept:
			s.garbage += bytes
		}
		last = r
		last.key, last.value = nil, nil
	}
	if last.rev > sweeping && last.index+1 != last.count {
		return check(last, "the records behind it are missing")
	}
	v.rev = max(last.rev, sweeping)
	if v.rev < v.floor {
		return s.bad("floor", fmt.Sprintf("%d is above the last revision %d", v.floor, v.rev))
	}
	v.tree = e.Tree()
	return nil
}
