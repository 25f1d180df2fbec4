package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/kubelet/internal/images"
	"github.com/keelson/keelson/kubelet/internal/keyed"
	"github.com/keelson/keelson/kubelet/internal/volumes"
)

// Kubelet runs the pods of one node. Make one with New.
type Kubelet struct {
	opts    Options
	clock   clock.WithTicker
	log     logr.Logger
	client  client.WithWatch
	cache   cache.Cache
	runtime RuntimeService
	image   ImageService
	source  *Dispatcher
	own     bool // source is the kubelet's own to run

	objects  *objects
	images   *images.Manager
	volumes  *volumes.Manager // nil in simulation
	events   *recorder
	metrics  *metrics
	queue    *keyed.Queue[types.UID]
	statuses *keyed.Queue[types.UID]
	prober   *keyed.Queue[probeKey]
	hostIPs  []string

	operations  sync.WaitGroup
	running     atomic.Bool
	runtimeName string

	mu       sync.Mutex
	pods     map[types.UID]*record
	node     *corev1.Node
	listener net.Listener

	admitMu sync.Mutex
	used    resources

	relistMu     sync.Mutex
	relisted     map[types.UID]map[string]int32
	runtimeError atomic.Pointer[error]
	imageUse     imageUse
	fsUsage      func(path string) (used, total uint64)

	usage   uint64 // of the processors at usageAt, in nanoseconds
	usageAt time.Time
}

// New makes a kubelet. c and ca are the API; ca may hold all pods or only the node's. rt runs containers and im keeps images; one
// value may do both.
func New(c client.WithWatch, ca cache.Cache, rt RuntimeService, im ImageService, o Options) (*Kubelet, error) {
	switch {
	case c == nil:
		return nil, errors.New("kubelet: New expects a client")
	case ca == nil:
		return nil, errors.New("kubelet: New expects a cache")
	case rt == nil || im == nil:
		return nil, errors.New("kubelet: New expects a RuntimeService and an ImageService")
	}
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	k := &Kubelet{opts: o, clock: o.Clock, log: o.Logger, client: c, cache: ca, runtime: rt, image: im, source: o.Pods, pods: map[types.UID]*record{}, hostIPs: addressStrings(o.NodeIPs), fsUsage: fsUsage}
	if k.source == nil {
		if k.source, err = NewDispatcher(ca); err != nil {
			return nil, err
		}
		k.source.only, k.own = o.NodeName, true
	}
	if k.metrics, err = newMetrics(o.Metrics, k); err != nil {
		return nil, err
	}
	k.objects = &objects{client: c, cache: ca}
	k.images = images.New(im, k.objects, o.Clock, o.ParallelPulls)
	if !o.Simulated {
		k.volumes = volumes.New(filepath.Join(o.RootDir, "pods"), k.objects, o.Clock, o.Logger)
	}
	k.events = newRecorder(c, o)
	k.queue = keyed.New(o.Clock, o.Workers, k.work)
	k.statuses = keyed.New(o.Clock, o.Workers, k.writeStatus)
	k.prober = keyed.New(o.Clock, o.Workers*4, k.probe)
	return k, nil
}

// NodeName is the name of the kubelet's node.
func (k *Kubelet) NodeName() string { return k.opts.NodeName }

// Run registers the node and runs its pods until ctx ends, which is no error, leaving them running. It returns when everything it started
// has ended, and can be called once.
func (k *Kubelet) Run(parent context.Context) error {
	if k.running.Swap(true) {
		return errors.New("kubelet: Run was called twice")
	}
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	var group sync.WaitGroup
	var once sync.Once
	var first error
	start := func(name string, f func(context.Context) error) {
		group.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				once.Do(func() { first = fmt.Errorf("kubelet: %s: %w", name, err) })
				cancel()
			}
		})
	}
	err := k.run(ctx, start)
	if err != nil {
		cancel()
	} else {
		<-ctx.Done()
		err = ctx.Err()
	}
	group.Wait()
	k.operations.Wait()
	switch {
	case first != nil:
		return first
	case parent.Err() != nil:
		return nil
	}
	return err
}

func (k *Kubelet) run(ctx context.Context, start func(string, func(context.Context) error)) error {
	if err := k.prepareRoot(); err != nil {
		return err
	}
	version, err := k.waitForRuntime(ctx)
	if err != nil {
		return err
	}
	k.runtimeName = version.RuntimeName
	if !k.opts.DisableServer {
		serve, err := k.listen(ctx)
		if err != nil {
			return err
		}
		start("server", serve)
	}
	start("events", k.events.queue.Run)
	if err := k.register(ctx, version); err != nil {
		return err
	}
	k.events.nodeEvent(corev1.EventTypeNormal, "Starting", "Starting kubelet.")
	start("node status", k.reportNode)
	if k.own {
		start("pods", k.source.Run)
	}
	select {
	case <-k.source.synced:
	case <-ctx.Done():
		return ctx.Err()
	}
	// The pods there are: admitted in the order they were made, before any work begins.
	if err := k.source.subscribe(k.opts.NodeName, k.podEvent); err != nil {
		return err
	}
	start("subscription", func(ctx context.Context) error {
		<-ctx.Done()
		k.source.unsubscribe(k.opts.NodeName)
		return ctx.Err()
	})
	if err := k.adopt(ctx); err != nil {
		return err
	}
	start("status", k.statuses.Run)
	start("pod workers", k.queue.Run)
	start("probes", k.prober.Run)
	start("runtime events", k.watchRuntime)
	if !k.opts.Simulated {
		start("housekeeping", k.housekeep)
	}
	return nil
}

// adopt takes stock of what runs, and admits the pods that are known in the order they were made.
func (k *Kubelet) adopt(ctx context.Context) error {
	for {
		err := k.relist(ctx)
		if err == nil {
			break
		}
		k.log.Error(err, "Listing what runs")
		if k.sleep(ctx, time.Second); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	k.mu.Lock()
	list := make([]*record, 0, len(k.pods))
	for _, rec := range k.pods {
		list = append(list, rec)
	}
	k.mu.Unlock()
	sort.Slice(list, func(i, j int) bool {
		return list[i].pod.CreationTimestamp.Before(&list[j].pod.CreationTimestamp)
	})
	for _, rec := range list {
		rec.mu.Lock()
		k.relistMu.Lock()
		runs := len(k.relisted[rec.uid]) > 0
		k.relistMu.Unlock()
		if !rec.gone && rec.admission == notAdmitted && (runs || rec.pod.Status.StartTime != nil) {
			// What had been admitted once stays.
			k.take1(rec)
		}
		rec.mu.Unlock()
	}
	for _, rec := range list {
		rec.mu.Lock()
		if !rec.gone && rec.admission == notAdmitted {
			k.admit(rec)
		}
		rec.mu.Unlock()
	}
	return nil
}

// sleep waits by the kubelet's clock.
func (k *Kubelet) sleep(ctx context.Context, d time.Duration) {
	t := k.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
	case <-ctx.Done():
	}
}

// every calls f now and then every so often, until ctx ends.
func (k *Kubelet) every(ctx context.Context, d time.Duration, f func()) error {
	t := k.clock.NewTicker(d)
	defer t.Stop()
	for {
		f()
		select {
		case <-t.C():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func errPtr(err error) *error { return &err }
