// Package powercut has the tests of store/boltstore under power cuts and failing disks: a process works on a store
// in a FUSE file system that records every write and sync, and what a disk might hold after a power cut at any
// point of that record is opened again.
package powercut
