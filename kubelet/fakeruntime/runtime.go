package fakeruntime

import (
	"container/heap"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
	"k8s.io/utils/clock"

	"github.com/keelson/keelson/kubelet"
	"github.com/keelson/keelson/kubelet/internal/streams"
)

var (
	_ kubelet.RuntimeService = (*Runtime)(nil)
	_ kubelet.ImageService   = (*Runtime)(nil)
	_ kubelet.EventService   = (*Runtime)(nil)
	_ kubelet.ProbeService   = (*Runtime)(nil)
)

// Options configure a Runtime; the zero value is ready to use.
type Options struct {
	// Clock tells the time. Default: the machine's.
	Clock clock.WithTicker
	// PodCIDR is where sandboxes' addresses come from. Default: 10.244.0.0/16.
	PodCIDR netip.Prefix
	// JobRunTime is how long containers of Jobs run. Default: one second.
	JobRunTime time.Duration
	// PullDelay is how long an image that is not there takes to pull. Default: none.
	PullDelay time.Duration
	// PullError decides which images can't be pulled. Default: all can.
	PullError func(image string) error
	Logger    logr.Logger
}

func (o Options) withDefaults() Options {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if !o.PodCIDR.IsValid() {
		o.PodCIDR = netip.MustParsePrefix("10.244.0.0/16")
	}
	if o.JobRunTime == 0 {
		o.JobRunTime = time.Second
	}
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	return o
}

func (o Options) validate() error {
	if o.JobRunTime < 0 {
		return fmt.Errorf("fakeruntime: Options.JobRunTime is %v, expected a duration of 0 or more", o.JobRunTime)
	}
	if o.PullDelay < 0 {
		return fmt.Errorf("fakeruntime: Options.PullDelay is %v, expected a duration of 0 or more", o.PullDelay)
	}
	return nil
}

// Runtime is safe for concurrent use. It needs no Run unless exec, attach or port-forward are wanted.
type Runtime struct {
	opts  Options
	clock clock.WithTicker

	mu         sync.Mutex
	ids        uint64
	sandboxes  map[string]*sandbox
	containers map[string]*container
	byUID      map[string][]*sandbox
	images     map[string]*image
	addrs      addresses
	exits      exits
	subs       []*subscriber
	streaming  *streams.Server
}

type sandbox struct {
	id          string
	meta        *runtimeapi.PodSandboxMetadata
	labels      map[string]string
	annotations map[string]string
	hostname    string
	logDir      string
	handler     string
	ready       bool
	createdAt   int64
	ip          netip.Addr
	linux       *runtimeapi.NamespaceOption
	containers  []*container
}

type container struct {
	id          string
	sandbox     *sandbox
	meta        *runtimeapi.ContainerMetadata
	labels      map[string]string
	annotations map[string]string
	image       *runtimeapi.ImageSpec
	imageRef    string
	logPath     string
	resources   *runtimeapi.LinuxContainerResources
	mounts      []*runtimeapi.Mount
	state       runtimeapi.ContainerState
	createdAt   int64
	startedAt   int64
	finishedAt  int64
	exitCode    int32
	reason      string
	plan        plan
	exitAt      time.Time
	index       int // in exits, -1 if it does not end by itself
}

// New makes a runtime without sandboxes or images.
func New(o Options) (*Runtime, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	return &Runtime{
		opts: o, clock: o.Clock, sandboxes: map[string]*sandbox{}, containers: map[string]*container{},
		byUID: map[string][]*sandbox{}, images: map[string]*image{}, addrs: newAddresses(o.PodCIDR),
	}, nil
}

func (r *Runtime) id() string {
	r.ids++
	return fmt.Sprintf("fa4e%028x", r.ids)
}

// lock locks the runtime after letting everything exit whose time has come.
func (r *Runtime) lock() time.Time {
	r.mu.Lock()
	now := r.clock.Now()
	for len(r.exits) > 0 && !r.exits[0].exitAt.After(now) {
		c := heap.Pop(&r.exits).(*container)
		r.exited(c, c.plan.exitCode, c.plan.reason(), c.exitAt)
	}
	return now
}

