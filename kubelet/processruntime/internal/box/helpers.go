//go:build linux

package box

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/keelson/keelson/kubelet/processruntime/internal/wire"
)

// Pause is the first process of a PID namespace that a pod's containers share: it reaps what is left to it, until
// the shim is gone.
func Pause(ctl *wire.Conn) error {
	chld := make(chan os.Signal, 16)
	signal.Notify(chld, syscall.SIGCHLD)
	defer signal.Stop(chld)
	gone := make(chan error, 1)
	go func() {
		var m Report
		_, err := ctl.Recv(&m)
		gone <- err
	}()
	if err := ctl.Send(Report{Ready: true}); err != nil {
		return err
	}
	for {
		select {
		case <-chld:
			for {
				pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
				if errors.Is(err, syscall.EINTR) {
					continue
				}
				if err != nil || pid <= 0 {
					break
				}
			}
		case err := <-gone:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// Probe tries in its own namespaces what Init would do.
func Probe(ctl *wire.Conn) error {
	var spec ProbeSpec
	if _, err := ctl.Recv(&spec); err != nil {
		return err
	}
	runtime.LockOSThread()
	return ctl.Send(probe(spec))
}

func probe(spec ProbeSpec) (rep ProbeReport) {
	say := func(err error) string {
		if err != nil {
			return err.Error()
		}
		return ""
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		rep.Mount = say(&os.PathError{Op: "make slave", Path: "/", Err: err})
		return rep
	}
	dirs := make(map[string]string)
	for _, name := range []string{"lower", "upper", "work", "root"} {
		dirs[name] = filepath.Join(spec.Dir, name)
		if err := os.MkdirAll(dirs[name], 0o755); err != nil {
			rep.Mount = say(err)
			return rep
		}
	}
	rep.Overlay = say(mountOverlay(dirs["lower"], dirs["upper"], dirs["work"], dirs["root"], spec.UserNS))
	if rep.Overlay != "" {
		rep.Mount = say(mountRoot(&Spec{Rootfs: dirs["root"]}))
		if rep.Mount != "" {
			return rep
		}
	}
	r, err := openRoot(dirs["root"], spec.UserNS)
	if err != nil {
		rep.Mount = say(err)
		return rep
	}
	defer r.close()
	rep.Proc = say(r.mount(Mount{Type: "proc", Source: "proc", Target: "/proc", Flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC}))
	if rep.Proc == "" {
		pts := "newinstance,ptmxmode=0666,mode=0620"
		rep.Mount = say(errors.Join(r.devices(&Spec{}, pts), pivot(dirs["root"])))
	}
	return rep
}

// lockThread keeps the caller on its thread for good: the thread's state is not fit for anything else.
func lockThread() { runtime.LockOSThread() }
