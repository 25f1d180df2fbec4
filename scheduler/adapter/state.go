package adapter

import (
	"sync"

	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/keelson/keelson/scheduler"
)

// cycle is one attempt to schedule a pod.
type cycle struct {
	pod   *scheduler.Pod
	state *state
	seen  []*Plugin
	infos map[string]*nodeInfo
	// holders are the plugins for which it is kept after the decision.
	holders map[*Plugin]bool
}

func newCycle(pod *scheduler.Pod) *cycle {
	return &cycle{pod: pod, state: &state{data: map[fwk.StateKey]fwk.StateData{}}, infos: map[string]*nodeInfo{}, holders: map[*Plugin]bool{}}
}

// state implements fwk.CycleState. Safe for concurrent use.
type state struct {
	mu                                              sync.RWMutex
	data                                            map[fwk.StateKey]fwk.StateData
	skipFilter, skipScore, skipPreBind, parallelPre sets.Set[string]
}

var _ fwk.CycleState = (*state)(nil)

func (s *state) ShouldRecordPluginMetrics() bool { return false }

func (s *state) get(p *sets.Set[string]) sets.Set[string] {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return *p
}

func (s *state) set(p *sets.Set[string], to sets.Set[string]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*p = to
}

func (s *state) GetSkipFilterPlugins() sets.Set[string]       { return s.get(&s.skipFilter) }
func (s *state) SetSkipFilterPlugins(p sets.Set[string])      { s.set(&s.skipFilter, p) }
func (s *state) GetSkipScorePlugins() sets.Set[string]        { return s.get(&s.skipScore) }
func (s *state) SetSkipScorePlugins(p sets.Set[string])       { s.set(&s.skipScore, p) }
func (s *state) GetSkipPreBindPlugins() sets.Set[string]      { return s.get(&s.skipPreBind) }
func (s *state) SetSkipPreBindPlugins(p sets.Set[string])     { s.set(&s.skipPreBind, p) }
func (s *state) GetParallelPreBindPlugins() sets.Set[string]  { return s.get(&s.parallelPre) }
func (s *state) SetParallelPreBindPlugins(p sets.Set[string]) { s.set(&s.parallelPre, p) }
func (s *state) ShouldSkipAllPostFilterPlugins() bool         { return false }

func (s *state) Read(key fwk.StateKey) (fwk.StateData, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if v, ok := s.data[key]; ok {
		return v, nil
	}
	return nil, fwk.ErrNotFound
}

func (s *state) Write(key fwk.StateKey, v fwk.StateData) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data[key] = v
}

func (s *state) Delete(key fwk.StateKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.data, key)
}

func (s *state) Clone() fwk.CycleState {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := &state{data: map[fwk.StateKey]fwk.StateData{}, skipFilter: s.skipFilter, skipScore: s.skipScore, skipPreBind: s.skipPreBind, parallelPre: s.parallelPre}
	for k, v := range s.data {
		c.data[k] = v.Clone()
	}
	return c
}

func (s *state) IsPodGroupSchedulingCycle() bool                    { return false }
func (s *state) GetPodGroupSchedulingCycle() fwk.PodGroupCycleState { return nil }
func (s *state) GetPlacementCycleState() fwk.PlacementCycleState    { return nil }
