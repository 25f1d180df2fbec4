// Package memstore is a store.Store in memory: for tests, simulations and clusters that need
// not outlive their process.
//
//	s, err := memstore.New(memstore.Options{})
//	rev, err := s.Commit(ctx, store.Put("a", []byte("1"), store.Absent()))
//	whatIf := s.Fork() // O(1): starts as s and then goes its own way
//
// The state is a tree that readers take a snapshot of without a lock, and they block no writer: a
// commit that adds or removes keys copies the path to them, one that only changes values stores those in place,
// and who reads an older revision finds the former ones in the log. History is kept in one log that
// all watchers read by cursors; it is trimmed on its own to Options.History revisions and
// Options.HistoryBytes bytes. A commit is durable as long as the process lives.
package memstore
