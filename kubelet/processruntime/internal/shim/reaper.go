//go:build linux

package shim

import (
	"bytes"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// reaper starts processes and learns of their end. A process is forked by a thread that lives as long as the shim,
// because the parent's death signal follows the thread that forked.
type reaper struct {
	own *forker

	mu   sync.Mutex
	wait map[int]chan syscall.WaitStatus
	// in are the threads whose children start in the PID namespace of a process, by that. A shim in a user
	// namespace could not take a thread back out.
	in map[int]*forker
}

// forker is one thread.
type forker struct{ work chan func() }

func newForker() *forker {
	f := &forker{work: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for do := range f.work {
			do()
		}
	}()
	return f
}

// do runs a function on the thread.
func (f *forker) do(fn func()) {
	done := make(chan struct{})
	f.work <- func() {
		defer close(done)
		fn()
	}
	<-done
}

func newReaper() *reaper {
	r := &reaper{own: newForker(), wait: make(map[int]chan syscall.WaitStatus), in: make(map[int]*forker)}
	chld := make(chan os.Signal, 1)
	signal.Notify(chld, syscall.SIGCHLD)
	go func() {
		for range chld {
			r.reap()
		}
	}()
	return r
}

// forkerIn finds or makes the thread for a process's PID namespace.
func (r *reaper) forkerIn(pid int) (*forker, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.in[pid]; f != nil {
		return f, nil
	}
	ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/pid")
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	f := newForker()
	f.do(func() { err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWPID) })
	if err != nil {
		close(f.work)
		return nil, os.NewSyscallError("setns", err)
	}
	r.in[pid] = f
	return f, nil
}

// leave ends the thread for a process that has ended.
func (r *reaper) leave(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.in[pid]; f != nil {
		close(f.work)
		delete(r.in, pid)
	}
}

func (r *reaper) reap() {
	for {
		var ws syscall.WaitStatus
		r.mu.Lock() // not between a fork and its entry in wait
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			r.mu.Unlock()
			continue
		}
		if err != nil || pid <= 0 {
			r.mu.Unlock()
			return
		}
		if c := r.wait[pid]; c != nil {
			c <- ws
			delete(r.wait, pid)
		}
		r.mu.Unlock()
	}
}

// spawn starts a process from a thread; nil is the shim's own. The channel gets its wait status.
func (r *reaper) spawn(from *forker, path string, args []string, attr *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error) {
	if from == nil {
		from = r.own
	}
	var pid int
	var err error
	exited := make(chan syscall.WaitStatus, 1)
	from.do(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		pid, err = syscall.ForkExec(path, args, attr)
		if err == nil {
			r.wait[pid] = exited
		}
	})
	return pid, exited, err
}

// exitCode is the shell's: 128 and the signal for what a signal ended.
func exitCode(ws syscall.WaitStatus) int32 {
	if ws.Signaled() {
		return 128 + int32(ws.Signal())
	}
	return int32(ws.ExitStatus())
}

// descendants lists the processes below this one, and with a container's id only those that carry its marker.
func descendants(container string) []int {
	parent := make(map[int]int)
	names, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		// The command's name, in parentheses, may contain anything.
		i := bytes.LastIndexByte(b, ')')
		f := strings.Fields(string(b[i+1:]))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil || len(f) < 2 || f[0] == "Z" {
			continue
		}
		parent[pid], _ = strconv.Atoi(f[1])
	}
	self := os.Getpid()
	var pids []int
	for pid := range parent {
		for at, depth := pid, 0; at > 1 && depth < 1000; at, depth = parent[at], depth+1 {
			if parent[at] == self {
				if container == "" || hasMarker(pid, container) {
					pids = append(pids, pid)
				}
				break
			}
		}
	}
	return pids
}

func hasMarker(pid int, container string) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	return err == nil && bytes.Contains(env, []byte(Marker+"="+container+"\x00"))
}
