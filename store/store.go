package store

import (
	"context"
	"errors"
	"fmt"
)

// Errors that every implementation returns, possibly wrapped; test with errors.Is.
var (
	// ErrConflict is wrapped by *ConflictError: a condition of a commit did not hold.
	ErrConflict = errors.New("store: conflict")
	// ErrCompacted reports a revision whose history has been dropped.
	ErrCompacted = errors.New("store: compacted")
	// ErrFutureRevision reports a revision that has not been committed yet.
	ErrFutureRevision = errors.New("store: future revision")
	// ErrClosed reports a call on a store or watcher that has been closed.
	ErrClosed = errors.New("store: closed")
	// ErrUnknownOutcome reports a commit that may or may not have taken effect,
	// for example because the connection broke before the answer came. The caller
	// finds out by reading.
	ErrUnknownOutcome = errors.New("store: unknown outcome")
	// ErrInvalid reports arguments that no state of the store could satisfy.
	ErrInvalid = errors.New("store: invalid argument")
)

// Store is a revisioned key-value store. The state of the whole store moves from one
// revision to the next by one commit; revisions start at 1 for the empty store, are
// dense (each successful commit raises the revision by exactly one, except in stores
// shared with other writers, where it rises by at least one) and survive a restart.
//
// All methods may be called from any number of goroutines. Keys are compared as bytes.
// Values and slices handed in and out are shared and immutable: after a call neither the
// caller nor the store modifies them. Empty values are allowed and are not told apart from nil
// ones; empty keys are not allowed (ErrInvalid), nor are negative revisions and limits.
//
// A cancelled context ends a call with the context's error; for Commit this may happen
// after the commit took effect only if the error also wraps ErrUnknownOutcome.
type Store interface {
	// Get returns the value of key at revision rev, or at the newest revision if rev is 0.
	// The result's Revision is the store revision that was read. A missing key is not an
	// error: KV is nil. Reads at 0 are linearizable: they see every commit that was
	// acknowledged before the call. Errors: ErrCompacted, ErrFutureRevision, ErrClosed.
	Get(ctx context.Context, key string, rev int64) (GetResult, error)

	// List returns the pairs whose key starts with opts.Prefix in ascending key order, all
	// as they were at one revision. Reads at revision 0 are linearizable. Listing blocks no
	// writer. Errors: ErrCompacted, ErrFutureRevision, ErrClosed.
	List(ctx context.Context, opts ListOptions) (ListResult, error)

	// Commit applies ops atomically: all of them, raising the revision by one, or none.
	// Every op's condition is evaluated against the state before the commit. A key may
	// occur in one op only (ErrInvalid). When a condition does not hold the error is a
	// *ConflictError and nothing has changed. The commit is acknowledged (nil error) only
	// once it is as durable as the store promises. A commit of no effective change (only
	// checks, deletes of absent keys) does not raise the revision and returns the current one.
	// Errors: *ConflictError, ErrUnknownOutcome, ErrInvalid, ErrClosed.
	Commit(ctx context.Context, ops ...Op) (rev int64, err error)

	// Watch returns a Watcher of every change, under opts.Prefix, of revisions greater than
	// opts.After: each once, in order, none missing. With After 0 it starts after the newest
	// revision at the time of the call. It may return ErrCompacted if history after opts.After is gone;
	// a watcher that falls behind compaction gets it from Next. Errors: ErrCompacted,
	// ErrFutureRevision, ErrInvalid, ErrClosed. Cancelling ctx after Watch returned has no effect.
	Watch(ctx context.Context, opts WatchOptions) (Watcher, error)

	// Revision returns the newest revision, linearizably, and the oldest that can still be
	// read. After it returned, every open Watcher reports, without further
	// commits, a Batch with a Revision at least as large: what was read through Revision can be
	// waited for on a watcher.
	Revision(ctx context.Context) (current, compacted int64, err error)

	// Compact drops history so that revisions below rev can no longer be read or watched
	// from: reads at, and watches after, a revision lower than rev return ErrCompacted; at rev
	// itself both work. Compacting to a revision already compacted is a no-op; to a
	// revision that was not committed is ErrFutureRevision. Stores may compact on their own.
	Compact(ctx context.Context, rev int64) error

	// Close ends all watchers with ErrClosed, waits for running commits and releases
	// everything; it is idempotent. No goroutine of the store is left when it returns.
	Close() error
}

// KV is one pair and where it comes from.
type KV struct {
	Key   string
	Value []byte
	// CreateRevision is the revision that created the key since it was last absent,
	// ModRevision the one that put this value.
	CreateRevision, ModRevision int64
}

// GetResult is the answer of Store.Get.
type GetResult struct {
	KV       *KV // nil if the key is absent
	Revision int64
}

