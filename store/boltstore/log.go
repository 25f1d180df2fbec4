package boltstore

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// wal is the log in front of the bbolt file. It is used by one goroutine at a time.
type wal struct {
	path  string // of the bbolt file
	limit int64  // what a segment should have at most
	files [2]*os.File
	sizes [2]int64 // how far each file has been written to, so that syncing need not write metadata

	current segment
	tail    int64 // where the next frame goes
	markBuf []byte
	// dead is why nothing may be appended to the current segment any more: after a write or sync has failed
	// nobody knows what of it is on disk, whatever a later sync says.
	dead error

	// How a file is written and synced; tests have that fail.
	write func(f *os.File, b []byte, at int64) (int, error)
	sync  func(f *os.File) error
}

// logPath returns where segment number of the log of the file at path is.
func logPath(path string, number int64) string { return fmt.Sprintf("%s.log%d", path, number%2) }

func newLog(path string, limit int64) *wal {
	return &wal{path: path, limit: limit, write: (*os.File).WriteAt, sync: syncData}
}

// fill is what the log grows by ahead of what is written.
func (l *wal) fill() int64 { return min(max(l.tail, 64<<10), 1<<20, l.limit) }

func (l *wal) file() *os.File { return l.files[l.current.number%2] }

// newEpoch returns a number that no other log has.
func newEpoch() (int64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("boltstore: %w", err)
	}
	return int64(binary.BigEndian.Uint64(b[:])>>1) | 1, nil
}

// begin makes g the current segment, in the file of the one before the last.
func (l *wal) begin(g segment) error {
	i := g.number % 2
	f := l.files[i]
	if f == nil {
		var err error
		if f, err = os.OpenFile(logPath(l.path, g.number), os.O_RDWR|os.O_CREATE|os.O_TRUNC, fileMode); err != nil {
			return fmt.Errorf("boltstore: %w", err)
		}
		l.files[i], l.sizes[i] = f, 0
		if err := syncDir(filepath.Dir(l.path)); err != nil {
			l.files[i] = nil
			f.Close()
			return err
		}
	}
	if l.sizes[i] > 2*l.limit {
		if err := f.Truncate(l.limit); err != nil {
			return fmt.Errorf("boltstore: %w", err)
		}
		l.sizes[i] = l.limit
	}
	if _, err := l.write(f, g.encode(), 0); err != nil {
		return fmt.Errorf("boltstore: %w", err)
	}
	l.sizes[i] = max(l.sizes[i], segmentStart)
	if err := l.sync(f); err != nil {
		return fmt.Errorf("boltstore: %w", err)
	}
	l.current, l.tail, l.dead = g, segmentStart, nil
	return nil
}

// rotate goes on in the next segment, whose file must not be needed any more. If it fails the log
// is dead until it succeeds: the header that it has perhaps written disowns what would come here.
func (l *wal) rotate(base, reserved int64) error {
	last, lastTail, clean := l.current, l.tail, l.dead == nil
	l.dead = errors.New("the next segment has been begun")
	g := segment{epoch: last.epoch, number: last.number + 1, base: base, tail: lastTail, reserved: reserved}
	if err := l.begin(g); err != nil {
		l.dead = err
		return err
	}
	if clean {
		// Without the seal, all that is lost is that the absence of the next segment is noticed.
		f := &frame{kind: frameSeal, base: base, last: base, floor: 1}
		old := l.files[last.number%2]
		if _, err := old.WriteAt(f.end(f.begin(nil), last.seed()), lastTail); err == nil {
			_ = syncData(old)
		}
	}
	return nil
}

// fits reports whether a frame of that many bytes belongs into the current segment.
func (l *wal) fits(n int) bool { return l.tail == segmentStart || l.tail+int64(n) <= l.limit }

// append writes the frame that b holds, as frame.begin has begun it, and makes it durable. If maybe is true,
// the frame may be on disk although there is an error.
func (l *wal) append(fr *frame, b []byte) (maybe bool, err error) {
	if l.dead != nil {
		return false, l.dead
	}
	b = fr.end(b, l.current.seed())
	f, i := l.file(), l.current.number%2
	if end := l.tail + int64(len(b)); end > l.sizes[i] {
		// Blocks that have been written to once can be written and synced without the file system's
		// journal. Should there be no room for that, there may still be for the frame.
		if _, err := f.WriteAt(make([]byte, l.fill()), end); err == nil {
			l.sizes[i] = end + l.fill()
		}
	}
	n, err := l.write(f, b, l.tail)
	if err != nil {
		err = fmt.Errorf("boltstore: %w", err)
		if !noRoom(err) {
			l.dead = err
		}
		return n == len(b), err
	}
	if err := l.sync(f); err != nil {
		l.dead = fmt.Errorf("boltstore: %w", err)
		return true, l.dead
	}
	l.tail += int64(len(b))
	l.sizes[i] = max(l.sizes[i], l.tail)
	l.mark(fr.last)
	return false, nil
}

// mark writes behind the last frame, which leads to revision last, that it is durable. Without the mark, damage to that
// frame would not be noticed; that is all that an error means.
func (l *wal) mark(last int64) {
	f := frame{kind: frameMark, base: last, last: last, floor: 1}
	l.markBuf = f.end(f.begin(l.markBuf[:0]), l.current.seed())
	_, _ = l.file().WriteAt(l.markBuf, l.tail)
}

// noRoom says that a write had no effect but for what it says it wrote.
func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// close closes the files.
func (l *wal) close() {
	for i, f := range l.files {
		if f != nil {
			f.Close()
			l.files[i] = nil
		}
	}
}

// remove removes the log, which is not needed any more.
func (l *wal) remove() error {
	l.close()
	for i := range int64(2) {
		if err := os.Remove(logPath(l.path, i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("boltstore: %w", err)
		}
	}
	return nil
}
