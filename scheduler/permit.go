package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// permits holds the pods that wait for PermitPlugins. It has a lock of its own, under which nothing else is locked, so that plugins may use it at any time.
type permits struct {
	kick func()

	mu   sync.Mutex
	pods map[types.UID]*permitted
	// done are those that were let go or rejected, for the loop to go on with.
	done []*permitted
}

var _ WaitingPods = (*permits)(nil)

// permitted is a pod that waits for permission, or has its answer.
type permitted struct {
	placed
	until    map[string]time.Time // by plugin
	rejected *Rejection
}

func newPermits(kick func()) *permits {
	return &permits{kick: kick, pods: map[types.UID]*permitted{}}
}

func (p *permits) add(w *permitted) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pods[w.pod.key()] = w
}

// Allow implements WaitingPods.
func (p *permits) Allow(uid types.UID, plugin string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.pods[uid]
	if w == nil {
		return false
	}
	if _, ok := w.until[plugin]; !ok {
		return false
	}
	if delete(w.until, plugin); len(w.until) == 0 {
		p.finish(w)
	}
	return true
}

// Reject implements WaitingPods.
func (p *permits) Reject(uid types.UID, plugin, message string) bool {
	return p.refuse(uid, &Rejection{Reasons: []string{message}, Plugin: plugin})
}

func (p *permits) refuse(uid types.UID, r *Rejection) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.pods[uid]
	if w == nil {
		return false
	}
	w.rejected = r
	p.finish(w)
	return true
}

func (p *permits) finish(w *permitted) {
	delete(p.pods, w.pod.key())
	p.done = append(p.done, w)
	p.kick()
}

// Each implements WaitingPods.
func (p *permits) Each(f func(pod *Pod, node string, plugins []string) bool) {
	p.mu.Lock()
	type entry struct {
		pod     *Pod
		node    string
		plugins []string
	}
	var all []entry
	for _, w := range p.pods {
		all = append(all, entry{w.pod, w.node, slices.Sorted(maps.Keys(w.until))})
	}
	p.mu.Unlock()
	for _, w := range all {
		if !f(w.pod, w.node, w.plugins) {
			return
		}
	}
}

// take returns a pod that has its answer, nil if there is none, and when the first of the others has waited long enough.
func (p *permits) take(now time.Time) (done *permitted, next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.pods {
		for plugin, until := range w.until {
			if !until.After(now) {
				w.rejected = &Rejection{Plugin: plugin, Reasons: []string{
					fmt.Sprintf("pod %q rejected due to timeout after waiting %v at plugin %v", w.pod.Object.Name, until.Sub(w.began), plugin),
				}}
				delete(p.pods, w.pod.key())
				p.done = append(p.done, w)
				break
			}
			if next.IsZero() || until.Before(next) {
				next = until
			}
		}
	}
	if len(p.done) == 0 {
		return nil, next
	}
	done = p.done[0]
	p.done = p.done[1:]
	return done, next
}
