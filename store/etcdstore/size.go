package etcdstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/keelson/keelson/store"
)

var _ store.Sizer = (*Store)(nil)

// Size implements store.Sizer: that of the first endpoint's member that answers, with what others keep in the same etcd.
func (s *Store) Size(ctx context.Context) (total, used int64, err error) {
	if err := s.begin(ctx); err != nil {
		return 0, 0, err
	}
	defer s.calls.Done()
	var errs []error
	for _, endpoint := range s.client.Endpoints() {
		attempt, cancel := context.WithTimeout(ctx, s.opts.DialTimeout)
		st, err := s.client.Status(attempt, endpoint)
		cancel()
		if err == nil {
			return st.DbSize, st.DbSizeInUse, nil
		}
		errs = append(errs, err)
	}
	return 0, 0, s.readError(ctx, fmt.Errorf("no member answers: %w", errors.Join(errs...)), "size")
}
