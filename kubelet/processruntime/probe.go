//go:build linux

package processruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"syscall"
	"time"

	"github.com/keelson/keelson/kubelet/processruntime/internal/box"
	"github.com/keelson/keelson/kubelet/processruntime/internal/cgroup"
	"github.com/keelson/keelson/kubelet/processruntime/internal/imagestore"
	"github.com/keelson/keelson/kubelet/processruntime/internal/shim"
	"github.com/keelson/keelson/kubelet/processruntime/internal/wire"
)

// probe chooses the level by trying, which alone tells what seccomp filters, security modules and sysctls leave.
func (r *Runtime) probe() error {
	want := r.opts.Isolation
	var reasons []error
	levels := []shim.Level{shim.LevelNamespaces, shim.LevelUserNS, shim.LevelNone}
	for _, level := range levels {
		if want != IsolationAuto && string(want) != string(level) {
			continue
		}
		rep, err := r.try(level)
		if err == nil {
			r.level, r.overlay = level, level != shim.LevelNone && rep.Overlay == ""
			if r.opts.Snapshotter == "overlay" && !r.overlay {
				return fmt.Errorf("Options.Snapshotter is overlay, which does not work here: %s", rep.Overlay)
			}
			if r.opts.Snapshotter == "copy" {
				r.overlay = false
			}
			r.choose(reasons)
			return nil
		}
		reasons = append(reasons, fmt.Errorf("%s: %w", level, err))
	}
	return fmt.Errorf("Options.Isolation %s is not permitted on this machine: %w", want, errors.Join(reasons...))
}

func (r *Runtime) choose(reasons []error) {
	if len(reasons) > 0 && r.opts.Isolation == IsolationAuto {
		r.why = reasons[len(reasons)-1].Error()
	}
	if r.level == shim.LevelNamespaces && !r.opts.DisableCgroups {
		h, err := cgroup.Detect()
		if err != nil {
			r.opts.Logger.Info("containers have no resource limits", "reason", err.Error())
		} else {
			r.cgroups = h
		}
	}
	r.opts.Logger.Info("process runtime", "isolation", r.Isolation())
}

func (r *Runtime) try(level shim.Level) (box.ProbeReport, error) {
	var rep box.ProbeReport
	if level == shim.LevelNone {
		return rep, nil
	}
	if level == shim.LevelNamespaces && os.Geteuid() != 0 {
		return rep, errors.New("needs root")
	}
	dir, err := os.MkdirTemp(r.opts.Root, "probe-")
	if err != nil {
		return rep, err
	}
	defer func() { _ = imagestore.RemoveAll(dir) }()
	sys := &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS}
	if level == shim.LevelUserNS {
		mapOneUser(sys)
	} else if r.opts.Network != nil && !r.sharedAddresses() {
		sys.Cloneflags |= syscall.CLONE_NEWNET
	}
	ctl, child, err := wire.Pair()
	if err != nil {
		return rep, err
	}
	defer ctl.Close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		child.Close()
		return rep, err
	}
	defer null.Close()
	p, err := os.StartProcess(r.exe, []string{box.HelperName, "probe"}, &os.ProcAttr{Env: helperEnv(), Files: []*os.File{null, null, null, child}, Sys: sys})
	child.Close()
	if err != nil {
		return rep, err
	}
	defer func() {
		_ = p.Kill()
		_, _ = p.Wait()
	}()
	if level == shim.LevelNamespaces {
		r.lowestOOM = lowestOOM(p.Pid)
	}
	_ = ctl.SetDeadline(time.Now().Add(r.opts.StartTimeout))
	if err := ctl.Send(box.ProbeSpec{Dir: dir, UserNS: level == shim.LevelUserNS}); err != nil {
		return rep, err
	}
	if _, err := ctl.Recv(&rep); err != nil {
		return rep, fmt.Errorf("the probe gave no answer: %w", err)
	}
	for _, msg := range []string{rep.Mount, rep.Proc} {
		if msg != "" {
			return rep, errors.New(msg)
		}
	}
	return rep, nil
}

// lowestOOM finds the lowest oom_score_adj that this program may give to a process. Who has CAP_SYS_RESOURCE in the initial user
// namespace may give any; others none below what such a one gave last. If nothing can be written, it is above all scores.
func lowestOOM(pid int) int64 {
	const lowest, highest = -1000, 1000
	file := fmt.Sprintf("/proc/%d/oom_score_adj", pid)
	return lowest + int64(sort.Search(highest-lowest+1, func(i int) bool {
		return os.WriteFile(file, []byte(strconv.Itoa(lowest+i)), 0) == nil
	}))
}

// mapOneUser makes a user namespace in which the caller is root and nobody else exists.
func mapOneUser(sys *syscall.SysProcAttr) {
	sys.Cloneflags |= syscall.CLONE_NEWUSER
	sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
}

func helperEnv() []string {
	return []string{"GOMAXPROCS=2", "GOGC=20", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
}

// startShim starts a sandbox's shim and waits until it serves.
func (r *Runtime) startShim(ctx context.Context, sb *sandbox, cfg shim.Config) error {
	sys := &syscall.SysProcAttr{Setsid: true}
	switch r.level {
	case shim.LevelUserNS:
		mapOneUser(sys)
		sys.Cloneflags |= syscall.CLONE_NEWUTS
		fallthrough
	case shim.LevelNamespaces:
		if !sb.rec.HostIPC {
			sys.Cloneflags |= syscall.CLONE_NEWIPC
		}
		sys.Cloneflags |= syscall.CLONE_NEWUTS
		if sb.rec.NetNS {
			sys.Cloneflags |= syscall.CLONE_NEWNET
		}
	}
	lock, err := sb.lockShim()
	if err != nil {
		return err
	}
	defer lock.Close()
	logf, err := os.OpenFile(filepath.Join(sb.dir, "shim.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logf.Close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	ctl, child, err := wire.Pair()
	if err != nil {
		return err
	}
	defer ctl.Close()
	files := []*os.File{null, logf, logf, child, lock}
	if r.lifelineRead != nil {
		files = append(files, r.lifelineRead)
		cfg.Lifeline = true
	}
	p, err := os.StartProcess(r.exe, []string{box.HelperName, "shim"}, &os.ProcAttr{Dir: "/", Env: helperEnv(), Files: files, Sys: sys})
	child.Close()
	if err != nil {
		return fmt.Errorf("starting the sandbox's shim: %w", err)
	}
	sb.proc = p
	sb.rec.ShimPid = p.Pid
	deadline := time.Now().Add(r.opts.StartTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	_ = ctl.SetDeadline(deadline)
	unhook := context.AfterFunc(ctx, func() { ctl.Close() })
	defer unhook()
	if err := ctl.Send(cfg); err != nil {
		return err
	}
	var rep box.Report
	if _, err := ctl.Recv(&rep); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("the sandbox's shim did not start: %w", err)
	}
	if rep.Error != "" {
		return errors.New(rep.Error)
	}
	return nil
}
