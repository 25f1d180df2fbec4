package sim

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
)

// Options of New.
type Options struct {
	// Policy names the run in reports. Default "policy".
	Policy string
	// Engine decides. Its Profile is required: plugins.Default() is Kubernetes' own.
	Engine scheduler.EngineOptions
	// Until ends the simulation at that time. Default: when nothing is left to happen.
	Until time.Duration
	// DecisionTime is how long the scheduler takes for one attempt, in virtual time. Default 0: it is never the bottleneck.
	DecisionTime time.Duration
	// StartDelay passes between the binding of a pod and the start of its run time.
	StartDelay time.Duration
	// ProvisionDelay passes until a volume that is made for a claim is there. A pod on its node whose volumes wait for that starts then. Default 5 seconds.
	ProvisionDelay time.Duration
	// GracePeriod is how long a preempted pod keeps its place. Default 0.
	GracePeriod time.Duration
	// ResubmitDelay passes before a pod that was lost, evicted or preempted, or that failed, comes again. Default 1 second.
	ResubmitDelay time.Duration
	// NoLines has every pending pod tried by itself after each change that could help it, as in a live cluster. By default pods that are equal but for their names
	// stand in line behind the first of them that fits nowhere: see "Who waits". That is much faster when many wait.
	NoLines bool
	// Interval between the samples of Result.Samples. Default 5 minutes.
	Interval time.Duration
	// Measures are sampled beside those that every Result has.
	Measures []Measure
	// Log receives one line for each thing that happens; the same options and workload give the same bytes. Nil for none.
	Log io.Writer
	// Check verifies the invariants after every step, by rules of its own: no node over its allocatable, no required rule broken, no pod lost or
	// placed twice, gangs all or nothing. The first violation ends the simulation. It takes much time: for tests.
	Check bool
	// Progress is called at each sample; nil for none.
	Progress func(Progress)
}

// Progress is how far a simulation is.
type Progress struct {
	Now                                   time.Duration
	Submitted, Pending, Running, Finished int
	Decisions                             int
}

func (o Options) withDefaults() Options {
	if o.Policy == "" {
		o.Policy = "policy"
	}
	if o.Interval == 0 {
		o.Interval = 5 * time.Minute
	}
	if o.ResubmitDelay == 0 {
		o.ResubmitDelay = time.Second
	}
	if o.ProvisionDelay == 0 {
		o.ProvisionDelay = 5 * time.Second
	}
	return o
}

func (o Options) validate() error {
	for _, d := range []struct {
		name string
		d    time.Duration
	}{
		{"Until", o.Until},
		{"DecisionTime", o.DecisionTime},
		{"StartDelay", o.StartDelay},
		{"ProvisionDelay", o.ProvisionDelay},
		{"GracePeriod", o.GracePeriod},
		{"ResubmitDelay", o.ResubmitDelay},
		{"Interval", o.Interval},
	} {
		if d.d < 0 {
			return fmt.Errorf("sim: Options.%s: %v: want 0 or more", d.name, d.d)
		}
	}
	for i, m := range o.Measures {
		if m.Name == "" || m.Of == nil {
			return fmt.Errorf("sim: Options.Measures[%d] %q: want a name and a function", i, m.Name)
		}
	}
	return nil
}

// Simulation is one run of a workload under one policy. Not safe for concurrent use; any number of them may run side by side.
type Simulation struct {
	opts     Options
	workload Workload
	engine   *scheduler.Engine
	queue    *scheduler.Queue
	log      *eventLog
	check    *checker // nil for none

	now    time.Duration
	busy   time.Duration // the scheduler is, until then
	flush  time.Duration // when pods set aside long ago are tried again
	seq    uint64
	uids   uint64
	timers timers

	columns   map[corev1.ResourceName]int
	resources []corev1.ResourceName
	shapes    map[shapeKey]*shape
	common    []*shape // those whose fit measures fragmentation
	nodes     map[string]*node
	order     []*node // in the order in which they came
	pods      map[string]*pod
	waiting   map[*scheduler.Pod]*pod
	placed    map[types.UID]*pod
	parked    int // pods in lines
	objects   objects
	metrics   *metrics
}

const (
	flushEvery = 30 * time.Second
	maxShapes  = 1024
)

