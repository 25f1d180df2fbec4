// Package boltstore is the embedded, durable store.Store: one file, on go.etcd.io/bbolt.
//
//	s, err := boltstore.Open("cluster.db", boltstore.Options{})
//	rev, err := s.Commit(ctx, store.Put("a", []byte("1"), store.Absent())) // on disk when it returns
//
// Every change is appended under its revision and never replaced; what compaction, which runs on
// its own, finds obsolete is deleted and its space used again, so the file stays bounded by the
// live data and Options.History however often the same keys are updated. The file does not
// shrink; copying the store to a new one does that.
//
// Commits that come while others are being synced share the next transaction and its two
// fsyncs. A commit is acknowledged, and seen by readers and watchers, after them. When a write
// fails, for example because the disk is full, its writers get the error, nothing of it is kept,
// and the store goes on; when a sync fails so late that the commit may or may not survive a
// power cut, the error wraps store.ErrUnknownOutcome and the commit is shown to nobody before
// it has been settled.
//
// Keys and the place of their values are kept in memory, some 200 bytes a key; values are read from the
// file through the page cache.
//
// Open checks the file: the structure of every page, the checksum of every record, and
// that each revision and each predecessor is there. A damaged or foreign file is refused with a
// *DamageError, and never written to. One process at a time has the file open; the next one gets
// ErrInUse. A file system that lies about fsync, or damage to the newest of bbolt's two
// meta pages, which looks like a commit that was never finished, are beyond what it notices.
package boltstore
