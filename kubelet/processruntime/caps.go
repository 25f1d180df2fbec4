//go:build linux

package processruntime

import (
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/processruntime/internal/box"
)

// capNames in the order of their numbers.
func capNames() []string {
	return []string{
		"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
		"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE",
		"SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE",
		"AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
	}
}

// defaultCaps are container engines' usual set without MKNOD: no device controller guards the nodes that it makes.
func defaultCaps() []int {
	return []int{
		unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FSETID, unix.CAP_FOWNER, unix.CAP_NET_RAW, unix.CAP_SETGID, unix.CAP_SETUID,
		unix.CAP_SETFCAP, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_CHROOT, unix.CAP_KILL, unix.CAP_AUDIT_WRITE,
	}
}

func allCaps() []int {
	last := box.LastCap()
	caps := make([]int, last+1)
	for i := range caps {
		caps[i] = i
	}
	return caps
}

// capabilities applies what a container adds and drops: additions of ALL first, drops of ALL before other additions, as CRI
// runtimes do.
func capabilities(c *runtimeapi.Capability, privileged bool) ([]int, error) {
	if privileged {
		return allCaps(), nil
	}
	caps := defaultCaps()
	if hasAll(c.GetAddCapabilities()) {
		caps = allCaps()
	}
	if hasAll(c.GetDropCapabilities()) {
		caps = nil
	}
	add, err := capNumbers(c.GetAddCapabilities())
	if err != nil {
		return nil, err
	}
	for _, n := range add {
		if !slices.Contains(caps, n) {
			caps = append(caps, n)
		}
	}
	drop, err := capNumbers(c.GetDropCapabilities())
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(caps, func(n int) bool { return slices.Contains(drop, n) }), nil
}

func hasAll(names []string) bool {
	return slices.ContainsFunc(names, func(s string) bool { return strings.EqualFold(s, "ALL") })
}

func capNumbers(names []string) ([]int, error) {
	var out []int
	for _, s := range names {
		if strings.EqualFold(s, "ALL") {
			continue
		}
		n := slices.Index(capNames(), strings.TrimPrefix(strings.ToUpper(s), "CAP_"))
		if n < 0 {
			return nil, invalid("unknown capability %q", s)
		}
		out = append(out, n)
	}
	return out, nil
}

// stopSignal is the container's, else its image's, else SIGTERM.
func (c *container) stopSignal() unix.Signal {
	if s := c.config.GetStopSignal(); s != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		if n := parseSignal(strings.TrimPrefix(s.String(), "SIGNAL_")); n != 0 {
			return n
		}
	}
	if n := parseSignal(c.record().StopSignal); n != 0 {
		return n
	}
	return unix.SIGTERM
}

// parseSignal reads "SIGTERM", "TERM", "15", "SIGRTMIN+3" and "SIGRTMINPLUS3"; zero is none of them.
func parseSignal(s string) unix.Signal {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 65 {
		return unix.Signal(n)
	}
	s = strings.ToUpper(s)
	if !strings.HasPrefix(s, "SIG") {
		s = "SIG" + s
	}
	if n := unix.SignalNum(s); n != 0 {
		return n
	}
	s = strings.NewReplacer("PLUS", "+", "MINUS", "-").Replace(s)
	for prefix, base := range map[string]int{"SIGRTMIN": 34, "SIGRTMAX": 64} {
		rest, ok := strings.CutPrefix(s, prefix)
		if !ok {
			continue
		}
		if rest == "" {
			return unix.Signal(base)
		}
		if n, err := strconv.Atoi(rest); err == nil && base+n >= 34 && base+n <= 64 {
			return unix.Signal(base + n)
		}
	}
	return 0
}

// signalNumber is CRI's name of a signal.
func signalNumber(s unix.Signal) runtimeapi.Signal {
	return runtimeapi.Signal(runtimeapi.Signal_value["SIGNAL_"+unix.SignalName(s)])
}
