//go:build linux

package processruntime

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/cni"
	"github.com/keelson/keelson/kubelet/processruntime/internal/box"
	"github.com/keelson/keelson/kubelet/processruntime/internal/imagestore"
	"github.com/keelson/keelson/kubelet/processruntime/internal/shim"
)

// sandboxRecord is what is kept of a sandbox on disk.
type sandboxRecord struct {
	ID        string
	Config    json.RawMessage
	CreatedAt time.Time
	// Phase is "creating", "ready" or "stopped".
	Phase   string
	NetNS   bool // has its own network namespace
	HostIPC bool
	// PodPIDs says that the containers share a PID namespace.
	PodPIDs   bool
	Attached  bool // Network.Setup was called
	IPs       []netip.Addr
	CgroupDir string // made for the pod, below the mounts
	ShimPid   int
	Shm       bool // a tmpfs is mounted
}

type sandbox struct {
	dir    string
	config *runtimeapi.PodSandboxConfig
	// mu serializes what changes the sandbox and its containers' existence.
	mu   sync.Mutex
	proc *os.Process // the shim, if this program started it

	recMu sync.Mutex
	rec   sandboxRecord
}

func (sb *sandbox) record() sandboxRecord {
	sb.recMu.Lock()
	defer sb.recMu.Unlock()
	return sb.rec
}

func (sb *sandbox) update(f func(*sandboxRecord)) error {
	sb.recMu.Lock()
	defer sb.recMu.Unlock()
	f(&sb.rec)
	return writeJSON(filepath.Join(sb.dir, "sandbox.json"), sb.rec)
}

func newID() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".tmp", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// lockShim takes the lock that the shim will hold.
func (sb *sandbox) lockShim() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(sb.dir, shim.LockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("the sandbox has a shim already: %w", err)
	}
	return f, nil
}