func (r *Runtime) exited(c *container, code int32, reason string, at time.Time) {
	if c.index >= 0 {
		heap.Remove(&r.exits, c.index)
	}
	c.state, c.exitCode, c.reason, c.finishedAt = runtimeapi.ContainerState_CONTAINER_EXITED, code, reason, at.UnixNano()
	r.emit(c.sandbox, c.id, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

func notFound(what, id string) error {
	return status.Errorf(codes.NotFound, "%s %q not found", what, id)
}

// RunPodSandbox implements kubelet.SandboxService.
func (r *Runtime) RunPodSandbox(_ context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	if config.GetMetadata().GetName() == "" {
		return "", status.Error(codes.InvalidArgument, "sandbox config must include metadata with a name")
	}
	now := r.lock()
	defer r.mu.Unlock()
	for _, s := range r.byUID[config.Metadata.Uid] {
		if s.meta.Attempt == config.Metadata.Attempt && s.meta.Name == config.Metadata.Name && s.meta.Namespace == config.Metadata.Namespace {
			return "", status.Errorf(codes.AlreadyExists, "sandbox attempt %d of pod %q exists", s.meta.Attempt, s.meta.Uid)
		}
	}
	m := config.Metadata
	s := &sandbox{
		id: r.id(), meta: &runtimeapi.PodSandboxMetadata{Name: m.Name, Namespace: m.Namespace, Uid: m.Uid, Attempt: m.Attempt},
		labels: maps.Clone(config.Labels), annotations: maps.Clone(config.Annotations), hostname: config.Hostname,
		logDir: config.LogDirectory, handler: handler, ready: true, createdAt: now.UnixNano(), linux: config.GetLinux().GetSecurityContext().GetNamespaceOptions(),
	}
	if s.linux.GetNetwork() != runtimeapi.NamespaceMode_NODE {
		ip, err := r.addrs.take()
		if err != nil {
			return "", status.Error(codes.ResourceExhausted, err.Error())
		}
		s.ip = ip
	}
	r.sandboxes[s.id] = s
	r.byUID[s.meta.Uid] = append(r.byUID[s.meta.Uid], s)
	r.emit(s, s.id, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	return s.id, nil
}

// StopPodSandbox implements kubelet.SandboxService.
func (r *Runtime) StopPodSandbox(_ context.Context, id string) error {
	now := r.lock()
	defer r.mu.Unlock()
	if s := r.sandboxes[id]; s != nil {
		r.stopSandbox(s, now)
	}
	return nil
}

func (r *Runtime) stopSandbox(s *sandbox, now time.Time) {
	for _, c := range s.containers {
		if c.state == runtimeapi.ContainerState_CONTAINER_RUNNING {
			r.exited(c, 137, "", now)
		}
	}
	if s.ready {
		s.ready = false
		r.addrs.give(s.ip)
		r.emit(s, s.id, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	}
}

// RemovePodSandbox implements kubelet.SandboxService.
func (r *Runtime) RemovePodSandbox(_ context.Context, id string) error {
	now := r.lock()
	defer r.mu.Unlock()
	s := r.sandboxes[id]
	if s == nil {
		return nil
	}
	r.stopSandbox(s, now)
	for _, c := range s.containers {
		delete(r.containers, c.id)
	}
	s.containers = nil
	delete(r.sandboxes, id)
	rest := slices.DeleteFunc(r.byUID[s.meta.Uid], func(x *sandbox) bool { return x == s })
	if len(rest) == 0 {
		delete(r.byUID, s.meta.Uid)
	} else {
		r.byUID[s.meta.Uid] = rest
	}
	r.emit(s, s.id, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	return nil
}

// PodSandboxStatus implements kubelet.SandboxService.
func (r *Runtime) PodSandboxStatus(_ context.Context, id string, _ bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	now := r.lock()
	defer r.mu.Unlock()
	s := r.sandboxes[id]
	if s == nil {
		return nil, notFound("sandbox", id)
	}
	resp := &runtimeapi.PodSandboxStatusResponse{Status: s.status(), Timestamp: now.UnixNano()}
	for _, c := range s.containers {
		resp.ContainersStatuses = append(resp.ContainersStatuses, c.status())
	}
	return resp, nil
}

func (s *sandbox) state() runtimeapi.PodSandboxState {
	if s.ready {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}

func (s *sandbox) status() *runtimeapi.PodSandboxStatus {
	st := &runtimeapi.PodSandboxStatus{
		Id: s.id, Metadata: s.meta, State: s.state(), CreatedAt: s.createdAt, Labels: s.labels, Annotations: s.annotations,
		RuntimeHandler: s.handler, Linux: &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: s.linux}},
	}
	if s.ready && s.ip.IsValid() {
		st.Network = &runtimeapi.PodSandboxNetworkStatus{Ip: s.ip.String()}
	}
	return st
}

// ListPodSandbox implements kubelet.SandboxService.
func (r *Runtime) ListPodSandbox(_ context.Context, f *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	r.lock()
	defer r.mu.Unlock()
	var out []*runtimeapi.PodSandbox
	r.eachSandbox(f.GetId(), f.GetLabelSelector(), func(s *sandbox) {
		if f.GetState() == nil || f.State.State == s.state() {
			out = append(out, &runtimeapi.PodSandbox{
				Id: s.id, Metadata: s.meta, State: s.state(), CreatedAt: s.createdAt, Labels: s.labels,
				Annotations: s.annotations, RuntimeHandler: s.handler,
			})
		}
	})
	return out, nil
}

// eachSandbox visits the sandboxes that match, through the index of pod UIDs if the selector has one.
func (r *Runtime) eachSandbox(id string, selector map[string]string, visit func(*sandbox)) {
	if id != "" {
		if s := r.sandboxes[id]; s != nil && matches(s.labels, selector) {
			visit(s)
		}
		return
	}
	if uid, ok := selector[kubelettypes.KubernetesPodUIDLabel]; ok {
		for _, s := range r.byUID[uid] {
			if matches(s.labels, selector) {
				visit(s)
			}
		}
		return
	}
	for _, s := range r.sandboxes {
		if matches(s.labels, selector) {
			visit(s)
		}
	}
}

func matches(labels, selector map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// Version implements kubelet.StatusService.
func (r *Runtime) Version(context.Context, string) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "fake", RuntimeVersion: "1.0.0", RuntimeApiVersion: "v1"}, nil
}

// Status implements kubelet.StatusService.
func (r *Runtime) Status(context.Context, bool) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Status: true},
	}}}, nil
}

