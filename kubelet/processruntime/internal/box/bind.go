//go:build linux

package box

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/keelson/keelson/kubelet/processruntime/internal/wire"
)

// notifyBinds makes every bind(2) and connect(2) of the process and its descendants ask the shim, to which it sends the listening end.
// Where the kernel or an outer filter don't permit it, the process runs without.
func (p *Process) notifyBinds(ctl *wire.Conn) error {
	if p.BindAddr == "" {
		return nil
	}
	arch, ok := auditArch()
	if !ok {
		return ctl.Send(Report{Warning: "wildcard binds stay as they are on this architecture"})
	}
	const ld, jeq, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	prog := []unix.SockFilter{
		{Code: ld, K: 4}, // arch
		{Code: jeq, Jf: 4, K: arch},
		{Code: ld, K: 0}, // number
		{Code: jeq, Jt: 1, K: unix.SYS_BIND},
		{Code: jeq, Jf: 1, K: unix.SYS_CONNECT},
		{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, _, errno := syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return ctl.Send(Report{Warning: "wildcard binds stay as they are: " + errno.Error()})
	}
	unix.CloseOnExec(int(fd))
	f := os.NewFile(fd, "seccomp listener")
	defer f.Close()
	return ctl.Send(Report{Binds: true}, f)
}

// Plain becomes a process without isolation, of which only the binds are watched.
func Plain(ctl *wire.Conn) error {
	var spec PlainSpec
	if _, err := ctl.Recv(&spec); err != nil {
		return err
	}
	lockThread()
	err := spec.become(ctl)
	if sendErr := ctl.Send(Report{Error: err.Error()}); sendErr != nil {
		return sendErr
	}
	return err
}

func (s *PlainSpec) become(ctl *wire.Conn) error {
	// Without privilege a filter needs it.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("PR_SET_NO_NEW_PRIVS", err)
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	if err := s.Process.notifyBinds(ctl); err != nil {
		return err
	}
	return &os.PathError{Op: "exec", Path: s.Path, Err: unix.Exec(s.Path, s.Process.Args, s.Process.Env)}
}
