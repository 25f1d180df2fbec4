package boltstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/keelson/keelson/store"
)

var _ store.Sizer = (*Store)(nil)

// Size implements store.Sizer: what the file and the log take, and the records in them.
func (s *Store) Size(ctx context.Context) (total, used int64, err error) {
	if err := s.begin(ctx); err != nil {
		return 0, 0, err
	}
	defer s.calls.Done()
	for _, path := range []string{s.path, logPath(s.path, 0), logPath(s.path, 1)} {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // there is not always a log
		}
		if err != nil {
			return 0, 0, fmt.Errorf("boltstore: %w", err)
		}
		total += info.Size()
	}
	return total, min(total, s.recordBytes.Load()), nil
}
