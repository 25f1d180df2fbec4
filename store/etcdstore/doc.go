// Package etcdstore is a store.Store on etcd v3: the distributed engine, for API servers on
// several machines, and for the etcd of a cluster that already runs.
//
//	s, err := etcdstore.New(ctx, []string{"https://10.0.0.1:2379"}, etcdstore.Options{
//		TLS: tlsConfig, Prefix: "/keelson",
//	})
//
// A commit is one etcd transaction; its conditions are compares of modification revisions. Reads
// at revision 0 are etcd's linearizable reads. The store's revisions are etcd's, which also rise
// by what others write: they are not dense. Keys and values are stored as they are, under Prefix.
//
// When the answer to a commit is lost, or is one that etcd also gives after it has applied it,
// the error wraps store.ErrUnknownOutcome. Only what etcd certainly refused is an ordinary error.
//
// All watchers share one upstream watch, which feeds a log in memory that they read by cursors.
// One that needs what is older than the log reads it from etcd until it has caught up. A loss of
// the connection, a change of leader, and the loss of the member connected to, interrupt a watch
// without a gap; the compaction of what it has not seen ends it with store.ErrCompacted.
//
// To restore a snapshot into an etcd, and have it go on above the revisions that were handed out before, is possible
// within limits: each revision that is skipped takes a write of its own.
//
// etcd limits a transaction to 128 operations and 1.5 MiB by default; a commit beyond that is
// store.ErrInvalid.
package etcdstore
