// Package boltstore is the embedded, durable store.Store: one file, on go.etcd.io/bbolt, and a log in front of it.
//
//	s, err := boltstore.Open("cluster.db", boltstore.Options{})
//	rev, err := s.Commit(ctx, store.Put("a", []byte("1"), store.Absent())) // on disk when it returns
//
// Commits that come while others are being synced share the next write to the log and its one sync. A commit is
// acknowledged, and seen by readers and watchers, after that. When many come at once and syncing takes less time than they do,
// they are evaluated on top of those that are being synced; should these fail, once more. The log has two files beside the store's,
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
// is wrong and has others behind it is, and so is one behind which the log says that it had been synced. That mark is written
// before the commit is answered, without a sync of its own. One process at a time has the store open; the next one gets
// ErrInUse.
//
// Beyond what Open notices are: a disk that lies about syncs; damage to the very last record of the log that
// comes with a power cut before the operating system has written the mark behind it, or while the next record was being
// written in the mark's place, since what was acknowledged then looks like a write that was never finished; and damage to
// the newest of bbolt's two meta pages, which leads to the one before it: what the last transaction brought into the file is then taken from the log once more, or
// the log that this meta page needs is missing, and that is noticed.
package boltstore
