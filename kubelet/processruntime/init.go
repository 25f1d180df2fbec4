//go:build linux

package processruntime

import (
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/keelson/keelson/kubelet/processruntime/internal/box"
	"github.com/keelson/keelson/kubelet/processruntime/internal/shim"
	"github.com/keelson/keelson/kubelet/processruntime/internal/wire"
)

// initCalled is a fact about this program, not about any Runtime: that it can serve as its own helper.
var initCalled atomic.Bool

// Init must be called first thing in main. In a process that the runtime started as one of its helpers it does the helper's
// work and returns true; main then returns at once. In any other process it does nothing and returns false.
func Init() bool {
	if len(os.Args) != 2 || os.Args[0] != box.HelperName {
		initCalled.Store(true)
		return false
	}
	if err := runHelper(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "%s %s: %v\n", box.HelperName, os.Args[1], err)
	}
	return true
}

// Where a shim finds what it inherits.
const (
	controlFD = 3 + iota
	lockFD
	lifelineFD
)

func runHelper(role string) error {
	ctl, err := wire.FromFile(os.NewFile(controlFD, "control"))
	if err != nil {
		return err
	}
	defer ctl.Close()
	switch role {
	case "shim":
		// Inherited files must not go on to the containers: the lock would outlive the shim.
		unix.CloseOnExec(lockFD)
		unix.CloseOnExec(lifelineFD)
		return shim.Run(ctl, lifelineFD)
	case "init":
		return box.Init(ctl)
	case "exec":
		return box.Exec(ctl)
	case "plain":
		return box.Plain(ctl)
	case "pause":
		return box.Pause(ctl)
	case "probe":
		return box.Probe(ctl)
	}
	return fmt.Errorf("unknown role")
}
