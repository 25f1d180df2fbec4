//go:build linux

package box

import (
	"errors"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LastCap is the highest capability that the running kernel knows.
func LastCap() int {
	for c := 0; c < 64; c++ {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err != nil {
			return c - 1
		}
	}
	return 63
}

// confine takes from the calling thread what the process must not have: it is called while the thread
// still has its privileges, and what it sets takes full effect with the next execve. forkUser keeps the
// thread able to fork into a new user namespace.
func (p *Process) confine(forkUser bool) error {
	if p.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return os.NewSyscallError("PR_SET_NO_NEW_PRIVS", err)
		}
	}
	for c := range LastCap() + 1 {
		if slices.Contains(p.Caps, c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return os.NewSyscallError("PR_CAPBSET_DROP", err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return os.NewSyscallError("PR_CAP_AMBIENT_CLEAR_ALL", err)
	}
	if err := setInheritable(p.Ambient); err != nil {
		return err
	}
	if p.Seccomp {
		return installSeccomp(p.Caps, forkUser)
	}
	return nil
}

// become changes the thread's user and groups. In a user namespace the process has its user already: no
// other one is mapped.
func (p *Process) become(userNS bool) error {
	if !userNS {
		if err := rawSetgroups(p.Groups); err != nil {
			return err
		}
		if _, _, e := syscall.RawSyscall(unix.SYS_SETRESGID, uintptr(p.GID), uintptr(p.GID), uintptr(p.GID)); e != 0 {
			return os.NewSyscallError("setresgid", e)
		}
		if len(p.Ambient) > 0 {
			if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
				return os.NewSyscallError("PR_SET_KEEPCAPS", err)
			}
		}
		if _, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(p.UID), uintptr(p.UID), uintptr(p.UID)); e != 0 {
			return os.NewSyscallError("setresuid", e)
		}
	}
	for _, c := range p.Ambient {
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return os.NewSyscallError("PR_CAP_AMBIENT_RAISE", err)
		}
	}
	return nil
}

// The syscall package's own setgroups changes every thread, which fails when a seccomp filter or other
// credentials make the threads unlike.
func rawSetgroups(groups []uint32) error {
	var ptr unsafe.Pointer
	if len(groups) > 0 {
		ptr = unsafe.Pointer(&groups[0])
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(ptr), 0); e != 0 {
		return os.NewSyscallError("setgroups", e)
	}
	return nil
}

// setInheritable leaves only what ambient capabilities need in the inheritable set.
func setInheritable(caps []int) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	for _, c := range caps {
		data[c/32].Inheritable |= 1 << (c % 32)
		data[c/32].Permitted |= 1 << (c % 32)
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return os.NewSyscallError("capset", err)
	}
	return nil
}
