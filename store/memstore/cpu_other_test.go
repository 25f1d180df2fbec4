//go:build !unix

package memstore

import "time"

// cpuTime is not known here.
func cpuTime() time.Duration { return 0 }
