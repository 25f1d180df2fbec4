package scheduler

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// profile is a Profile with what its plugins can do, found out once.
type profile struct {
	name    string // "" answers all pods
	index   int
	plugins []*pluginState
	pickers []*pluginState
	group   *pluginState   // the first GroupPlugin
	rooms   []*pluginState // those that are RoomPlugins
	// normalized are the plugins, by their place, whose raw scores are cached and normalized in each decision.
	normalized []int
	// ordered: no pod is scattered.
	ordered bool
	// uncachedFilter and uncachedScore: some plugin is asked for each node in each decision.
	uncachedFilter, uncachedScore bool
}

type pluginState struct {
	plugin    Plugin
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
	s.reserve, _ = w.Plugin.(ReservePlugin)
	s.permit, _ = w.Plugin.(PermitPlugin)
	s.preBind, _ = w.Plugin.(PreBindPlugin)
	s.bind, _ = w.Plugin.(BindPlugin)
	s.postBind, _ = w.Plugin.(PostBindPlugin)
	if sc, ok := w.Plugin.(Scoped); ok {
		s.scope = sc.Scope()
	}
	s.leaveOut(w.Except | ^PointsOf(w.Plugin))
	return s
}

func newProfile(field, name string, index int, from Profile) (*profile, error) {
	if len(from) == 0 {
		return nil, fmt.Errorf("scheduler: %s: want at least one plugin, such as plugins.Default()", field)
	}
	p := &profile{name: name, index: index, ordered: true}
	last := -1
	seen := map[string]bool{}
	for i, w := range from {
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
		s := newPluginState(w)
		if p.group == nil && s.group != nil {
			p.group = s
		}
		if s.scope != ScopeCluster && s.normalize != nil {
			p.normalized = append(p.normalized, i)
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
		if s.picker != nil {
			p.pickers = append(p.pickers, s)
		}
		p.plugins = append(p.plugins, s)
	}
	return p, nil
}

// newProfiles validates what EngineOptions say of profiles.
func newProfiles(one Profile, named []NamedProfile) ([]*profile, error) {
	if len(named) == 0 {
		p, err := newProfile("EngineOptions.Profile", "", 0, one)
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
		p, err := newProfile(fmt.Sprintf("EngineOptions.Profiles[%d].Plugins", i), n.Name, i, n.Plugins)
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
	for _, s := range p.plugins {
		if s.enqueue != nil {
			if r := s.enqueue.PreEnqueue(pod); r != nil {
				r.Plugin = s.name
				return r
			}
		}
	}
	return e.gateGroup(p, pod)
}

func noProfile(pod *Pod) string {
	return fmt.Sprintf("no profile for scheduler name %q", schedulerName(pod.Object))
}
