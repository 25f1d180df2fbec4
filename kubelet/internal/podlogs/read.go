package podlogs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"k8s.io/utils/clock"
)

// Options say which part of a log is read and how.
type Options struct {
	// Tail is how many lines from the end on; negative for all.
	Tail int64
	// Limit is how many bytes at most; negative for no limit.
	Limit int64
	// Since leaves out what is older.
	Since time.Time
	// Timestamps puts every line's time before it.
	Timestamps bool
	// Follow goes on with what is written later, until Done says that no more is.
	Follow bool
	// Done tells if the container has ended; it is asked when the end of the log is reached.
	Done func(context.Context) (bool, error)
	// Stream is stdout or stderr, or empty for both.
	Stream string
	Clock  clock.WithTicker
}

// pollPeriod is how often a log that is followed is looked at.
const pollPeriod = 200 * time.Millisecond

// line is one entry of a log.
type line struct {
	time    []byte
	stream  []byte
	partial bool
	text    []byte // without the newline
}

var errMalformed = errors.New("malformed log line")

func parse(b []byte) (line, error) {
	b = bytes.TrimSuffix(b, []byte("\n"))
	var l line
	var tag []byte
	var ok bool
	if l.time, b, ok = bytes.Cut(b, []byte(" ")); !ok {
		return l, errMalformed
	}
	if l.stream, b, ok = bytes.Cut(b, []byte(" ")); !ok {
		return l, errMalformed
	}
	if tag, l.text, ok = bytes.Cut(b, []byte(" ")); !ok {
		return l, errMalformed
	}
	tag, _, _ = bytes.Cut(tag, []byte(":"))
	switch string(tag) {
	case "F":
	case "P":
		l.partial = true
	default:
		return l, errMalformed
	}
	if s := string(l.stream); s != "stdout" && s != "stderr" {
		return l, errMalformed
	}
	return l, nil
}

// Read copies a log to stdout and stderr, which may be the same writer, until its end, the limit, or the end of ctx.
func Read(ctx context.Context, path string, o Options, stdout, stderr io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("failed to try resolving symlinks in path %q: %w", path, err)
	}
	defer func() { _ = f.Close() }()
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Limit == 0 {
		return nil
	}
	if o.Tail >= 0 {
		start, err := tailStart(f, o.Tail)
		if err != nil {
			return err
		}
		if _, err := f.Seek(start, io.SeekStart); err != nil {
			return err
		}
	}
	out := writer{o: &o, stdout: stdout, stderr: stderr, left: o.Limit}
	r := bufio.NewReaderSize(f, 32<<10)
	var pending []byte
	drained, rotated := false, false
	for ctx.Err() == nil {
		chunk, err := r.ReadBytes('\n')
		pending = append(pending, chunk...)
		if err == nil {
			drained = false
			if err := out.write(pending); err != nil || out.left == 0 {
				return err
			}
			pending = pending[:0]
			continue
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		if !o.Follow {
			return out.write(pending)
		}
		if !replaced(f, path) {
			rotated = false
		} else if !rotated {
			// The writer may still be at its last words to the old file.
			rotated = true
		} else {
			g, err := os.Open(path)
			if err == nil {
				rotated = false
				if err := out.write(pending); err != nil {
					_ = g.Close()
					return err
				}
				pending = pending[:0]
				_ = f.Close()
				f = g
				r.Reset(f)
				continue
			}
		}
		if drained {
			// The container had ended before the last look, so there is nothing to come.
			return out.write(pending)
		}
		if o.Done != nil {
			done, err := o.Done(ctx)
			if err != nil {
				return err
			}
			if done {
				drained = true
				continue
			}
		}
		select {
		case <-ctx.Done():
		case <-o.Clock.After(pollPeriod):
		}
	}
	return ctx.Err()
}

// replaced tells if a file is no longer the one at its path: it was rotated.
func replaced(f *os.File, path string) bool {
	b, err := os.Stat(path)
	if err != nil {
		return false
	}
	a, err := f.Stat()
	if err != nil || os.SameFile(a, b) {
		return false
	}
	// What was written to the old file after the last read is still to come.
	at, err := f.Seek(0, io.SeekCurrent)
	return err == nil && at >= a.Size()
}

type writer struct {
	o              *Options
	stdout, stderr io.Writer
	left           int64
	continued      bool // the line before was a part
}

func (w *writer) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	l, err := parse(b)
	if err != nil {
		// A torn line, as after a crash, is passed over.
		return nil
	}
	if w.o.Stream != "" && string(l.stream) != w.o.Stream {
		return nil
	}
	if !w.o.Since.IsZero() {
		t, err := time.Parse(time.RFC3339Nano, string(l.time))
		if err != nil || t.Before(w.o.Since) {
			return nil
		}
	}
	to := w.stdout
	if string(l.stream) == "stderr" {
		to = w.stderr
	}
	var out []byte
	if w.o.Timestamps && !w.continued {
		out = append(append(out, l.time...), ' ')
	}
	out = append(out, l.text...)
	if !l.partial {
		out = append(out, '\n')
	}
	w.continued = l.partial
	if to == nil {
		return nil
	}
	if w.left >= 0 {
		out = out[:min(int64(len(out)), w.left)]
		w.left -= int64(len(out))
	}
	_, err = to.Write(out)
	return err
}

// tailStart finds where the last n lines begin.
func tailStart(f *os.File, n int64) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	end := info.Size()
	if n == 0 {
		return end, nil
	}
	buf := make([]byte, 4096)
	count := int64(0)
	for pos := end; pos > 0; {
		size := min(pos, int64(len(buf)))
		pos -= size
		if _, err := f.ReadAt(buf[:size], pos); err != nil {
			return 0, err
		}
		for i := size - 1; i >= 0; i-- {
			// The newline at the very end closes the last line.
			if buf[i] == '\n' && pos+i+1 < end {
				if count++; count == n {
					return pos + i + 1, nil
				}
			}
		}
	}
	return 0, nil
}

// Tail returns the text of the last lines of a log, cut to so many bytes from the end.
func Tail(path string, lines int64, limit int) ([]byte, error) {
	var b bytes.Buffer
	if err := Read(context.Background(), path, Options{Tail: lines, Limit: -1}, &b, &b); err != nil {
		return nil, err
	}
	out := b.Bytes()
	if len(out) > limit {
		out = out[len(out)-limit:]
	}
	return out, nil
}
