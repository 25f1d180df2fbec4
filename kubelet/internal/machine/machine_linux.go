package machine

import (
	"bufio"
	"os"
	"strconv"
	"strings"

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
			i.Storage = int64(st.Blocks) * int64(st.Bsize)
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
