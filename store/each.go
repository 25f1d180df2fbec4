package store

import (
	"context"
	"sync"
)

// CommitResult is the answer to one of several commits.
type CommitResult struct {
	Revision int64
	Err      error
}

// EachCommitter is implemented by stores that take several commits at once more cheaply than one by one.
type EachCommitter interface {
	// CommitEach is Store.Commit of each element, in this order, none waiting for the answer to the one before: each is evaluated against
	// the state that the ones before it lead to, raises the revision by itself, and succeeds or fails by itself, with the
	// errors of Commit. It returns one result for each when the last has been answered. Commits of other callers may come between them.
	// A cancelled context ends those that have not been begun.
	CommitEach(ctx context.Context, commits [][]Op) []CommitResult
}

// eachAtOnce is how many commits are under way at once on a store that is no EachCommitter.
const eachAtOnce = 64

// CommitEach makes several commits of which none needs another, and returns their results. On an EachCommitter they happen in the given order,
// on another store in any.
func CommitEach(ctx context.Context, s Store, commits [][]Op) []CommitResult {
	if e, ok := s.(EachCommitter); ok {
		return e.CommitEach(ctx, commits)
	}
	out := make([]CommitResult, len(commits))
	var wg sync.WaitGroup
	seats := make(chan struct{}, eachAtOnce)
	for i, ops := range commits {
		seats <- struct{}{}
		wg.Go(func() {
			out[i].Revision, out[i].Err = s.Commit(ctx, ops...)
			<-seats
		})
	}
	wg.Wait()
	return out
}
