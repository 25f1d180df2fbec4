//go:build linux

package box

import (
	"os"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The default filter refuses the calls with which a process could reach out of its container or that only
// administer the machine: those that the default profiles of container runtimes leave out. It is a list of what is refused,
// not of what is allowed, so it stays small enough to read.

// SeccompSupported says whether the filter exists for this architecture.
func SeccompSupported() bool { _, ok := auditArch(); return ok }

func auditArch() (uint32, bool) {
	switch runtime.GOARCH {
	case "amd64":
		return unix.AUDIT_ARCH_X86_64, true
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64, true
	}
	return 0, false
}

// refusedCalls maps each call to the capability that permits it, -1 for those that nothing does.
func refusedCalls() map[uint32]int {
	m := map[uint32]int{
		unix.SYS_ACCT:              unix.CAP_SYS_PACCT,
		unix.SYS_ADD_KEY:           -1,
		unix.SYS_BPF:               unix.CAP_SYS_ADMIN,
		unix.SYS_CLOCK_ADJTIME:     unix.CAP_SYS_TIME,
		unix.SYS_CLOCK_SETTIME:     unix.CAP_SYS_TIME,
		unix.SYS_DELETE_MODULE:     unix.CAP_SYS_MODULE,
		unix.SYS_FANOTIFY_INIT:     unix.CAP_SYS_ADMIN,
		unix.SYS_FINIT_MODULE:      unix.CAP_SYS_MODULE,
		unix.SYS_FSCONFIG:          unix.CAP_SYS_ADMIN,
		unix.SYS_FSMOUNT:           unix.CAP_SYS_ADMIN,
		unix.SYS_FSOPEN:            unix.CAP_SYS_ADMIN,
		unix.SYS_FSPICK:            unix.CAP_SYS_ADMIN,
		unix.SYS_INIT_MODULE:       unix.CAP_SYS_MODULE,
		unix.SYS_KEXEC_FILE_LOAD:   unix.CAP_SYS_BOOT,
		unix.SYS_KEXEC_LOAD:        unix.CAP_SYS_BOOT,
		unix.SYS_KEYCTL:            -1,
		unix.SYS_LOOKUP_DCOOKIE:    unix.CAP_SYS_ADMIN,
		unix.SYS_MOUNT:             unix.CAP_SYS_ADMIN,
		unix.SYS_MOUNT_SETATTR:     unix.CAP_SYS_ADMIN,
		unix.SYS_MOVE_MOUNT:        unix.CAP_SYS_ADMIN,
		unix.SYS_MOVE_PAGES:        unix.CAP_SYS_NICE,
		unix.SYS_NFSSERVCTL:        -1,
		unix.SYS_OPEN_BY_HANDLE_AT: unix.CAP_DAC_READ_SEARCH,
		unix.SYS_OPEN_TREE:         unix.CAP_SYS_ADMIN,
		unix.SYS_PERF_EVENT_OPEN:   unix.CAP_PERFMON,
		unix.SYS_PIVOT_ROOT:        unix.CAP_SYS_ADMIN,
		unix.SYS_QUOTACTL:          unix.CAP_SYS_ADMIN,
		unix.SYS_QUOTACTL_FD:       unix.CAP_SYS_ADMIN,
		unix.SYS_REBOOT:            unix.CAP_SYS_BOOT,
		unix.SYS_REQUEST_KEY:       -1,
		unix.SYS_SETDOMAINNAME:     unix.CAP_SYS_ADMIN,
		unix.SYS_SETHOSTNAME:       unix.CAP_SYS_ADMIN,
		unix.SYS_SETNS:             unix.CAP_SYS_ADMIN,
		unix.SYS_SETTIMEOFDAY:      unix.CAP_SYS_TIME,
		unix.SYS_SWAPOFF:           -1,
		unix.SYS_SWAPON:            -1,
		unix.SYS_SYSLOG:            unix.CAP_SYSLOG,
		unix.SYS_UMOUNT2:           unix.CAP_SYS_ADMIN,
		unix.SYS_UNSHARE:           unix.CAP_SYS_ADMIN,
		unix.SYS_USERFAULTFD:       -1,
		unix.SYS_VHANGUP:           unix.CAP_SYS_TTY_CONFIG,
		unix.SYS_IO_URING_SETUP:    -1,
		unix.SYS_IO_URING_ENTER:    -1,
		unix.SYS_IO_URING_REGISTER: -1,
	}
	addArchCalls(m)
	return m
}

const (
	retAllow = 0x7fff0000
	retErrno = 0x00050000
)

// filter assembles the program.
func filter(caps []int, forkUser bool) []unix.SockFilter {
	arch, _ := auditArch()
	const ld, jeq, jge, jset, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	prog := []unix.SockFilter{
		{Code: ld, K: 4}, // arch
		{Code: jeq, Jt: 1, K: arch},
		{Code: ret, K: retErrno | uint32(unix.ENOSYS)},
		{Code: ld, K: 0}, // number
	}
	if runtime.GOARCH == "amd64" {
		prog = append(prog, // the x32 calls
			unix.SockFilter{Code: jge, Jf: 1, K: 0x40000000},
			unix.SockFilter{Code: ret, K: retErrno | uint32(unix.ENOSYS)})
	}
	refuse := func(nr uint32, errno unix.Errno) {
		prog = append(prog,
			unix.SockFilter{Code: jeq, Jf: 1, K: nr},
			unix.SockFilter{Code: ret, K: retErrno | uint32(errno)})
	}
	calls := refusedCalls()
	numbers := make([]uint32, 0, len(calls))
	for nr := range calls {
		numbers = append(numbers, nr)
	}
	slices.Sort(numbers)
	for _, nr := range numbers {
		if need := calls[nr]; need < 0 || !slices.Contains(caps, need) {
			refuse(nr, unix.EPERM)
		}
	}
	if !slices.Contains(caps, unix.CAP_SYS_ADMIN) {
		// A filter can't look into clone3's structure; libraries fall back to clone when it is not there.
		refuse(unix.SYS_CLONE3, unix.ENOSYS)
		refused := uint32(unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET)
		if forkUser {
			refused &^= unix.CLONE_NEWUSER
		}
		prog = append(prog,
			unix.SockFilter{Code: jeq, Jf: 3, K: unix.SYS_CLONE},
			unix.SockFilter{Code: ld, K: 16}, // low half of the first argument
			unix.SockFilter{Code: jset, Jf: 1, K: refused},
			unix.SockFilter{Code: ret, K: retErrno | uint32(unix.EPERM)})
	}
	return append(prog, unix.SockFilter{Code: ret, K: retAllow})
}

func installSeccomp(caps []int, forkUser bool) error {
	prog := filter(caps, forkUser)
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&fprog)), 0, 0); err != nil {
		return os.NewSyscallError("PR_SET_SECCOMP", err)
	}
	return nil
}
