package podlogs

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// Rotate moves a log that has grown over maxSize bytes aside, has reopen make a new one, and keeps at most maxFiles in all, the older ones
// compressed. It tells if it did.
func Rotate(ctx context.Context, path string, maxSize int64, maxFiles int, now time.Time, reopen func(context.Context) error) (bool, error) {
	info, err := os.Stat(path)
	if err != nil || info.Size() < maxSize {
		if os.IsNotExist(err) {
			err = nil
		}
		return false, err
	}
	old, err := rotated(path)
	if err != nil {
		return false, err
	}
	// What a compression that was interrupted left is worthless.
	kept := old[:0]
	for _, name := range old {
		if strings.HasSuffix(name, ".tmp") {
			if err := os.Remove(name); err != nil {
				return false, err
			}
			continue
		}
		kept = append(kept, name)
	}
	old = kept
	// The current log and the one it becomes count too.
	for len(old) > max(maxFiles-2, 0) {
		if err := os.Remove(old[0]); err != nil {
			return false, err
		}
		old = old[1:]
	}
	for _, name := range old {
		if !strings.HasSuffix(name, ".gz") {
			if err := compress(name); err != nil {
				return false, err
			}
		}
	}
	aside := fmt.Sprintf("%s.%s", path, now.UTC().Format("20060102-150405"))
	if err := os.Rename(path, aside); err != nil {
		return false, err
	}
	if err := reopen(ctx); err != nil {
		// The runtime still writes to the file under its new name: give it the old one back.
		if e := os.Rename(aside, path); e != nil {
			return false, fmt.Errorf("%w; and the log could not be moved back: %w", err, e)
		}
		return false, fmt.Errorf("reopening the log: %w", err)
	}
	return true, nil
}

// rotated lists what a log was rotated to, oldest first.
func rotated(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+".") {
			out = append(out, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	sort.Strings(out)
	return out, nil
}

// Remove removes a log and what it was rotated to.
func Remove(path string) error {
	list, err := rotated(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range append(list, path) {
		if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

func compress(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	tmp := path + ".tmp"
	out, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp)
		}
	}()
	z := gzip.NewWriter(out)
	if _, err = io.Copy(z, in); err == nil {
		err = z.Close()
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if err = os.Rename(tmp, path+".gz"); err != nil {
		return err
	}
	return os.Remove(path)
}
