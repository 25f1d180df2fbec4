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
// defragmentation and hashes are not, and are answered as unimplemented. A watch cannot start at
// the compacted revision itself but one above it, and has the events of one revision in the order of their keys. A
// lease that no key was ever attached to does not outlive a restart, one that was revoked when it had no more keys may
// come back with one, and after one every lease has its full time again.
//
// Keys and values are stored as they are. What etcd knows of a key beyond a store's revisions, its
// version when that is above 1 and its lease, is kept in the same commit under keys that begin with "\x00etcd/",
// which clients cannot see; so an API server can use the same store, one after the other. While
// a Server serves a store nobody else should write to it.
package etcdserve