// New returns a simulation that has not begun.
func New(w Workload, opts Options) (*Simulation, error) {
	if w.Events == nil {
		return nil, errors.New("sim: Workload.Events: want a sequence, such as of package trace")
	}
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	if err := checkPlugins(opts.Engine); err != nil {
		return nil, err
	}
	engine, err := scheduler.NewEngine(opts.Engine)
	if err != nil {
		return nil, fmt.Errorf("sim: Options.Engine: %w", err)
	}
	s := &Simulation{
		opts: opts, workload: w, engine: engine, queue: scheduler.NewQueue(engine),
		objects: newObjects(),
		columns: map[corev1.ResourceName]int{}, shapes: map[shapeKey]*shape{}, nodes: map[string]*node{}, pods: map[string]*pod{}, waiting: map[*scheduler.Pod]*pod{}, placed: map[types.UID]*pod{},
	}
	s.column(corev1.ResourceCPU)
	s.column(corev1.ResourceMemory)
	s.metrics = newMetrics(s)
	if opts.Log != nil {
		s.log = &eventLog{out: bufio.NewWriterSize(opts.Log, 1<<16), sim: s}
	}
	if opts.Check {
		s.check = &checker{sim: s}
	}
	return s, nil
}

// Engine is the engine that decides, to ask it what it knows: after Run, of the cluster as it was in the end, which with Options.Until is at that time. It must not be
// changed while the simulation runs.
func (s *Simulation) Engine() *scheduler.Engine { return s.engine }

// Run plays the workload to its end, or until ctx ends. It may be called once.
func (s *Simulation) Run(ctx context.Context) (*Result, error) {
	err := s.run(ctx)
	if s.log != nil {
		err = errors.Join(err, s.log.out.Flush())
	}
	if err != nil {
		return nil, err
	}
	return s.metrics.result(), nil
}

func (s *Simulation) run(ctx context.Context) error {
	events := newSource(s.workload)
	defer events.stop()
	for steps := 0; ; steps++ {
		if steps%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		next, ok := s.next(events)
		if events.err != nil {
			return fmt.Errorf("sim: workload %s: %w", s.workload.Name, events.err)
		}
		if !ok || s.opts.Until > 0 && next > s.opts.Until {
			break
		}
		if next < s.now {
			return fmt.Errorf("sim: workload %s: an event at %v comes after one at %v: want them in order of time", s.workload.Name, next, s.now)
		}
		s.metrics.advance(next)
		s.now = next
		if err := s.step(events); err != nil {
			return fmt.Errorf("sim: at %v: %w", s.now, err)
		}
	}
	if s.opts.Until > s.now {
		s.metrics.advance(s.opts.Until)
		s.now = s.opts.Until
	}
	return nil
}

// next is when something happens next.
func (s *Simulation) next(events *source) (at time.Duration, ok bool) {
	sooner := func(t time.Duration) {
		if !ok || t < at {
			at, ok = t, true
		}
	}
	if events.ok {
		sooner(events.head.At)
	}
	if len(s.timers) > 0 {
		sooner(s.timers[0].at)
	}
	if t, any := s.queue.Ready(instant(s.now)); any {
		sooner(max(since(t), s.now, s.busy))
	}
	// Pods that nothing else can help are not tried again for ever.
	if ok && s.queue.Len() > 0 {
		sooner(max(s.flush, s.now))
	}
	return at, ok
}

// step does all that is due now.
func (s *Simulation) step(events *source) error {
	for len(s.timers) > 0 && s.timers[0].at <= s.now {
		s.fire(s.timers.pop())
	}
	for events.ok && events.head.At <= s.now {
		if err := s.apply(&events.head); err != nil {
			return err
		}
		if events.advance(); events.err != nil {
			return events.err
		}
	}
	if s.now >= s.flush {
		s.queue.Flush(instant(s.now))
		s.flush = s.now - s.now%flushEvery + flushEvery
	}
	if err := s.schedule(); err != nil {
		return err
	}
	if s.check != nil {
		return s.check.all()
	}
	return nil
}

// The queue wants points in time.
func instant(d time.Duration) time.Time { return time.Unix(0, int64(d)) }
func since(t time.Time) time.Duration   { return time.Duration(t.UnixNano()) }

func (s *Simulation) plan(after time.Duration, kind timerKind, p *pod) {
	s.seq++
	s.timers.push(timer{at: s.now + after, seq: s.seq, pod: p, life: p.life, kind: kind})
}

// planClaim is plan for a volume that is being made.
func (s *Simulation) planClaim(after time.Duration, claim string, uid types.UID) {
	s.seq++
	s.timers.push(timer{at: s.now + after, seq: s.seq, kind: provisioned, claim: claim, uid: uid})
}
