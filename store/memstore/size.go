package memstore

import (
	"context"

	"github.com/keelson/keelson/store"
)

var _ store.Sizer = (*Store)(nil)

// Size implements store.Sizer. It goes through all keys.
func (s *Store) Size(ctx context.Context) (total, used int64, err error) {
	t, _, err := s.at(ctx, 0)
	if err != nil {
		return 0, 0, err
	}
	t.Ascend("", func(key string, kv *store.KV) bool {
		used += int64(len(key) + len(kv.Value))
		return true
	})
	for _, c := range s.view.Load().log {
		used += c.bytes.Load()
	}
	return used, used, nil
}
