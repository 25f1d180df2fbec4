package memstore

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime returns what the process has used of the processors, threadTime what the calling thread has.
func cpuTime() time.Duration    { return used(unix.CLOCK_PROCESS_CPUTIME_ID) }
func threadTime() time.Duration { return used(unix.CLOCK_THREAD_CPUTIME_ID) }

func used(clock int32) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
