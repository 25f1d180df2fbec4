//go:build linux

package shim

import (
	"time"

	"github.com/keelson/keelson/kubelet/processruntime/internal/box"
	"github.com/keelson/keelson/kubelet/processruntime/internal/cgroup"
)

// Files in a sandbox's directory.
const (
	SocketName = "shim.sock"
	LockName   = "shim.lock" // locked while the shim lives
	StateName  = "state.json"
)

// Marker is the environment variable by which stray processes of a container are recognized.
const Marker = "KEELSON_CONTAINER_ID"

// Level is how much a container is separated.
type Level string

const (
	LevelNamespaces Level = "namespaces"
	LevelUserNS     Level = "userns"
	LevelNone       Level = "none"
)

// Config is sent to a starting shim.
type Config struct {
	ID, Dir  string
	Level    Level
	Hostname string
	// OwnNet brings the loopback interface of the shim's new network namespace up.
	OwnNet  bool
	Sysctls map[string]string
	// SharedPID gives the containers one PID namespace.
	SharedPID bool
	Cgroups   cgroup.Hierarchy
	// Lifeline ends everything when the program that made the sandbox ends.
	Lifeline bool
}

// Ops of a Request.
const (
	OpStart   = "start"
	OpStop    = "stop"
	OpExec    = "exec"
	OpAttach  = "attach"
	OpReopen  = "reopen"
	OpForward = "forward"
	OpWatch   = "watch"
	OpKillAll = "killall"
	OpExit    = "exit"
)

// Request is the first message on a connection.
type Request struct {
	Op        string
	Container string   `json:",omitempty"`
	Start     *Start   `json:",omitempty"`
	Signal    int      `json:",omitempty"`
	Grace     int64    `json:",omitempty"` // nanoseconds
	Exec      *Exec    `json:",omitempty"`
	Attach    *Attach  `json:",omitempty"`
	Port      uint16   `json:",omitempty"`
	Addrs     []string `json:",omitempty"`
}

// Start says how to start a container.
type Start struct {
	Dir     string // where the state goes
	Spec    box.Spec
	LogPath string
	Stdin   bool
	// StdinOnce closes standard input when the first attached client leaves.
	StdinOnce bool
	// PID is "container", "pod", "node" or "target".
	PID         string
	TargetID    string
	Cgroup      string
	OOMScoreAdj *int64
}

// Exec says what to execute in a running container. Its standard streams come with the request.
type Exec struct {
	Process box.Process
}

// Attach says which streams are wanted.
type Attach struct{ Stdin, Stdout, Stderr bool }

// Response answers. Operations that take time answer more than once.
type Response struct {
	Error string `json:",omitempty"`
	// NotFound and NotRunning classify the error.
	NotFound   bool   `json:",omitempty"`
	NotRunning bool   `json:",omitempty"`
	PTY        bool   `json:",omitempty"`
	Exited     bool   `json:",omitempty"`
	ExitCode   int32  `json:",omitempty"`
	Container  string `json:",omitempty"` // of a watch
	State      *State `json:",omitempty"`
}

// State is what is known of a container that was started. It is also kept in a file.
type State struct {
	Pid               int
	Started, Finished time.Time
	Exited            bool
	ExitCode          int32
	Reason, Message   string
}
