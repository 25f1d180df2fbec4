//go:build linux

package shim

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// maxLine is the longest line of a log entry; what is longer is tagged partial, as CRI's log format has it.
const maxLine = 16 << 10

// logFile writes entries in CRI's log format. A file that can't be written must not stop the workload, so
// errors are kept, not returned.
type logFile struct {
	mu   sync.Mutex
	path string
	f    *os.File
	err  error
}

func openLog(path string) (*logFile, error) {
	l := &logFile{path: path}
	if path == "" {
		return l, nil
	}
	return l, l.reopen()
}

func (l *logFile) reopen() error {
	if l.path == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(l.path), 0o755); err != nil {
		return err
	}
	// From when the new file is to be seen, nothing is written to the old one.
	l.mu.Lock()
	defer l.mu.Unlock()
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	if l.f != nil {
		l.f.Close()
	}
	l.f = f
	return nil
}

func (l *logFile) write(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil && len(p) > 0 {
		_, l.err = l.f.Write(p)
	}
}

func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
}

// lines cuts one stream into entries.
type lines struct {
	log     *logFile
	stream  string
	pending []byte
	out     bytes.Buffer
}

func (w *lines) entry(tag byte, p []byte) {
	w.out.WriteString(time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z07:00"))
	w.out.WriteByte(' ')
	w.out.WriteString(w.stream)
	w.out.WriteByte(' ')
	w.out.WriteByte(tag)
	w.out.WriteByte(' ')
	w.out.Write(p)
	w.out.WriteByte('\n')
}

// add takes output as it comes.
func (w *lines) add(p []byte) {
	w.pending = append(w.pending, p...)
	for {
		i := bytes.IndexByte(w.pending, '\n')
		switch {
		case i >= 0 && i <= maxLine:
			w.entry('F', w.pending[:i])
			w.pending = w.pending[i+1:]
			continue
		case i > maxLine || i < 0 && len(w.pending) > maxLine:
			w.entry('P', w.pending[:maxLine])
			w.pending = w.pending[maxLine:]
			continue
		}
		break
	}
	w.pending = append([]byte(nil), w.pending...)
	w.flush()
}

// end writes what has no newline.
func (w *lines) end() {
	if len(w.pending) > 0 {
		w.entry('F', w.pending)
		w.pending = nil
	}
	w.flush()
}

func (w *lines) flush() {
	w.log.write(w.out.Bytes())
	w.out.Reset()
}
