package adapter

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/keelson/keelson/scheduler"
)

// maxWait bounds what Permit may ask for, as in kube-scheduler.
const maxWait = 15 * time.Minute

// Plugin is a plugin written for k8s.io/kube-scheduler/framework.
type Plugin struct {
	f      *Framework
	ctx    context.Context // of the plugin's making, which the methods without one are called with
	inner  fwk.Plugin
	points scheduler.Points
	events []fwk.ClusterEventWithHint // nil: every event may help

	enqueue   fwk.PreEnqueuePlugin
	preFilter fwk.PreFilterPlugin
	filter    fwk.FilterPlugin
	post      fwk.PostFilterPlugin
	preScore  fwk.PreScorePlugin
	score     fwk.ScorePlugin
	reserve   fwk.ReservePlugin
	permit    fwk.PermitPlugin
	preBind   fwk.PreBindPlugin
	bind      fwk.BindPlugin
	postBind  fwk.PostBindPlugin

	failed failures
}

var (
	_ scheduler.PreEnqueuePlugin = (*Plugin)(nil)
	_ scheduler.ClusterPlugin    = (*Plugin)(nil)
	_ scheduler.PostFilterPlugin = (*Plugin)(nil)
	_ scheduler.ReservePlugin    = (*Plugin)(nil)
	_ scheduler.PermitPlugin     = (*Plugin)(nil)
	_ scheduler.PreBindPlugin    = (*Plugin)(nil)
	_ scheduler.BindPlugin       = (*Plugin)(nil)
	_ scheduler.PostBindPlugin   = (*Plugin)(nil)
	_ scheduler.Hinter           = (*Plugin)(nil)
	_ scheduler.Attacher         = (*Plugin)(nil)
	_ scheduler.Partial          = (*Plugin)(nil)
)

func newPlugin(ctx context.Context, f *Framework, inner fwk.Plugin) (*Plugin, error) {
	p := &Plugin{f: f, ctx: ctx, inner: inner}
	p.enqueue, _ = inner.(fwk.PreEnqueuePlugin)
	p.preFilter, _ = inner.(fwk.PreFilterPlugin)
	p.filter, _ = inner.(fwk.FilterPlugin)
	p.post, _ = inner.(fwk.PostFilterPlugin)
	p.preScore, _ = inner.(fwk.PreScorePlugin)
	p.score, _ = inner.(fwk.ScorePlugin)
	p.reserve, _ = inner.(fwk.ReservePlugin)
	p.permit, _ = inner.(fwk.PermitPlugin)
	p.preBind, _ = inner.(fwk.PreBindPlugin)
	p.bind, _ = inner.(fwk.BindPlugin)
	p.postBind, _ = inner.(fwk.PostBindPlugin)
	add := func(has bool, at scheduler.Points) {
		if has {
			p.points |= at
		}
	}
	add(p.enqueue != nil, scheduler.AtPreEnqueue)
	add(p.preFilter != nil, scheduler.AtPreFilter|scheduler.AtFilter)
	add(p.filter != nil, scheduler.AtPreFilter|scheduler.AtFilter)
	add(p.post != nil, scheduler.AtPostFilter)
	add(p.score != nil, scheduler.AtScore)
	add(p.preBind != nil, scheduler.AtPreBind)
	add(p.bind != nil, scheduler.AtBind)
	add(p.permit != nil, scheduler.AtPermit)
	// The cycle state is kept from Reserve to PostBind.
	later := p.reserve != nil || p.permit != nil || p.preBind != nil || p.bind != nil || p.postBind != nil
	add(later, scheduler.AtReserve|scheduler.AtPostBind)
	if _, sorts := inner.(fwk.QueueSortPlugin); sorts {
		if p.points == 0 {
			return nil, fmt.Errorf("adapter: plugin %s: QueueSort is not supported: pods are ordered by priority and age", inner.Name())
		}
		f.opts.Logger.Info("the order of a QueueSort plugin is not used", "plugin", inner.Name())
	}
	if p.points == 0 {
		return nil, fmt.Errorf("adapter: plugin %s has none of the supported extension points", inner.Name())
	}
	if e, ok := inner.(fwk.EnqueueExtensions); ok {
		events, err := e.EventsToRegister(ctx)
		if err != nil {
			return nil, fmt.Errorf("adapter: plugin %s: %w", inner.Name(), err)
		}
		p.events = events
		if p.events == nil {
			p.events = []fwk.ClusterEventWithHint{}
		}
	}
	return p, nil
}

