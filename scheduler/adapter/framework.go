package adapter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/keelson/keelson/scheduler"
)

// Factory makes a plugin: the function that plugins' packages call New.
type Factory func(ctx context.Context, args runtime.Object, h fwk.Handle) (fwk.Plugin, error)

// Options of New: what a Handle gives. Plugins that ask for what isn't set can't be made.
type Options struct {
	// ProfileName is the spec.schedulerName of the pods the plugins are for. Default default-scheduler.
	ProfileName string
	ClientSet   kubernetes.Interface
	KubeConfig  *rest.Config
	// Informers are the caller's to start once the plugins are made.
	Informers informers.SharedInformerFactory
	Recorder  events.EventRecorderLogger
	Logger    logr.Logger
}

// Framework is what the plugins of one profile share.
type Framework struct {
	opts Options

	mu      sync.Mutex
	plugins []*Plugin
	missing []string // what a plugin asked for while it was made and can't have
	making  bool
	view    *scheduler.View
	cycle   *cycle               // of the decision under way
	placed  map[types.UID]*cycle // of pods on their way to be bound
	handle  scheduler.Handle
	images  map[string]int // nodes by image, of the decision under way
}

// New returns a framework without plugins.
func New(opts Options) (*Framework, error) {
	if opts.ProfileName == "" {
		opts.ProfileName = "default-scheduler"
	}
	if opts.Logger.GetSink() == nil {
		opts.Logger = logr.Discard()
	}
	return &Framework{opts: opts, placed: map[types.UID]*cycle{}}, nil
}

// Plugin makes a plugin. Args may be nil.
func (f *Framework) Plugin(ctx context.Context, factory Factory, args runtime.Object) (*Plugin, error) {
	if factory == nil {
		return nil, errors.New("adapter: want a factory")
	}
	f.mu.Lock()
	f.making, f.missing = true, nil
	f.mu.Unlock()
	inner, err := f.make(ctx, factory, args)
	f.mu.Lock()
	missing := f.missing
	f.making = false
	f.mu.Unlock()
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, errors.Join(fmt.Errorf("adapter: the plugin asks for what its handle doesn't give: %s", strings.Join(slices.Compact(missing), ", ")), err)
	}
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	p, err := newPlugin(ctx, f, inner)
	if err == nil {
		f.mu.Lock()
		f.plugins = append(f.plugins, p)
		f.mu.Unlock()
	}
	return p, err
}

// make turns a panic into an error: constructors use what they are given without looking.
func (f *Framework) make(ctx context.Context, factory Factory, args runtime.Object) (p fwk.Plugin, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the plugin's constructor panicked: %v", r)
		}
	}()
	p, err = factory(ctx, args, handle{f})
	if err == nil && p == nil {
		err = errors.New("the plugin's constructor returned nil")
	}
	return p, err
}

// lacks notes what can't be given.
func (f *Framework) lacks(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.making {
		f.missing = append(f.missing, what)
		return
	}
	f.opts.Logger.Error(errors.New("not supported"), "a plugin asks for what its handle doesn't give", "method", what)
}

// begin starts a decision, or joins the one that another plugin of the profile has started.
func (f *Framework) begin(p *Plugin, pod *scheduler.Pod, view *scheduler.View) *cycle {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.view, f.images = view, nil
	if c := f.cycle; c != nil && c.pod == pod && !slices.Contains(c.seen, p) {
		c.seen = append(c.seen, p)
		return c
	}
	f.cycle = newCycle(pod)
	f.cycle.seen = []*Plugin{p}
	return f.cycle
}

// again is a cycle for a pod for which nothing was found, with what PreFilter notes in its state: what the decision itself left there may be of a trial.
func (f *Framework) again(pod *scheduler.Pod, view *scheduler.View) *cycle {
	c := newCycle(pod)
	f.mu.Lock()
	f.view, f.images, f.cycle = view, nil, c
	all := slices.Clone(f.plugins)
	f.mu.Unlock()
	for _, p := range all {
		if p.preFilter != nil {
			p.preFilter.PreFilter(p.ctx, c.state, pod.Object, f.infos(view)) // it has answered before
		}
	}
	return c
}

// place keeps a pod's cycle for the steps after the decision.
func (f *Framework) place(p *Plugin, pod *scheduler.Pod, view *scheduler.View) *cycle {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.view = view
	uid := pod.Object.UID
	c := f.placed[uid]
	if c == nil || c.pod != pod {
		if c = f.cycle; c == nil || c.pod != pod {
			c = newCycle(pod)
		}
		f.placed[uid] = c
	}
	c.infos = map[string]*nodeInfo{} // the pod is on its node now
	c.holders[p] = true
	return c
}

// of is the cycle of a pod on its way to be bound.
func (f *Framework) of(pod *scheduler.Pod) *cycle {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.placed[pod.Object.UID]; c != nil {
		return c
	}
	return newCycle(pod)
}

// end forgets a pod's cycle when all plugins are through with it.
func (f *Framework) end(p *Plugin, pod *scheduler.Pod) {
	f.mu.Lock()
	defer f.mu.Unlock()
	uid := pod.Object.UID
	if c := f.placed[uid]; c != nil {
		if delete(c.holders, p); len(c.holders) == 0 {
			delete(f.placed, uid)
		}
	}
}
