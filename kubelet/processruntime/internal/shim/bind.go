//go:build linux

package shim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A pod on the node's network that has an address of its own must not take a port on all of the node's addresses: the
// pod's next replica wants the same one. So a bind to the wildcard address is done here, on the process's own socket,
// with the pod's address instead; and a connection to the loopback address goes to the pod's, if something of
// the pod listens there. It is a convenience, not a barrier: any other call goes its way.

// notification is struct seccomp_notif.
type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

// answer is struct seccomp_notif_resp.
type answer struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

const notifIDValid = 0x40082102 // SECCOMP_IOCTL_NOTIF_ID_VALID

func ioctl(fd uintptr, req uint, p unsafe.Pointer) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(req), uintptr(p))
	if e != 0 {
		return e
	}
	return nil
}

// watchBinds answers until no process uses the filter any more. It takes the file over.
func watchBinds(f *os.File, addr netip.Addr) {
	f, err := pollable(f)
	if err != nil {
		fmt.Fprintf(os.Stderr, "watching binds: %v\n", err)
		return
	}
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	for {
		var n notification
		var recvErr error
		err := raw.Read(func(fd uintptr) bool {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if ready, err := unix.Poll(fds, 0); err == nil && ready == 0 {
				return false // wait without a thread
			}
			if fds[0].Revents&unix.POLLIN == 0 {
				recvErr = unix.ENOENT // hung up: nobody uses the filter
				return true
			}
			recvErr = ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n))
			return true
		})
		switch {
		case err != nil:
			return
		case errors.Is(recvErr, unix.EINTR):
			continue
		case errors.Is(recvErr, unix.ENOENT) && n.id == 0:
			// The process was killed meanwhile, or it was the last.
			if hungUp(raw) {
				return
			}
			continue
		case recvErr != nil:
			fmt.Fprintf(os.Stderr, "watching binds: %v\n", recvErr)
			return
		}
		if n.nr == unix.SYS_CONNECT {
			go reply(raw, n, addr, connectFor) // it may wait for a listener's backlog
		} else {
			reply(raw, n, addr, bindFor)
		}
	}
}

func reply(raw syscall.RawConn, n notification, addr netip.Addr, do func(uintptr, *notification, netip.Addr) (bool, error)) {
	_ = raw.Control(func(fd uintptr) {
		a := answer{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if done, err := do(fd, &n, addr); done {
			a.flags = 0
			var errno unix.Errno
			if errors.As(err, &errno) {
				a.errno = -int32(errno)
			}
		}
		_ = ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&a))
	})
}

func hungUp(raw syscall.RawConn) bool {
	hup := true
	_ = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		_, _ = unix.Poll(fds, 0)
		hup = fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return hup
}

// sockaddr reads the address that a call is made with.
func sockaddr(n *notification) (netip.AddrPort, bool) {
	raw := make([]byte, min(n.args[2], unix.SizeofSockaddrAny))
	if len(raw) < unix.SizeofSockaddrInet4 {
		return netip.AddrPort{}, false
	}
	local := []unix.Iovec{{Base: &raw[0]}}
	local[0].SetLen(len(raw))
	if _, err := unix.ProcessVMReadv(int(n.pid), local, []unix.RemoteIovec{{Base: uintptr(n.args[1]), Len: len(raw)}}, 0); err != nil {
		return netip.AddrPort{}, false
	}
	port := binary.BigEndian.Uint16(raw[2:])
	switch family := binary.NativeEndian.Uint16(raw); {
	case family == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), port), true
	case family == unix.AF_INET6 && len(raw) >= 24:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(raw[8:24])), port), true
	}
	return netip.AddrPort{}, false
}

// instead makes the address that a socket of the asked one's family takes.
func instead(asked netip.Addr, addr netip.Addr, port uint16) unix.Sockaddr {
	if asked.Is4() {
		return &unix.SockaddrInet4{Port: int(port), Addr: addr.As4()}
	}
	return &unix.SockaddrInet6{Port: int(port), Addr: addr.As16()}
}

// bindFor does a bind in place of the process, if it is one to change.
func bindFor(listener uintptr, n *notification, addr netip.Addr) (done bool, err error) {
	asked, ok := sockaddr(n)
	// A port that the kernel chooses is nobody else's.
	if !ok || asked.Port() == 0 || !asked.Addr().IsUnspecified() {
		return false, nil
	}
	sock, err := socketOf(listener, n)
	if err != nil {
		return false, nil
	}
	defer func() { _ = unix.Close(sock) }()
	if asked.Addr().Is6() {
		if only, err := unix.GetsockoptInt(sock, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); err != nil || only != 0 {
			return false, nil
		}
	}
	return true, unix.Bind(sock, instead(asked.Addr(), addr, asked.Port()))
}

// connectFor does a connect in place of the process, if it is to the loopback address and the pod listens on its own.
func connectFor(listener uintptr, n *notification, addr netip.Addr) (done bool, err error) {
	asked, ok := sockaddr(n)
	if !ok {
		return false, nil
	}
	to := asked.Addr().Unmap()
	if to != netip.AddrFrom4([4]byte{127, 0, 0, 1}) && to != netip.IPv6Loopback() || !listens(netip.AddrPortFrom(addr, asked.Port())) {
		return false, nil
	}
	sock, err := socketOf(listener, n)
	if err != nil {
		return false, nil
	}
	defer func() { _ = unix.Close(sock) }()
	if kind, err := unix.GetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
		return false, nil
	}
	return true, unix.Connect(sock, instead(asked.Addr(), addr, asked.Port()))
}

// listens looks for a TCP socket in the kernel's tables.
func listens(at netip.AddrPort) bool {
	a := at.Addr().As4()
	want := fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(a[:]), at.Port())
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			// Those of IPv6 end with the address that is mapped; state 0A is LISTEN.
			if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[1], want) && f[3] == "0A" {
				return true
			}
		}
	}
	return false
}

// socketOf takes a copy of the descriptor that a call is made on.
func socketOf(listener uintptr, n *notification) (int, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(int(n.pid)) + "/status")
	if err != nil {
		return -1, err
	}
	_, rest, _ := strings.Cut(string(b), "\nTgid:")
	line, _, _ := strings.Cut(rest, "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return -1, err
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(pidfd) }()
	sock, err := unix.PidfdGetfd(pidfd, int(int32(n.args[0])), 0)
	if err != nil {
		return -1, err
	}
	// What was looked up is still the process's only if it still waits.
	if err := ioctl(listener, notifIDValid, unsafe.Pointer(&n.id)); err != nil {
		_ = unix.Close(sock)
		return -1, err
	}
	return sock, nil
}
