package store

import "context"

// Sizer is implemented by stores that know how much room they take.
type Sizer interface {
	// Size returns how many bytes the store takes, on disk or in memory, and about how many of these its keys, values and
	// history take; the others are free to be used by what is written next. Errors: ErrClosed, the context's.
	Size(ctx context.Context) (total, used int64, err error)
}
