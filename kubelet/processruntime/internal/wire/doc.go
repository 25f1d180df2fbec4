// Package wire frames the messages that processruntime, its shims and their helpers exchange over unix sockets:
// JSON with a length before it, open files beside it, and for attached streams binary frames.
package wire
