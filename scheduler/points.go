package scheduler

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// Points are a set of the places at which a plugin can be asked.
type Points uint16

// The points, each with its interface.
const (
	AtPreEnqueue Points = 1 << iota
	AtPreFilter         // and NodePicker, and the rejection of ClusterPlugin.Prepare
	AtFilter            // and Judgement.Filter
	AtPostFilter
	AtScore // and Judgement.Scores
	AtReserve
	AtPermit
	AtPreBind
	AtBind
	AtPostBind
)

var pointNames = [...]string{"preEnqueue", "preFilter", "filter", "postFilter", "score", "reserve", "permit", "preBind", "bind", "postBind"}

// Has reports whether all of p are in the set.
func (s Points) Has(p Points) bool { return s&p == p }

// String lists the set by kube-scheduler's names.
func (s Points) String() string {
	var in []string
	for i, name := range pointNames {
		if s.Has(1 << i) {
			in = append(in, name)
		}
	}
	return strings.Join(in, " ")
}

// Partial is implemented by plugins, such as wrappers, that have interfaces of which they don't always make use.
type Partial interface {
	Plugin
	// Points are those at which the plugin is to be asked.
	Points() Points
}

// PointsOf are those at which a plugin can be asked.
func PointsOf(p Plugin) (s Points) {
	if partial, ok := p.(Partial); ok {
		return partial.Points()
	}
	add := func(can bool, at Points) {
		if can {
			s |= at
		}
	}
	_, cluster := p.(ClusterPlugin)
	_, is := p.(PreEnqueuePlugin)
	add(is, AtPreEnqueue)
	_, is = p.(PreFilterPlugin)
	_, picks := p.(NodePicker)
	add(is || cluster || picks, AtPreFilter)
	_, is = p.(FilterPlugin)
	add(is || cluster, AtFilter)
	_, is = p.(PostFilterPlugin)
	add(is, AtPostFilter)
	_, is = p.(ScorePlugin)
	add(is || cluster, AtScore)
	_, is = p.(ReservePlugin)
	add(is, AtReserve)
	_, is = p.(PermitPlugin)
	add(is, AtPermit)
	_, is = p.(PreBindPlugin)
	add(is, AtPreBind)
	_, is = p.(BindPlugin)
	add(is, AtBind)
	_, is = p.(PostBindPlugin)
	add(is, AtPostBind)
	return s
}

// without is a ClusterPlugin that is not asked for all it could say.
type without struct {
	ClusterPlugin
	except Points
}

func (w without) Prepare(pod *Pod, view *View) (Judgement, *Rejection) {
	j, r := w.ClusterPlugin.Prepare(pod, view)
	if w.except.Has(AtPreFilter) {
		r = nil
	}
	var d DomainJudgement
	if j.Domains != nil {
		d = *j.Domains
	}
	if w.except.Has(AtFilter) {
		j.Filter, j.Only, d.Filter, d.Exempt = nil, nil, nil, nil
	}
	if w.except.Has(AtScore) {
		j.Scores, d.Scores = nil, nil
	}
	if j.Domains != nil {
		j.Domains = nil
		if d.Filter != nil || d.Scores != nil {
			j.Domains = &d
		}
	}
	return j, r
}

// leaveOut forgets what a plugin can do at some points. Those that it makes no use of it needn't be kept from.
func (s *pluginState) leaveOut(keep, unused Points) {
	except := keep | unused
	if except.Has(AtPreEnqueue) {
		s.enqueue = nil
	}
	if except.Has(AtPreFilter) {
		s.pre, s.picker = nil, nil
	}
	if except.Has(AtFilter) {
		s.filter, s.room = nil, nil
	}
	if except.Has(AtPostFilter) {
		s.post = nil
	}
	if except.Has(AtScore) {
		s.score, s.normalize = nil, nil
	}
	if at := AtPreFilter | AtFilter | AtScore; except.Has(at) {
		s.cluster = nil
	} else if s.cluster != nil && keep&^unused&at != 0 {
		s.cluster = without{s.cluster, keep}
	}
	if except.Has(AtReserve) {
		s.reserve = nil
	}
	if except.Has(AtPermit) {
		s.permit = nil
	}
	if except.Has(AtPreBind) {
		s.preBind = nil
	}
	if except.Has(AtBind) {
		s.bind = nil
	}
	if except.Has(AtPostBind) {
		s.postBind = nil
	}
}

// At are the plugins that are asked at one point, in order.
func (p NamedProfile) At(point Points) Profile {
	return slices.DeleteFunc(p.inOrder(point), func(w Weighted) bool { return !PointsOf(w.Plugin).Has(point) || w.Except.Has(point) })
}

// inOrder are all plugins in the order of a point.
func (p NamedProfile) inOrder(point Points) Profile {
	names := p.Order[point]
	rank := func(w Weighted) int {
		if i := slices.Index(names, w.Plugin.Name()); i >= 0 {
			return i
		}
		return len(names)
	}
	out := slices.Clone(p.Plugins)
	slices.SortStableFunc(out, func(x, y Weighted) int { return cmp.Compare(rank(x), rank(y)) })
	return out
}

// checkOrder says what is wrong with Order, each of its points in turn.
func (p NamedProfile) checkOrder() error {
	var errs []error
	for point, names := range p.Order {
		if bits.OnesCount16(uint16(point)) != 1 || point.index() >= len(pointNames) {
			errs = append(errs, fmt.Errorf("Order[%d]: want one point, such as AtReserve", point))
			continue
		}
		for i, name := range names {
			known := slices.ContainsFunc(p.Plugins, func(w Weighted) bool { return w.Plugin.Name() == name })
			if !known || slices.Contains(names[:i], name) {
				errs = append(errs, fmt.Errorf("Order[%s]: %q: want plugins of the profile, each once", point, name))
			}
		}
	}
	return errors.Join(errs...)
}

func (s Points) index() int { return bits.TrailingZeros16(uint16(s)) }

// at are the plugins to ask at a point, in order.
func (p *profile) at(point Points) []*pluginState { return p.points[point.index()] }

// at reports whether the plugin is to be asked at a point.
func (s *pluginState) at(point Points) bool {
	switch point {
	case AtPreEnqueue:
		return s.enqueue != nil
	case AtPreFilter:
		return s.pre != nil || s.picker != nil || s.cluster != nil
	case AtFilter:
		return s.filter != nil || s.cluster != nil
	case AtPostFilter:
		return s.post != nil
	case AtScore:
		return s.score != nil || s.cluster != nil
	case AtReserve:
		return s.reserve != nil
	case AtPermit:
		return s.permit != nil
	case AtPreBind:
		return s.preBind != nil
	case AtBind:
		return s.bind != nil
	case AtPostBind:
		return s.postBind != nil
	}
	return false
}

func byPlace(x, y *pluginState) int { return cmp.Compare(x.place, y.place) }
