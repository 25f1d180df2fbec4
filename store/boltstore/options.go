package boltstore

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
)

// Options of Open; the zero value is the default.
type Options struct {
	// History is how many revisions before the newest can be read and watched from; 0 means
	// 16384. Up to a quarter more is kept. Negative turns automatic compaction off.
	History int64
	// HistoryBytes bounds how many bytes of records history may have, whatever History says;
	// 0 means 256 MiB.
	HistoryBytes int64
	// RelaxedPrefixes are prefixes of keys whose commits are acknowledged before they are on
	// disk: after a crash the last RelaxedDelay of them may be gone. A commit is relaxed if all
	// its keys have such a prefix. It is for what is soon written again, such as Events and
	// Leases. After a crash of a store with such prefixes its revision rises by a large step
	// and its history is gone, because revisions that were handed out may not be used again.
	// None by default.
	RelaxedPrefixes []string
	// RelaxedDelay is how long a relaxed commit stays off the disk at most; 0 means 100 ms.
	RelaxedDelay time.Duration
	// LogBytes is how large each of the two files of the log becomes before what is in it is brought
	// into the store's file; what is not yet there is also kept in memory, values and encoded. 0 means 16 MiB.
	LogBytes int64
	// LockTimeout is how long Open waits for another process to close the file; 0 means one second.
	LockTimeout time.Duration
	// Logger gets what happens in the background; the zero Logger discards it.
	Logger logr.Logger
}

func (o Options) withDefaults() Options {
	if o.History == 0 {
		o.History = 16384
	}
	if o.HistoryBytes == 0 {
		o.HistoryBytes = 256 << 20
	}
	if o.LogBytes == 0 {
		o.LogBytes = 16 << 20
	}
	if o.RelaxedDelay == 0 {
		o.RelaxedDelay = 100 * time.Millisecond
	}
	if o.LockTimeout == 0 {
		o.LockTimeout = time.Second
	}
	o.RelaxedPrefixes = slices.Clone(o.RelaxedPrefixes)
	return o
}

func (o Options) validate() error {
	switch {
	case o.HistoryBytes < 0:
		return fmt.Errorf("boltstore: Options.HistoryBytes is %d, want at least 0", o.HistoryBytes)
	case o.LogBytes < 64<<10:
		return fmt.Errorf("boltstore: Options.LogBytes is %d, want at least 64 KiB", o.LogBytes)
	case o.RelaxedDelay < 0:
		return fmt.Errorf("boltstore: Options.RelaxedDelay is %v, want at least 0", o.RelaxedDelay)
	case o.LockTimeout < 0:
		return fmt.Errorf("boltstore: Options.LockTimeout is %v, want at least 0", o.LockTimeout)
	case slices.Contains(o.RelaxedPrefixes, ""):
		return fmt.Errorf("boltstore: Options.RelaxedPrefixes has an empty prefix, want at least one character")
	}
	return nil
}

func (o Options) relaxed(key string) bool {
	for _, p := range o.RelaxedPrefixes {
		if strings.HasPrefix(key, p) {
			return true
		}
	}
	return false
}
