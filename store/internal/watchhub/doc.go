// Package watchhub turns an append-only log of revisions into store.Watchers. A watcher is a
// cursor: it reads the log when its caller asks, so a slow one costs nobody anything. Watchers
// that wait are grouped by prefix and woken group by group at a steady pace, on a goroutine of the hub's own that
// a writer only nudges, without a lock, so that ten thousand cost a writer no more than one.
package watchhub
