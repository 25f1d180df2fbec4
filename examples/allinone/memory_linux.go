package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settled is when a cluster that has started is done with what only starting needs.
const settled = 10 * time.Second

// giveBack returns, once the cluster has settled, the memory that only its start needed: the free part of the heap, and the pages of the program
// itself. Those are mapped from its file, and come back from there when they are used.
func giveBack(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(settled):
	}
	debug.FreeOSMemory()
	program, err := os.Executable()
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uintptr
		var mode string
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x %4s", &from, &to, &mode); n != 3 || strings.Contains(mode, "w") || !strings.HasSuffix(lines.Text(), " "+program) {
			continue
		}
		// Without effect, nothing is lost.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
	}
}
