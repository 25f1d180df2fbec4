// Package machine tells what the machine is and has: for a node's capacity and its nodeInfo.
package machine

import (
	"net"
	"net/netip"
	"runtime"
	"time"
)

// Info describes the machine. What can't be found out is empty or 0.
type Info struct {
	CPUs                          int64
	Memory                        int64 // bytes
	Storage                       int64 // bytes of the file system asked about
	MachineID, SystemUUID, BootID string
	KernelVersion, OSImage        string
	OperatingSystem, Architecture string
}

// Read finds out, storage being that of the file system path is on.
func Read(path string) Info {
	i := Info{CPUs: int64(runtime.NumCPU()), OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH}
	i.read(path)
	return i
}

// IP is the first address of the machine that is neither loopback nor link-local, IPv4 before IPv6; or else 127.0.0.1.
func IP() netip.Addr {
	best := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return best
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		if ip = ip.Unmap(); !ok || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsMulticast() {
			continue
		}
		if ip.Is4() {
			return ip
		}
		if best.IsLoopback() {
			best = ip
		}
	}
	return best
}

// Usage is what the machine uses now; 0 where that can't be found out.
type Usage struct {
	CPU                         uint64 // nanoseconds since Booted, over all processors
	MemoryUsed, MemoryAvailable uint64 // bytes
	Booted                      time.Time
}
