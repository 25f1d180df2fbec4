// Package boltstore is the embedded, durable store.Store: one file, on go.etcd.io/bbolt, and a log in front of it.
//
//	s, err := boltstore.Open("cluster.db", boltstore.Options{})
//	rev, err := s.Commit(ctx, store.Put("a", []byte("1"), store.Absent())) // on disk when it returns
//
// Commits that come while others are being synced share the next write to the log and its one sync. A commit is
// acknowledged, and seen by readers and watchers, after that. The log has two files beside the store's,
// cluster.db.log0 and cluster.db.log1, used in turn: when one has Options.LogBytes, its commits are brought into
// the store's file in one large transaction while the other one is written. Open replays what
// the file lacks; Close brings all of it into the file and removes the log, so that a closed store is one file.
//
// Every change is appended under its revision and never replaced; what compaction, which runs on
// its own, finds obsolete is deleted and its space used again, so the file stays bounded by the
// live data and Options.History however often the same keys are updated. The file does not
// shrink; copying the store to a new one does that.
//
// When a write to the log fails for want of room, its writers get the error, nothing of it is kept,
// and the store goes on. When it fails otherwise, or a sync does, what is in that file of the log behind the last
// acknowledged commit is never trusted again: the commit is written to the other file. Only if that fails too, its
// error wraps store.ErrUnknownOutcome, and the commit is shown to nobody before it has been written there. What fails while
// the file is brought up to date loses nothing, since the log has it; it is tried again, and
// writers get errors when the log has no more room meanwhile.
//
// Keys and the place of their values are kept in memory, some 200 bytes a key, and the commits that are only
// in the log; other values are read from the file through the page cache.
//
// Open checks the files: the structure of every page, the checksum of every record, and
// that each revision and each predecessor is there. A damaged or foreign file is refused with a
// *DamageError, and never written to. An unfinished write at the end of the log is no damage, but a record in the log that
// is wrong and has others behind it is. One process at a time has the store open; the next one gets
// ErrInUse. A disk that lies about syncs, or damage to the last record of the log, or to the newest of bbolt's two
// meta pages, which look like something that was never finished, are beyond what it notices.
package boltstore
