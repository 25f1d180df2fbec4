// Package objectcache holds the decoded state of a store: per resource a persistent
// copy-on-write tree for lists at a revision, and an append-only event log read by cursors
// for watches. One watcher of the store feeds it; what this process committed itself enters
// decoded and at once, what others wrote is decoded when it arrives.
//
// Objects are immutable and carry their encodings, each made once, when first asked for.
//
// The package knows nothing of requests, authorization or selectors.
package objectcache