// alive says whether the shim lives.
func (sb *sandbox) alive() bool {
	f, err := os.Open(filepath.Join(sb.dir, shim.LockName))
	if err != nil {
		return false
	}
	defer f.Close()
	// Shared, so that two who look at once don't see each other.
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

func (sb *sandbox) state() runtimeapi.PodSandboxState {
	if sb.record().Phase == "ready" && sb.alive() {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}

func (sb *sandbox) shmDir() string { return filepath.Join(sb.dir, "shm") }

func (r *Runtime) sandbox(id string) (*sandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if sb := r.sandboxes[id]; sb != nil {
		return sb, nil
	}
	return nil, status.Errorf(codes.NotFound, "sandbox %q not found", id)
}

// RunPodSandbox implements [kubelet.SandboxService].
func (r *Runtime) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, runtimeHandler string) (string, error) {
	if runtimeHandler != "" {
		return "", status.Errorf(codes.InvalidArgument, "no runtime for %q is configured", runtimeHandler)
	}
	if err := r.validateSandbox(config); err != nil {
		return "", err
	}
	raw, err := protojson.Marshal(config)
	if err != nil {
		return "", err
	}
	config = proto.CloneOf(config) // the caller's is the caller's
	id := newID()
	ns := config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	hostNet := ns.GetNetwork() == runtimeapi.NamespaceMode_NODE
	sb := &sandbox{dir: filepath.Join(r.opts.Root, "sandboxes", id), config: config}
	sb.rec = sandboxRecord{
		ID: id, Config: raw, CreatedAt: r.opts.Clock.Now(), Phase: "creating",
		NetNS: r.ownNetNS() && !hostNet, HostIPC: ns.GetIpc() == runtimeapi.NamespaceMode_NODE,
		PodPIDs: ns.GetPid() == runtimeapi.NamespaceMode_POD,
	}
	if r.cgroups.Usable() {
		parent := config.GetLinux().GetCgroupParent()
		if parent == "" {
			parent = "/keelson/" + id
		}
		sb.rec.CgroupDir = parent
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if err := r.reserve(sb); err != nil {
		return "", err
	}
	if err := r.runSandbox(ctx, sb, hostNet); err != nil {
		// The caller's context may be what failed; undoing must not depend on it.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if undoErr := r.destroy(undo, sb); undoErr != nil {
			r.opts.Logger.Error(undoErr, "undoing a failed sandbox", "sandbox", id)
		}
		return "", toStatus(fmt.Errorf("failed to start sandbox %s: %w", podName(config), err))
	}
	r.emitSandbox(sb, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	r.emitSandbox(sb, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	return id, nil
}

func podName(c *runtimeapi.PodSandboxConfig) string {
	return c.GetMetadata().GetNamespace() + "/" + c.GetMetadata().GetName()
}

// reserve makes the sandbox known, unless there is one for the same attempt.
func (r *Runtime) reserve(sb *sandbox) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errors.New("processruntime: closed")
	}
	m := sb.config.GetMetadata()
	for _, other := range r.sandboxes {
		o := other.config.GetMetadata()
		if o.GetName() == m.GetName() && o.GetNamespace() == m.GetNamespace() && o.GetUid() == m.GetUid() && o.GetAttempt() == m.GetAttempt() {
			return status.Errorf(codes.AlreadyExists, "sandbox %s attempt %d is reserved for %q", podName(sb.config), m.GetAttempt(), other.rec.ID)
		}
	}
	r.sandboxes[sb.rec.ID] = sb
	return nil
}

func (r *Runtime) validateSandbox(c *runtimeapi.PodSandboxConfig) error {
	bad := func(format string, args ...any) error { return status.Errorf(codes.InvalidArgument, format, args...) }
	if c.GetMetadata() == nil {
		return bad("sandbox config must include metadata")
	}
	sc := c.GetLinux().GetSecurityContext()
	if u := sc.GetNamespaceOptions().GetUsernsOptions(); u != nil && u.Mode == runtimeapi.NamespaceMode_POD {
		return bad("user namespaces for pods (hostUsers: false) are not supported by this runtime")
	}
	if r.level == shim.LevelNone || r.level == shim.LevelUserNS {
		if sc.GetPrivileged() && r.level == shim.LevelNone {
			return bad("privileged pods need isolation that this machine does not permit: %s", r.Isolation())
		}
	}
	if len(c.GetLinux().GetSysctls()) > 0 && r.level != shim.LevelNamespaces {
		return bad("sysctls need network namespaces, which this machine does not permit: %s", r.Isolation())
	}
	for k := range c.GetLinux().GetSysctls() {
		if strings.Contains(k, "..") {
			return bad("sysctl %q is not a name", k)
		}
	}
	return nil
}

func (r *Runtime) runSandbox(ctx context.Context, sb *sandbox, hostNet bool) error {
	if err := os.MkdirAll(filepath.Join(sb.dir, "containers"), 0o755); err != nil {
		return err
	}
	// Written first, so that a runtime that dies from here on finds what it has to undo.
	if err := sb.update(func(*sandboxRecord) {}); err != nil {
		return err
	}
	hostname := sb.config.GetHostname()
	if hostname == "" || hostNet {
		h, err := os.Hostname()
		if err != nil {
			return err
		}
		if hostname == "" {
			hostname = h
		}
	}
	if r.level == shim.LevelNamespaces && !sb.rec.HostIPC {
		if err := os.MkdirAll(sb.shmDir(), 0o1777); err != nil {
			return err
		}
		if err := sb.update(func(rec *sandboxRecord) { rec.Shm = true }); err != nil {
			return err
		}
		if err := unix.Mount("shm", sb.shmDir(), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=1777,size=65536k"); err != nil {
			return &os.PathError{Op: "mount shm", Path: sb.shmDir(), Err: err}
		}
	}
	if dir := sb.rec.CgroupDir; dir != "" {
		if err := r.cgroups.Group(dir).Create(); err != nil {
			return err
		}
	}
	cfg := shim.Config{
		ID: sb.rec.ID, Dir: sb.dir, Level: r.level, Hostname: hostname, OwnNet: sb.rec.NetNS,
		Sysctls: sb.config.GetLinux().GetSysctls(), SharedPID: sb.rec.PodPIDs, Cgroups: r.cgroups,
	}
	err := r.startShim(ctx, sb, cfg)
	if err := errors.Join(err, sb.update(func(*sandboxRecord) {})); err != nil { // with the shim's number
		return err
	}
	if r.opts.Network != nil && !hostNet && (sb.rec.NetNS || r.sharedAddresses()) {
		if err := sb.update(func(rec *sandboxRecord) { rec.Attached = true }); err != nil {
			return err
		}
		res, err := r.opts.Network.Setup(ctx, sb.network())
		if err != nil {
			return fmt.Errorf("setting up the network: %w", err)
		}
		if err := sb.update(func(rec *sandboxRecord) { rec.IPs = res.IPs }); err != nil {
			return err
		}
	}
	if err := r.writeEtc(sb, hostname); err != nil {
		return err
	}
	return sb.update(func(rec *sandboxRecord) { rec.Phase = "ready" })
}

// network describes the sandbox to the network.
func (sb *sandbox) network() cni.Sandbox {
	rec, m := sb.record(), sb.config.GetMetadata()
	s := cni.Sandbox{ID: rec.ID, Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUid(), Annotations: sb.config.GetAnnotations()}
	if rec.NetNS {
		s.NetNS = fmt.Sprintf("/proc/%d/ns/net", rec.ShimPid)
	}
	for _, p := range sb.config.GetPortMappings() {
		if p.GetHostPort() <= 0 {
			continue
		}
		ip, _ := netip.ParseAddr(p.GetHostIp())
		s.HostPorts = append(s.HostPorts, cni.HostPort{HostIP: ip, HostPort: uint16(p.GetHostPort()), ContainerPort: uint16(p.GetContainerPort()), Protocol: p.GetProtocol().String()})
	}
	return s
}

// writeEtc makes the files that every container of the pod sees in /etc.
func (r *Runtime) writeEtc(sb *sandbox, hostname string) error {
	files := map[string]string{"hostname": hostname + "\n"}
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, ip := range sb.record().IPs {
		fmt.Fprintf(&hosts, "%s\t%s\n", ip, hostname)
	}
	files["hosts"] = hosts.String()
	if dns := sb.config.GetDnsConfig(); dns != nil {
		var b strings.Builder
		if len(dns.Searches) > 0 {
			fmt.Fprintf(&b, "search %s\n", strings.Join(dns.Searches, " "))
		}
		for _, s := range dns.Servers {
			fmt.Fprintf(&b, "nameserver %s\n", s)
		}
		if len(dns.Options) > 0 {
			fmt.Fprintf(&b, "options %s\n", strings.Join(dns.Options, " "))
		}
		files["resolv.conf"] = b.String()
	} else if b, err := os.ReadFile("/etc/resolv.conf"); err == nil {
		files["resolv.conf"] = string(b)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(sb.dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// StopPodSandbox implements [kubelet.SandboxService].
func (r *Runtime) StopPodSandbox(ctx context.Context, id string) error {
	sb, err := r.sandbox(id)
	if err != nil {
		return nil
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	return toStatus(r.stopSandbox(ctx, sb))
}

func (r *Runtime) stopSandbox(ctx context.Context, sb *sandbox) error {
	if sb.record().Phase == "stopped" {
		return nil
	}
	// The network is released while its namespace is still there.
	if err := r.order(ctx, sb, shim.OpKillAll); err != nil {
		return fmt.Errorf("killing the containers of sandbox %s: %w", sb.rec.ID, err)
	}
	if sb.record().Attached {
		if err := r.opts.teardown(ctx, sb.network()); err != nil {
			return fmt.Errorf("releasing the network of sandbox %s: %w", sb.rec.ID, err)
		}
		if err := sb.update(func(rec *sandboxRecord) { rec.Attached = false }); err != nil {
			return err
		}
	}
	if err := r.order(ctx, sb, shim.OpExit); err != nil {
		return fmt.Errorf("ending sandbox %s: %w", sb.rec.ID, err)
	}
	if err := sb.reap(ctx); err != nil {
		return err
	}
	// What the shim could not record, now that it is gone.
	for _, c := range r.containersOf(sb.rec.ID) {
		c.state(true)
	}
	if sb.record().Shm {
		if err := unix.Unmount(sb.shmDir(), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return &os.PathError{Op: "unmount", Path: sb.shmDir(), Err: err}
		}
	}
	if err := sb.update(func(rec *sandboxRecord) { rec.Phase, rec.Shm = "stopped", false }); err != nil {
		return err
	}
	r.emitSandbox(sb, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	return nil
}

// order has the shim end things. One that does not answer is killed, and its containers with it.
func (r *Runtime) order(ctx context.Context, sb *sandbox, op string) error {
	if !sb.alive() {
		return nil
	}
	err := r.simple(ctx, sb, shim.Request{Op: op})
	if err == nil || !sb.alive() || ctx.Err() != nil {
		return ctx.Err()
	}
	if sb.proc != nil {
		r.opts.Logger.Error(err, "killing a shim", "sandbox", sb.rec.ID, "operation", op)
		return sb.proc.Kill()
	}
	// An adopted one, of which only the number is known: make sure that it is one.
	pid := sb.record().ShimPid
	cmd, readErr := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if pid <= 1 || readErr != nil || !strings.HasPrefix(string(cmd), box.HelperName+"\x00shim") {
		return err
	}
	return unix.Kill(pid, unix.SIGKILL)
}

func (o Options) teardown(ctx context.Context, s cni.Sandbox) error {
	if o.Network == nil {
		return nil // a runtime made with another configuration attached it
	}
	return o.Network.Teardown(ctx, s)
}

// reap waits for the shim's end.
func (sb *sandbox) reap(ctx context.Context) error {
	if sb.proc != nil {
		done := make(chan struct{})
		proc := sb.proc
		go func() {
			_, _ = proc.Wait()
			close(done)
		}()
		select {
		case <-done:
			sb.proc = nil
			return nil
		case <-ctx.Done():
			_ = proc.Kill()
			<-done
			sb.proc = nil
			return ctx.Err()
		}
	}
	for sb.alive() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// RemovePodSandbox implements [kubelet.SandboxService].
func (r *Runtime) RemovePodSandbox(ctx context.Context, id string) error {
	sb, err := r.sandbox(id)
	if err != nil {
		return nil
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if err := r.stopSandbox(ctx, sb); err != nil {
		return toStatus(err)
	}
	if err := r.destroy(ctx, sb); err != nil {
		return toStatus(err)
	}
	r.emitSandbox(sb, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	return nil
}

// destroy removes all traces. The caller holds sb.mu.
func (r *Runtime) destroy(ctx context.Context, sb *sandbox) error {
	if _, err := os.Stat(filepath.Join(sb.dir, "sandbox.json")); err == nil {
		if err := r.stopSandbox(ctx, sb); err != nil {
			return err
		}
	}
	for _, c := range r.containersOf(sb.rec.ID) {
		if err := r.removeContainer(ctx, sb, c); err != nil {
			return err
		}
	}
	if dir := sb.rec.CgroupDir; dir != "" && sb.config.GetLinux().GetCgroupParent() == "" {
		if err := r.cgroups.Group(dir).Remove(); err != nil {
			return err
		}
	}
	if err := imagestore.RemoveAll(sb.dir); err != nil {
		return err
	}
	r.mu.Lock()
	delete(r.sandboxes, sb.rec.ID)
	r.mu.Unlock()
	return nil
}

// PodSandboxStatus implements [kubelet.SandboxService].
func (r *Runtime) PodSandboxStatus(_ context.Context, id string, verbose bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	sb, err := r.sandbox(id)
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.PodSandboxStatusResponse{Status: r.sandboxStatus(sb)}
	if verbose {
		rec := sb.record()
		info, err := json.Marshal(map[string]any{"pid": rec.ShimPid, "netns": sb.network().NetNS, "isolation": r.level})
		if err != nil {
			return nil, err
		}
		resp.Info = map[string]string{"info": string(info)}
	}
	return resp, nil
}

func (r *Runtime) sandboxStatus(sb *sandbox) *runtimeapi.PodSandboxStatus {
	rec, c := sb.record(), sb.config
	st := &runtimeapi.PodSandboxStatus{
		Id: rec.ID, Metadata: c.GetMetadata(), State: sb.state(), CreatedAt: rec.CreatedAt.UnixNano(),
		Labels: c.GetLabels(), Annotations: c.GetAnnotations(), Network: &runtimeapi.PodSandboxNetworkStatus{},
		Linux: &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: c.GetLinux().GetSecurityContext().GetNamespaceOptions()}},
	}
	for i, ip := range rec.IPs {
		if i == 0 {
			st.Network.Ip = ip.String()
		} else {
			st.Network.AdditionalIps = append(st.Network.AdditionalIps, &runtimeapi.PodIP{Ip: ip.String()})
		}
	}
	return st
}

// ListPodSandbox implements [kubelet.SandboxService].
func (r *Runtime) ListPodSandbox(_ context.Context, f *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	r.mu.Lock()
	all := make([]*sandbox, 0, len(r.sandboxes))
	for _, sb := range r.sandboxes {
		all = append(all, sb)
	}
	r.mu.Unlock()
	var list []*runtimeapi.PodSandbox
	for _, sb := range all {
		rec, c := sb.record(), sb.config
		if rec.Phase == "creating" || f.GetId() != "" && f.GetId() != rec.ID || !selects(f.GetLabelSelector(), c.GetLabels()) {
			continue
		}
		state := sb.state()
		if f.GetState() != nil && f.State.State != state {
			continue
		}
		list = append(list, &runtimeapi.PodSandbox{
			Id: rec.ID, Metadata: c.GetMetadata(), State: state, CreatedAt: rec.CreatedAt.UnixNano(),
			Labels: c.GetLabels(), Annotations: c.GetAnnotations(),
		})
	}
	return list, nil
}

func selects(sel, labels map[string]string) bool {
	for k, v := range sel {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}
