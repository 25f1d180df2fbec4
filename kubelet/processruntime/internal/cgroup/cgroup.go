//go:build linux

package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const base = "/sys/fs/cgroup"

// Hierarchy is the way this machine's control groups are mounted. The zero value has none.
type Hierarchy struct {
	V2 bool
	// Controllers of version 1, by the directory they are mounted at.
	Controllers map[string]string
}

// v1Wanted are the controllers used, in the order groups are made.
var v1Wanted = []string{"cpu", "cpuacct", "memory", "pids"}

// Detect finds what is mounted and writable. The error says why there is nothing to use.
func Detect() (Hierarchy, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(base, &st); err != nil {
		return Hierarchy{}, fmt.Errorf("no cgroups: %w", err)
	}
	h := Hierarchy{V2: st.Type == unix.CGROUP2_SUPER_MAGIC}
	if !h.V2 {
		h.Controllers = make(map[string]string)
		for _, c := range v1Wanted {
			dir := filepath.Join(base, c)
			if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP_SUPER_MAGIC {
				h.Controllers[c] = dir
			}
		}
		if h.Controllers["memory"] == "" || h.Controllers["cpu"] == "" {
			return Hierarchy{}, errors.New("no cgroups: neither version 2 nor the cpu and memory controllers of version 1 are mounted")
		}
	}
	g := h.Group(fmt.Sprintf("/keelson-probe-%d", os.Getpid()))
	if err := g.Create(); err != nil {
		return Hierarchy{}, fmt.Errorf("cgroups are not writable: %w", err)
	}
	return h, g.Remove()
}

// Group is one control group, by its path below the mounts.
type Group struct {
	h    Hierarchy
	Path string
}

// Group names a group; it need not exist.
func (h Hierarchy) Group(path string) Group { return Group{h: h, Path: filepath.Clean("/" + path)} }

// Usable says whether there are groups at all.
func (h Hierarchy) Usable() bool { return h.V2 || len(h.Controllers) > 0 }

// Dirs are the group's directories.
func (g Group) Dirs() []string {
	if g.h.V2 {
		return []string{filepath.Join(base, g.Path)}
	}
	var dirs []string
	for _, c := range v1Wanted {
		if d := g.h.Controllers[c]; d != "" {
			dirs = append(dirs, filepath.Join(d, g.Path))
		}
	}
	return dirs
}

// Binds maps where a container expects its own group to where it is; nil with version 2.
func (g Group) Binds() map[string]string {
	if g.h.V2 {
		return nil
	}
	m := make(map[string]string)
	for c, d := range g.h.Controllers {
		m[filepath.Join(base, c)] = filepath.Join(d, g.Path)
	}
	return m
}

