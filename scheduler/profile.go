package scheduler

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// profile is a Profile with what its plugins can do, found out once.
type profile struct {
	name    string // "" answers all pods
	index   int
	plugins []*pluginState // in filter's order
	points  [len(pointNames)][]*pluginState
	// reordered: preFilter has an order of its own.
	reordered bool
	pickers   []*pluginState
	group     *pluginState   // the first GroupPlugin
	rooms     []*pluginState // those that are RoomPlugins
	// normalized are the plugins, by their place, whose raw scores are cached and normalized in each decision.
	normalized []int
	// filters and scorers are the plugins of each scope, the latter without those that normalize.
	filters, scorers [scopes][]*pluginState
	// ordered: no pod is scattered.
	ordered bool
	// uncachedFilter and uncachedScore: some plugin is asked for each node in each decision.
	uncachedFilter, uncachedScore bool
}

type pluginState struct {
	plugin    Plugin
	place     int // in profile.plugins
	name      string
	weight    int64
	scope     Scope
	enqueue   PreEnqueuePlugin
	group     GroupPlugin
	pre       PreFilterPlugin
	picker    NodePicker
	cluster   ClusterPlugin
	filter    FilterPlugin
	room      RoomPlugin
	post      PostFilterPlugin
	score     ScorePlugin
	normalize Normalizer
	signer    Signer
	hinter    Hinter
	self      SelfHinter
	reserve   ReservePlugin
	permit    PermitPlugin
	preBind   PreBindPlugin
	bind      BindPlugin
	postBind  PostBindPlugin
}

func newPluginState(w Weighted) *pluginState {
	s := &pluginState{plugin: w.Plugin, name: w.Plugin.Name(), weight: max(w.Weight, 1)}
	s.enqueue, _ = w.Plugin.(PreEnqueuePlugin)
	s.group, _ = w.Plugin.(GroupPlugin)
	s.pre, _ = w.Plugin.(PreFilterPlugin)
	s.picker, _ = w.Plugin.(NodePicker)
	s.cluster, _ = w.Plugin.(ClusterPlugin)
	s.filter, _ = w.Plugin.(FilterPlugin)
	s.room, _ = w.Plugin.(RoomPlugin)
	s.post, _ = w.Plugin.(PostFilterPlugin)
	s.score, _ = w.Plugin.(ScorePlugin)
	s.normalize, _ = w.Plugin.(Normalizer)
	s.signer, _ = w.Plugin.(Signer)
	s.hinter, _ = w.Plugin.(Hinter)
	s.self, _ = w.Plugin.(SelfHinter)
	s.reserve, _ = w.Plugin.(ReservePlugin)
	s.permit, _ = w.Plugin.(PermitPlugin)
	s.preBind, _ = w.Plugin.(PreBindPlugin)
	s.bind, _ = w.Plugin.(BindPlugin)
	s.postBind, _ = w.Plugin.(PostBindPlugin)
	if sc, ok := w.Plugin.(Scoped); ok {
		s.scope = sc.Scope()
	}
	s.leaveOut(w.Except, ^PointsOf(w.Plugin))
	return s
}

func newProfile(field string, index int, of NamedProfile) (*profile, error) {
	if len(of.Plugins) == 0 {
		return nil, fmt.Errorf("scheduler: %s: want at least one plugin, such as plugins.Default()", field)
	}
	seen := map[string]bool{}
	for i, w := range of.Plugins {
		if w.Plugin == nil {
			return nil, fmt.Errorf("scheduler: %s: plugin %d is nil", field, i)
		}
		name := w.Plugin.Name()
		if name == "" || seen[name] {
			return nil, fmt.Errorf("scheduler: %s: plugin %q: want a name that no other has", field, name)
		}
		if w.Weight < 0 {
			return nil, fmt.Errorf("scheduler: %s: plugin %s: weight %d: want 0 or more", field, name, w.Weight)
		}
		seen[name] = true
	}
	if err := of.checkOrder(); err != nil {
		return nil, fmt.Errorf("scheduler: %s: %w", field, err)
	}
	p := &profile{name: of.Name, index: index, ordered: true}
	byName := map[string]*pluginState{}
	last := -1
	for i, w := range of.inOrder(AtFilter) {
		s := newPluginState(w)
		s.place, byName[s.name] = i, s
		if p.group == nil && s.group != nil {
			p.group = s
		}
		if s.scope != ScopeCluster && s.normalize != nil {
			p.normalized = append(p.normalized, i)
		}
		if s.filter != nil {
			p.filters[s.scope] = append(p.filters[s.scope], s)
		}
		if s.score != nil && s.normalize == nil {
			p.scorers[s.scope] = append(p.scorers[s.scope], s)
		}
		if s.room != nil {
			p.rooms = append(p.rooms, s)
		}
		p.uncachedFilter = p.uncachedFilter || s.scope == ScopeCluster && s.filter != nil
		p.uncachedScore = p.uncachedScore || s.scope == ScopeCluster && s.score != nil
		if r := s.rank(); r >= 0 {
			p.ordered = p.ordered && r >= last
			last = r
		}
		p.plugins = append(p.plugins, s)
	}
	for i := range p.points {
		for _, w := range of.inOrder(1 << i) {
			if s := byName[w.Plugin.Name()]; s.at(1 << i) {
				p.points[i] = append(p.points[i], s)
			}
		}
	}
	p.reordered = !slices.IsSortedFunc(p.at(AtPreFilter), byPlace)
	for _, s := range p.at(AtPreFilter) {
		if s.picker != nil {
			p.pickers = append(p.pickers, s)
		}
	}
	return p, nil
}

// newProfiles validates what EngineOptions say of profiles.
func newProfiles(one Profile, named []NamedProfile) ([]*profile, error) {
	if len(named) == 0 {
		p, err := newProfile("EngineOptions.Profile", 0, NamedProfile{Plugins: one})
		return []*profile{p}, err
	}
	if len(one) > 0 {
		return nil, fmt.Errorf("scheduler: EngineOptions.Profile and Profiles: want one of them")
	}
	var out []*profile
	seen := map[string]bool{}
	for i, n := range named {
		if n.Name == "" || seen[n.Name] {
			return nil, fmt.Errorf("scheduler: EngineOptions.Profiles[%d].Name %q: want a name that no other has", i, n.Name)
		}
		seen[n.Name] = true
		p, err := newProfile(fmt.Sprintf("EngineOptions.Profiles[%d].Plugins", i), i, n)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// profileOf is the profile that decides for a pod, nil if there is none.
func (e *Engine) profileOf(pod *Pod) *profile {
	name := schedulerName(pod.Object)
	for _, p := range e.profiles {
		if p.name == "" || p.name == name {
			return p
		}
	}
	return nil
}

func schedulerName(pod *corev1.Pod) string {
	if pod.Spec.SchedulerName == "" {
		return corev1.DefaultSchedulerName
	}
	return pod.Spec.SchedulerName
}

// PreEnqueue returns nil if a pod may be tried, else why not.
func (e *Engine) PreEnqueue(pod *Pod) *Rejection {
	p := e.profileOf(pod)
	if p == nil {
		return &Rejection{Reasons: []string{noProfile(pod)}, Unresolvable: true}
	}
	for _, s := range p.at(AtPreEnqueue) {
		if r := s.enqueue.PreEnqueue(pod); r != nil {
			r.Plugin = s.name
			return r
		}
	}
	return e.gateGroup(p, pod)
}

func noProfile(pod *Pod) string {
	return fmt.Sprintf("no profile for scheduler name %q", schedulerName(pod.Object))
}