type exits []*container

func (h exits) Len() int           { return len(h) }
func (h exits) Less(i, j int) bool { return h[i].exitAt.Before(h[j].exitAt) }
func (h exits) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *exits) Push(x any) {
	c := x.(*container)
	c.index = len(*h)
	*h = append(*h, c)
}

func (h *exits) Pop() any {
	old := *h
	c := old[len(old)-1]
	old[len(old)-1] = nil
	c.index = -1
	*h = old[:len(old)-1]
	return c
}

// addresses hands out the addresses of a prefix.
type addresses struct {
	prefix netip.Prefix
	next   netip.Addr
	free   []netip.Addr
}

func newAddresses(p netip.Prefix) addresses {
	p = p.Masked()
	// The network's own address and the first, the gateway's, are left out.
	return addresses{prefix: p, next: p.Addr().Next().Next()}
}

func (a *addresses) take() (netip.Addr, error) {
	if a.prefix.Contains(a.next) {
		ip := a.next
		a.next = ip.Next()
		return ip, nil
	}
	if n := len(a.free); n > 0 {
		ip := a.free[0]
		a.free = a.free[1:]
		return ip, nil
	}
	return netip.Addr{}, fmt.Errorf("no address left in %s", a.prefix)
}

func (a *addresses) give(ip netip.Addr) {
	if ip.IsValid() {
		a.free = append(a.free, ip)
	}
}
