// Package memstore is a store.Store in memory: for tests, simulations and clusters that need
// not outlive their process.
//
//	s, err := memstore.New(memstore.Options{})
//	rev, err := s.Commit(ctx, store.Put("a", []byte("1"), store.Absent()))
//	whatIf := s.Fork() // O(1): starts as s and then goes its own way
//
// The state is a persistent tree: reads and lists take a snapshot without a lock and block no
// writer. History is kept in one log that all watchers read by cursors; it is trimmed on its
// own to Options.History revisions and Options.HistoryBytes bytes. A commit is durable as long as
// the process lives.
package memstore
