//go:build linux

package box

import "golang.org/x/sys/unix"

func addArchCalls(m map[uint32]int) {
	for _, nr := range []uint32{unix.SYS_CREATE_MODULE, unix.SYS_GET_KERNEL_SYMS, unix.SYS_QUERY_MODULE, unix.SYS_USELIB, unix.SYS_USTAT, unix.SYS_SYSFS, unix.SYS__SYSCTL} {
		m[nr] = -1
	}
	m[unix.SYS_IOPERM] = unix.CAP_SYS_RAWIO
	m[unix.SYS_IOPL] = unix.CAP_SYS_RAWIO
}
