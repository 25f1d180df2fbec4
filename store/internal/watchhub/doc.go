// Package watchhub turns an append-only log of revisions into store.Watchers. A watcher is a
// cursor: it reads the log when its caller asks, so a slow one costs nobody anything. Watchers
// that wait are grouped by prefix and woken together, off the writer's goroutine, and the more
// of them there are the less often they are woken, so that ten thousand cost a writer no more than one.
package watchhub
