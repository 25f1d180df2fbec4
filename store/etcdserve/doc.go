// Package etcdserve serves a store.Store through etcd v3's gRPC API: the part that Kubernetes
// and ordinary clients use.
//
//	srv, err := etcdserve.New(s, etcdserve.Options{})
//	err = srv.Serve(ctx, listener) // until ctx ends
//
// Range, Put, DeleteRange, Txn (nested too), Compact, Watch (with previous values, filters,
// progress and fragments), leases, MemberList, Status, the health service and Snapshot, from which
// "etcdutl snapshot restore" makes an etcd that goes on at the same revision, are there, with etcd's
// errors. Authentication, membership changes, alarms other than an empty list,
// defragmentation and hashes are not, and are answered as unimplemented. So is, as a duplicate key, a transaction that
// puts a key in one nested transaction and deletes it in a later one. After a restart every lease has its full time again;
// those without keys outlive one only with Options.Leases.
//
// A watch can begin with the compacted revision, whose events have no previous values then, as in etcd; it cannot begin with a
// revision to which the store was compacted by others than clients, or by itself, but behind it. For that, what a client compacts to a revision
// is compacted in the store to the one before.
//
// Keys and values are stored as they are. What etcd knows beyond a store's pairs and revisions, a key's
// version when that is above 1 and its lease, and the order of a transaction's changes when it is not that of their keys, is
// kept in the same commit under keys that begin with "\x00etcd/",
// which clients cannot see; so an API server can use the same store, one after the other. While
// a Server serves a store nobody else should write to it.
package etcdserve
