//go:build !linux

package memstore

import "time"

// These are not known here.
func cpuTime() time.Duration    { return 0 }
func threadTime() time.Duration { return 0 }
