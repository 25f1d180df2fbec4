package memstore

import (
	"context"

	"github.com/keelson/keelson/store"
)

var _ store.Sizer = (*Store)(nil)

// Size implements store.Sizer. It goes through all keys.
func (s *Store) Size(ctx context.Context) (total, used int64, err error) {
	at, err := s.at(ctx, 0)
	if err != nil {
		return 0, 0, err
	}
	at.tree.Ascend("", func(key string, p **store.KV) bool {
		used += int64(len(key) + len(at.value(p).Value))
		return true
	})
	for _, c := range at.view.log {
		used += c.bytes.Load()
	}
	return used, used, nil
}
