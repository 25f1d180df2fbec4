// Package store defines Keelson's storage contract: a revisioned, watchable, compactable
// key-value store that every API server sits on.
//
// Store is the interface; memstore keeps everything in memory, boltstore is the embedded
// durable default, etcdstore uses etcd v3. storetest is the suite that an implementation of
// yours runs on itself:
//
//	func TestStore(t *testing.T) { storetest.Run(t, factory) }
//
// The package knows nothing of Kubernetes and imports nothing but the standard library.
package store