// Name implements scheduler.Plugin.
func (p *Plugin) Name() string { return p.inner.Name() }

// Points implements scheduler.Partial.
func (p *Plugin) Points() scheduler.Points { return p.points }

// Unwrap returns the plugin as its factory made it.
func (p *Plugin) Unwrap() fwk.Plugin { return p.inner }

// Attach implements scheduler.Attacher.
func (p *Plugin) Attach(h scheduler.Handle) error {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.f.handle = h
	return nil
}

// rejection is what a status says of a pod, nil if it is let through.
func (p *Plugin) rejection(pod *scheduler.Pod, s *fwk.Status) *scheduler.Rejection {
	switch s.Code() {
	case fwk.Success, fwk.Skip:
		return nil
	case fwk.Unschedulable:
		return scheduler.RejectFull(s.Reasons()...)
	case fwk.UnschedulableAndUnresolvable, fwk.Pending:
		return scheduler.Reject(s.Reasons()...)
	}
	p.failed.add(pod.Object.UID)
	return scheduler.Reject(fmt.Sprintf("running plugin %q: %v", p.Name(), s.AsError()))
}

// PreEnqueue implements scheduler.PreEnqueuePlugin.
func (p *Plugin) PreEnqueue(pod *scheduler.Pod) *scheduler.Rejection {
	if p.enqueue == nil {
		return nil
	}
	return p.rejection(pod, p.enqueue.PreEnqueue(p.ctx, pod.Object))
}

// Prepare implements scheduler.ClusterPlugin.
func (p *Plugin) Prepare(pod *scheduler.Pod, view *scheduler.View) (j scheduler.Judgement, _ *scheduler.Rejection) {
	p.failed.remove(pod.Object.UID)
	c := p.f.begin(p, pod, view)
	filter := p.filter
	var only *fwk.PreFilterResult
	if p.preFilter != nil {
		result, status := p.preFilter.PreFilter(p.ctx, c.state, pod.Object, p.f.infos(view))
		if r := p.rejection(pod, status); r != nil {
			return j, r
		}
		if status.IsSkip() {
			filter = nil
		}
		if !result.AllNodes() {
			only = result
		}
	}
	if filter != nil || only != nil {
		j.Filter = func(n *scheduler.Node) *scheduler.Rejection {
			if only != nil && !only.NodeNames.Has(n.Object.Name) {
				return scheduler.Reject(fmt.Sprintf("node(s) didn't satisfy plugin(s) [%s]", p.Name()))
			}
			if filter == nil {
				return nil
			}
			return p.rejection(pod, filter.Filter(p.ctx, c.state, pod.Object, p.f.info(n)))
		}
	}
	if p.score != nil {
		j.Scores = func(nodes []*scheduler.Node, scores []int64) {
			if err := p.scores(c, nodes, scores); err != nil {
				clear(scores)
				p.f.opts.Logger.Error(err, "plugin's scores left out", "plugin", p.Name(), "pod", pod.Object.Namespace+"/"+pod.Object.Name)
			}
		}
	}
	return j, nil
}

func (p *Plugin) scores(c *cycle, nodes []*scheduler.Node, scores []int64) error {
	infos := make([]fwk.NodeInfo, len(nodes))
	for i, n := range nodes {
		infos[i] = p.f.info(n)
	}
	pod := c.pod.Object
	if p.preScore != nil {
		if s := p.preScore.PreScore(p.ctx, c.state, pod, infos); s.IsSkip() {
			return nil
		} else if !s.IsSuccess() {
			return fmt.Errorf("PreScore: %w", s.AsError())
		}
	}
	list := make(fwk.NodeScoreList, len(nodes))
	for i, info := range infos {
		v, s := p.score.Score(p.ctx, c.state, pod, info)
		if !s.IsSuccess() {
			return fmt.Errorf("Score: %w", s.AsError())
		}
		list[i] = fwk.NodeScore{Name: info.Node().Name, Score: v}
	}
	if ext := p.score.ScoreExtensions(); ext != nil {
		if s := ext.NormalizeScore(p.ctx, c.state, pod, list); !s.IsSuccess() {
			return fmt.Errorf("NormalizeScore: %w", s.AsError())
		}
	}
	for i := range list {
		if v := list[i].Score; v < fwk.MinScore || v > fwk.MaxScore {
			return fmt.Errorf("plugin %q returns an invalid score %v, it should in the range of [%v, %v] after normalizing", p.Name(), v, fwk.MinScore, fwk.MaxScore)
		}
		scores[i] = list[i].Score
	}
	return nil
}