// ListOptions selects what Store.List returns.
type ListOptions struct {
	Prefix string
	// After, if not empty, starts the page behind this key (exclusive).
	After string
	// Limit bounds the number of pairs; 0 means no bound.
	Limit int
	// Revision to read at; 0 means the newest. Later pages pass the first page's Revision.
	Revision int64
	// KeysOnly leaves out values.
	KeysOnly bool
}

// ListResult is one page.
type ListResult struct {
	KVs      []KV
	Revision int64 // the revision the page was read at
	More     bool  // there are pairs behind the last one
	// Remaining is the number of pairs behind the last one, or -1 if not known.
	Remaining int64
}

// Condition is what an Op requires of its key before the commit.
type Condition struct {
	kind condKind
	rev  int64
}

type condKind uint8

const (
	condAny condKind = iota
	condAbsent
	condPresent
	condAt
)

// Any requires nothing; it is the zero Condition.
func Any() Condition { return Condition{} }

// Absent requires that the key does not exist.
func Absent() Condition { return Condition{kind: condAbsent} }

// Present requires that the key exists.
func Present() Condition { return Condition{kind: condPresent} }

// At requires that the key exists with this ModRevision, which is greater than 0.
func At(modRevision int64) Condition { return Condition{kind: condAt, rev: modRevision} }

// Holds reports whether the condition is met by a key whose ModRevision is modRevision,
// 0 for an absent key.
func (c Condition) Holds(modRevision int64) bool {
	switch c.kind {
	case condAbsent:
		return modRevision == 0
	case condPresent:
		return modRevision != 0
	case condAt:
		return modRevision == c.rev && c.rev > 0
	default:
		return true
	}
}

// Revision returns the revision of At and whether the condition is one.
func (c Condition) Revision() (int64, bool) { return c.rev, c.kind == condAt }

func (c Condition) String() string {
	switch c.kind {
	case condAbsent:
		return "absent"
	case condPresent:
		return "present"
	case condAt:
		return fmt.Sprintf("at revision %d", c.rev)
	default:
		return "any"
	}
}

// OpKind is what an Op does.
type OpKind uint8

const (
	OpPut OpKind = iota
	OpDelete
	// OpCheck changes nothing; its condition guards the other ops.
	OpCheck
)

// Op is one operation of a commit.
type Op struct {
	Kind  OpKind
	Key   string
	Value []byte // of a put
	If    Condition
}

// Put returns an op that sets key to value if cond holds.
func Put(key string, value []byte, cond Condition) Op {
	return Op{Kind: OpPut, Key: key, Value: value, If: cond}
}

// Delete returns an op that removes key if cond holds. Deleting an absent key under Any does nothing.
func Delete(key string, cond Condition) Op { return Op{Kind: OpDelete, Key: key, If: cond} }

// Check returns an op that only requires cond.
func Check(key string, cond Condition) Op { return Op{Kind: OpCheck, Key: key, If: cond} }

// ConflictError says which op's condition failed and what was there instead.
type ConflictError struct {
	Key string
	If  Condition
	// Current is what the key held, nil if it was absent.
	Current *KV
	// Revision is the store revision at which the conditions were evaluated.
	Revision int64
}

func (e *ConflictError) Error() string {
	have := "absent"
	if e.Current != nil {
		have = fmt.Sprintf("at revision %d", e.Current.ModRevision)
	}
	return fmt.Sprintf("%v: %q is %s, want %s", ErrConflict, e.Key, have, e.If)
}

func (e *ConflictError) Unwrap() error { return ErrConflict }

// WatchOptions selects what a Watcher reports.
type WatchOptions struct {
	Prefix string
	// After is the last revision the caller has seen; 0 means the newest at the time of the call.
	After int64
}

// Watcher is a cursor over the log of changes. It is used by one goroutine at a time, except
// Close, which may be called from any.
type Watcher interface {
	// Next blocks until there is something after what it last returned. It returns the changes
	// of one or more whole revisions, never part of one; or an empty Batch that only reports
	// progress. A slow caller delays nobody else and loses nothing that is retained; one that
	// waits in Next is not overtaken by the compaction of revisions without a change for it, nor by that of
	// changes that it has not had the time to return, unless they are more than the store keeps beside its history.
	// Errors, all final but the context's: ErrCompacted when the revisions after the last
	// Batch's are no longer retained, ErrClosed after Close of the watcher or the store.
	Next(ctx context.Context) (Batch, error)
	// Close releases the watcher and ends a blocked Next; it is idempotent.
	Close()
}

// Batch is what Watcher.Next returns.
type Batch struct {
	// Events in the order of their revisions, by key within one revision.
	Events []Event
	// Revision is the one up to which the watcher has now reported everything.
	Revision int64
}

// Event is one change of one key.
type Event struct {
	// KV is the new pair; for a delete it has no Value, CreateRevision is 0 and ModRevision is
	// the revision of the delete.
	KV KV
	// Deleted reports a delete.
	Deleted bool
	// Prev is what the key held before, nil if it was absent.
	Prev *KV
}
