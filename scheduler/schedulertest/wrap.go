package schedulertest

import (
	"fmt"
	"slices"

	"github.com/keelson/keelson/scheduler"
)

// uncached is a plugin without those interfaces that let its answers be cached. A ClusterPlugin stays as it is: its answers are of one decision.
func uncached(p scheduler.Plugin) scheduler.Plugin {
	if _, ok := p.(scheduler.ClusterPlugin); ok {
		return p
	}
	if _, ok := p.(scheduler.Normalizer); ok {
		return plainNormalizer{plain{p}}
	}
	return plain{p}
}

// plain has the interfaces that its plugin may lack: Points says which count.
type plain struct{ inner scheduler.Plugin }

var _ scheduler.Partial = plain{}

func (p plain) Name() string             { return p.inner.Name() }
func (p plain) Points() scheduler.Points { return scheduler.PointsOf(p.inner) }

func (p plain) PreEnqueue(pod *scheduler.Pod) *scheduler.Rejection {
	return p.inner.(scheduler.PreEnqueuePlugin).PreEnqueue(pod)
}

func (p plain) PreFilter(pod *scheduler.Pod) *scheduler.Rejection {
	if pre, ok := p.inner.(scheduler.PreFilterPlugin); ok {
		return pre.PreFilter(pod)
	}
	return nil
}

func (p plain) PickNodes(pod *scheduler.Pod) ([]string, bool) {
	if picker, ok := p.inner.(scheduler.NodePicker); ok {
		return picker.PickNodes(pod)
	}
	return nil, false
}

func (p plain) Filter(pod *scheduler.Pod, node *scheduler.Node) *scheduler.Rejection {
	return p.inner.(scheduler.FilterPlugin).Filter(pod, node)
}

func (p plain) Score(pod *scheduler.Pod, node *scheduler.Node) int64 {
	return p.inner.(scheduler.ScorePlugin).Score(pod, node)
}

type plainNormalizer struct{ plain }

func (p plainNormalizer) Normalize(score, least, greatest int64) int64 {
	return p.inner.(scheduler.Normalizer).Normalize(score, least, greatest)
}

func (p plainNormalizer) Indifferent(pod *scheduler.Pod) bool {
	return p.inner.(scheduler.Normalizer).Indifferent(pod)
}

// watched looks at what a ClusterPlugin answers. Of others it asks nothing.
type watched struct {
	scheduler.Plugin
	err error
}

func (w *watched) Prepare(pod *scheduler.Pod, view *scheduler.View) (scheduler.Judgement, *scheduler.Rejection) {
	c, ok := w.Plugin.(scheduler.ClusterPlugin)
	if !ok {
		return scheduler.Judgement{}, nil
	}
	j, r := c.Prepare(pod, view)
	if scores := j.Scores; scores != nil {
		j.Scores = func(nodes []*scheduler.Node, to []int64) {
			scores(nodes, to)
			w.look(to)
		}
	}
	if d := j.Domains; d != nil && d.Scores != nil {
		copied := *d
		copied.Scores = func(places []scheduler.Place, to []int64) {
			d.Scores(places, to)
			w.look(to)
		}
		j.Domains = &copied
	}
	return j, r
}

func (w *watched) look(scores []int64) {
	if len(scores) == 0 {
		return
	}
	if least, greatest := slices.Min(scores), slices.Max(scores); least < 0 || greatest > scheduler.MaxScore {
		w.err = fmt.Errorf("scores from %d to %d: want 0 to %d", least, greatest, scheduler.MaxScore)
	}
}
