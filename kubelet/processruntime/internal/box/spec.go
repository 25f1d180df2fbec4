package box

// Process says what to execute, and as whom.
type Process struct {
	Args []string
	Env  []string
	Cwd  string
	// UID, GID and Groups as the container sees them.
	UID, GID uint32
	Groups   []uint32
	// Caps are the capabilities that stay in the bounding set, by number.
	Caps []int
	// Ambient capabilities, for processes that are not root.
	Ambient    []int
	NoNewPrivs bool
	// Seccomp applies the default filter.
	Seccomp bool
	TTY     bool
	// BindAddr is what a bind to the wildcard address gets instead; empty leaves binds alone.
	BindAddr string
}

// Mount is one entry of the container's file system. Type "bind" binds Source.
type Mount struct {
	Type, Source, Target string
	// Data is the file system's own options.
	Data string
	// Flags are MS_* flags.
	Flags uintptr
	// ReadonlyRecursive makes everything below Target read-only too.
	ReadonlyRecursive bool
	// Slave lets later mounts below Source appear in the container.
	Slave bool
	// Optional entries that can't be mounted are left out.
	Optional bool
}

// Device is a node in the container's /dev.
type Device struct{ Source, Target string }

// Spec is all that "init" needs.
type Spec struct {
	Process Process
	// UserNS says that no privilege in the node's own user namespace is to be had.
	UserNS bool
	// Rootfs is the directory that becomes the root. With Lower set it is an overlay of Lower and Upper.
	Rootfs, Lower, Upper, Work string
	ReadonlyRootfs             bool
	// Proc is "new" for a procfs of the container's own PID namespace, "bind" for the node's.
	Proc string
	// CgroupNS hides the groups above the container's own.
	CgroupNS bool
	// HostDev shows the node's devices.
	HostDev bool
	Mounts  []Mount
	Devices []Device
	// MaskedPaths are hidden, ReadonlyPaths made read-only, where they exist.
	MaskedPaths, ReadonlyPaths []string
}

// ExecSpec is all that "exec" needs.
type ExecSpec struct {
	Process Process
	// Pid of a process in the container, as the shim sees it.
	Pid    int
	UserNS bool
	// CgroupTasks are the files to write the thread id to, so that the new process starts in the container's cgroup.
	CgroupTasks []string
	// CgroupDir is the directory of the container's cgroup v2, if that is used.
	CgroupDir string
}

// Report is what a helper answers. PTY announces the terminal's master as attached file. An "init" that succeeded
// answers with the end of the stream.
type Report struct {
	Error string `json:",omitempty"`
	PTY   bool   `json:",omitempty"`
	// Ready is set once by helpers that stay.
	Ready bool `json:",omitempty"`
	Pid   int  `json:",omitempty"`
	// Binds announces the end on which binds are reported as attached file.
	Binds bool `json:",omitempty"`
	// Warning says what the process has to do without.
	Warning string `json:",omitempty"`
	// Exited carries the wait status.
	Exited bool   `json:",omitempty"`
	Status uint32 `json:",omitempty"`
}

// ProbeSpec is what "probe" tries, in a directory of the file system that will hold containers.
type ProbeSpec struct {
	Dir    string
	UserNS bool
}

// ProbeReport is what it found.
type ProbeReport struct {
	Mount, Proc, Overlay string // empty when it works, else the error
}

// HelperName is the first argument of a re-executed helper; its role is the second.
const HelperName = "keelson-runtime-init"

// PlainSpec is all that "plain" needs: it has its directory, streams and user already.
type PlainSpec struct {
	Path    string
	Process Process
}