// PostFilter implements scheduler.PostFilterPlugin.
func (p *Plugin) PostFilter(pod *scheduler.Pod, view *scheduler.View, failed *scheduler.Decision) (*scheduler.Preemption, string) {
	if p.post == nil {
		return nil, ""
	}
	c := p.f.again(pod, view)
	result, status := p.post.PostFilter(p.ctx, c.state, pod.Object, statusesOf(failed))
	if status.IsSuccess() && result != nil && result.NominatingInfo != nil && result.NominatingMode == fwk.ModeOverride {
		return &scheduler.Preemption{Node: result.NominatedNodeName}, status.Message()
	}
	return nil, status.Message()
}

// statuses implements fwk.NodeToStatusReader.
type statuses struct{ resolvable sets.Set[string] }

func statusesOf(failed *scheduler.Decision) statuses {
	s := statuses{sets.Set[string]{}}
	for name := range failed.Resolvable.All() {
		s.resolvable.Insert(name)
	}
	return s
}

func (s statuses) Get(node string) *fwk.Status {
	if s.resolvable.Has(node) {
		return fwk.NewStatus(fwk.Unschedulable)
	}
	return fwk.NewStatus(fwk.UnschedulableAndUnresolvable)
}

func (s statuses) NodesForStatusCode(lister fwk.NodeInfoLister, code fwk.Code) (out []fwk.NodeInfo, err error) {
	all, err := lister.List()
	if err != nil {
		return nil, err
	}
	for _, n := range all {
		if s.Get(n.Node().Name).Code() == code {
			out = append(out, n)
		}
	}
	return out, nil
}

// Reserve implements scheduler.ReservePlugin.
func (p *Plugin) Reserve(pod *scheduler.Pod, node *scheduler.Node, view *scheduler.View) error {
	c := p.f.place(p, pod, view)
	if p.reserve == nil {
		return nil
	}
	return p.reserve.Reserve(p.ctx, c.state, pod.Object, node.Object.Name).AsError()
}

// Unreserve implements scheduler.ReservePlugin.
func (p *Plugin) Unreserve(pod *scheduler.Pod, node string, _ *scheduler.View) {
	if p.reserve != nil {
		p.reserve.Unreserve(p.ctx, p.f.of(pod).state, pod.Object, node)
	}
	p.f.end(p, pod)
}

// Permit implements scheduler.PermitPlugin.
func (p *Plugin) Permit(pod *scheduler.Pod, node string) (answer scheduler.Permission) {
	if p.permit == nil {
		return answer
	}
	status, timeout := p.permit.Permit(p.ctx, p.f.of(pod).state, pod.Object, node)
	if status.IsWait() {
		answer.Wait = min(timeout, maxWait)
		return answer
	}
	answer.Reject = p.rejection(pod, status)
	return answer
}

// PreBind implements scheduler.PreBindPlugin.
func (p *Plugin) PreBind(ctx context.Context, pod *scheduler.Pod, node string) error {
	if p.preBind == nil {
		return nil
	}
	c := p.f.of(pod)
	if _, s := p.preBind.PreBindPreFlight(ctx, c.state, pod.Object, node); s.IsSkip() {
		return nil
	} else if !s.IsSuccess() {
		return s.AsError()
	}
	return p.preBind.PreBind(ctx, c.state, pod.Object, node).AsError()
}

// Bind implements scheduler.BindPlugin.
func (p *Plugin) Bind(ctx context.Context, pod *scheduler.Pod, node string) (handled bool, err error) {
	if p.bind == nil {
		return false, nil
	}
	s := p.bind.Bind(ctx, p.f.of(pod).state, pod.Object, node)
	if s.IsSkip() {
		return false, nil
	}
	return true, s.AsError()
}

// PostBind implements scheduler.PostBindPlugin.
func (p *Plugin) PostBind(ctx context.Context, pod *scheduler.Pod, node string) {
	if p.postBind != nil {
		p.postBind.PostBind(ctx, p.f.of(pod).state, pod.Object, node)
	}
	p.f.end(p, pod)
}