// Create makes the group and those above it.
func (g Group) Create() error {
	if g.h.V2 {
		at := base
		for _, part := range strings.Split(strings.Trim(g.Path, "/"), "/") {
			// A controller that isn't there is missed when a limit is set.
			for _, c := range []string{"+cpu", "+memory", "+pids", "+cpuset"} {
				_ = os.WriteFile(filepath.Join(at, "cgroup.subtree_control"), []byte(c), 0)
			}
			at = filepath.Join(at, part)
			if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
		}
		if _, err := os.Stat(filepath.Join(at, "memory.max")); err != nil {
			_ = os.Remove(at)
			return fmt.Errorf("the memory controller can't be delegated: %w", err)
		}
		return nil
	}
	for _, d := range g.Dirs() {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// Add moves a process into the group.
func (g Group) Add(pid int) error {
	for _, d := range g.Dirs() {
		if err := os.WriteFile(filepath.Join(d, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return err
		}
	}
	return nil
}

// TaskFiles are where a thread's id is written to move it; version 1 only.
func (g Group) TaskFiles() []string {
	if g.h.V2 {
		return nil
	}
	dirs := g.Dirs()
	for i := range dirs {
		dirs[i] = filepath.Join(dirs[i], "tasks")
	}
	return dirs
}

// UnifiedDir is the group's directory of version 2, or empty.
func (g Group) UnifiedDir() string {
	if !g.h.V2 {
		return ""
	}
	return filepath.Join(base, g.Path)
}

// Limits are the values to set; zero leaves a value alone.
type Limits struct {
	CPUShares, CPUQuota, CPUPeriod int64 // shares of 1024; microseconds
	Memory                         int64 // bytes
	Pids                           int64
	Unified                        map[string]string
}

// Set applies limits.
func (g Group) Set(l Limits) error {
	var errs []error
	put := func(controller, file string, v any) {
		dir := filepath.Join(base, g.Path)
		if !g.h.V2 {
			mount := g.h.Controllers[controller]
			if mount == "" {
				errs = append(errs, fmt.Errorf("the %s controller is not mounted", controller))
				return
			}
			dir = filepath.Join(mount, g.Path)
		}
		errs = append(errs, os.WriteFile(filepath.Join(dir, file), fmt.Append(nil, v), 0))
	}
	period := l.CPUPeriod
	if period <= 0 {
		period = 100000
	}
	if g.h.V2 {
		if l.CPUShares > 0 {
			put("cpu", "cpu.weight", weight(l.CPUShares))
		}
		if l.CPUQuota > 0 {
			put("cpu", "cpu.max", fmt.Sprintf("%d %d", l.CPUQuota, period))
		} else if l.CPUQuota < 0 {
			put("cpu", "cpu.max", fmt.Sprintf("max %d", period))
		}
		if l.Memory > 0 {
			put("memory", "memory.max", l.Memory)
		} else if l.Memory < 0 {
			put("memory", "memory.max", "max")
		}
		if l.Pids > 0 {
			put("pids", "pids.max", l.Pids)
		}
		for file, v := range l.Unified {
			if filepath.Base(file) != file {
				errs = append(errs, fmt.Errorf("unified resource %q is not a file name", file))
				continue
			}
			put("", file, v)
		}
		return errors.Join(errs...)
	}
	if len(l.Unified) > 0 {
		errs = append(errs, errors.New("unified resources need cgroup version 2"))
	}
	if l.CPUShares > 0 {
		put("cpu", "cpu.shares", max(l.CPUShares, 2))
	}
	if l.CPUQuota != 0 {
		put("cpu", "cpu.cfs_period_us", period)
		put("cpu", "cpu.cfs_quota_us", l.CPUQuota)
	}
	if l.Memory != 0 {
		put("memory", "memory.limit_in_bytes", l.Memory)
	}
	if l.Pids > 0 {
		put("pids", "pids.max", l.Pids)
	}
	return errors.Join(errs...)
}

// weight maps shares (2…262144) to version 2's weight (1…10000), as the OCI runtimes do.
func weight(shares int64) int64 {
	shares = min(max(shares, 2), 262144)
	return 1 + (shares-2)*9999/262142
}

// OOMKills counts the processes that the kernel killed for want of memory.
func (g Group) OOMKills() int64 {
	file := filepath.Join(base, g.Path, "memory.events")
	if !g.h.V2 {
		file = filepath.Join(g.h.Controllers["memory"], g.Path, "memory.oom_control")
	}
	return keyed(file)["oom_kill"]
}

// Procs are the processes in the group.
func (g Group) Procs() []int {
	dirs := g.Dirs()
	if len(dirs) == 0 {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(dirs[0], "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for _, f := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Remove deletes the group and those below it. Its processes must have ended; it waits a moment for the kernel to notice.
func (g Group) Remove() error {
	var errs []error
	for _, d := range g.Dirs() {
		var err error
		for try := range 50 {
			if err = removeTree(d); !errors.Is(err, unix.EBUSY) {
				break
			}
			time.Sleep(time.Duration(try+1) * time.Millisecond)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// Usage is what the group used.
type Usage struct {
	CPU        time.Duration
	Memory     uint64 // bytes, page cache included
	WorkingSet uint64 // less what could be reclaimed at once
	RSS        uint64
	Faults     uint64
	MajFaults  uint64
}

// Usage measures.
func (g Group) Usage() (Usage, error) {
	var u Usage
	if g.h.V2 {
		dir := filepath.Join(base, g.Path)
		u.CPU = time.Duration(keyed(filepath.Join(dir, "cpu.stat"))["usage_usec"]) * time.Microsecond
		mem, err := number(filepath.Join(dir, "memory.current"))
		if err != nil {
			return u, err
		}
		st := keyed(filepath.Join(dir, "memory.stat"))
		u.fill(mem, uint64(st["inactive_file"]), uint64(st["anon"]), st)
		return u, nil
	}
	if d := g.h.Controllers["cpuacct"]; d != "" {
		ns, err := number(filepath.Join(d, g.Path, "cpuacct.usage"))
		if err != nil {
			return u, err
		}
		u.CPU = time.Duration(ns)
	}
	dir := filepath.Join(g.h.Controllers["memory"], g.Path)
	mem, err := number(filepath.Join(dir, "memory.usage_in_bytes"))
	if err != nil {
		return u, err
	}
	st := keyed(filepath.Join(dir, "memory.stat"))
	u.fill(mem, uint64(st["total_inactive_file"]), uint64(st["total_rss"]), st)
	return u, nil
}

func (u *Usage) fill(mem, inactive, rss uint64, st map[string]int64) {
	u.Memory, u.RSS = mem, rss
	u.WorkingSet = mem - min(mem, inactive)
	u.Faults, u.MajFaults = uint64(st["pgfault"]), uint64(st["pgmajfault"])
}

func number(file string) (uint64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}

// keyed reads a file of "key value" lines; what can't be read is empty.
func keyed(file string) map[string]int64 {
	m := make(map[string]int64)
	f, err := os.Open(file)
	if err != nil {
		return m
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if k, v, ok := strings.Cut(sc.Text(), " "); ok {
			if n, err := strconv.ParseInt(v, 10, 64); err == nil {
				m[k] = n
			}
		}
	}
	return m
}

// Names lists the controllers for people.
func (h Hierarchy) Names() string {
	if h.V2 {
		return "cgroup v2"
	}
	names := make([]string, 0, len(h.Controllers))
	for c := range h.Controllers {
		names = append(names, c)
	}
	slices.Sort(names)
	return "cgroup v1 (" + strings.Join(names, ", ") + ")"
}
