package machine

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func (i *Info) read(path string) {
	i.MachineID = line("/etc/machine-id")
	i.SystemUUID = line("/sys/class/dmi/id/product_uuid")
	if i.SystemUUID == "" {
		i.SystemUUID = i.MachineID
	}
	i.BootID = line("/proc/sys/kernel/random/boot_id")
	i.KernelVersion = line("/proc/sys/kernel/osrelease")
	i.OSImage = "Linux"
	if name := field("/etc/os-release", "PRETTY_NAME="); name != "" {
		i.OSImage = strings.Trim(name, `"`)
	}
	if kb := strings.Fields(field("/proc/meminfo", "MemTotal:")); len(kb) > 0 {
		if n, err := strconv.ParseInt(kb[0], 10, 64); err == nil {
			i.Memory = n << 10
		}
	}
	var st unix.Statfs_t
	for p := path; ; p = parent(p) {
		if err := unix.Statfs(p, &st); err == nil {
			i.Storage = int64(st.Blocks * uint64(st.Bsize))
			return
		}
		if p == "/" || p == "" {
			return
		}
	}
}

func parent(p string) string {
	n := strings.LastIndexByte(strings.TrimRight(p, "/"), '/')
	if n <= 0 {
		return "/"
	}
	return p[:n]
}

func line(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// field is what follows a prefix in a file.
func field(path, prefix string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), prefix); ok {
			return v
		}
	}
	return ""
}

// Measure finds out what the machine uses.
func Measure() Usage {
	var u Usage
	// user nice system idle iowait irq softirq steal, in hundredths of a second
	for i, f := range strings.Fields(field("/proc/stat", "cpu ")) {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil || i > 7 {
			break
		}
		if i != 3 && i != 4 {
			u.CPU += n * 10_000_000
		}
	}
	if n, err := strconv.ParseInt(strings.TrimSpace(field("/proc/stat", "btime ")), 10, 64); err == nil {
		u.Booted = time.Unix(n, 0)
	}
	kilo := func(name string) uint64 {
		f := strings.Fields(field("/proc/meminfo", name))
		if len(f) == 0 {
			return 0
		}
		n, _ := strconv.ParseUint(f[0], 10, 64)
		return n << 10
	}
	u.MemoryAvailable = kilo("MemAvailable:")
	if total := kilo("MemTotal:"); total > u.MemoryAvailable {
		u.MemoryUsed = total - u.MemoryAvailable
	}
	return u
}
