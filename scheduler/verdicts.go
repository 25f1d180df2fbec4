package scheduler

import (
	"slices"
	"strconv"
	"unsafe"
)

// verdicts are what is said of nodes, each once, however many nodes it is said of.
type verdicts struct {
	all    []verdict
	unused []int32
	// ids are the places by what the rejections say; nil while they are few.
	ids map[string]int32
	key []byte
}

// verdict is said of a number of nodes. The place of one that isn't said of any is used again.
type verdict struct {
	*Rejection
	nodes int
}

// The places of the verdicts that are no rejections: there is no node, and the pod fits.
const (
	verdictGone = iota
	verdictFits
	verdictsFixed
)

// fewVerdicts are gone through one by one.
const fewVerdicts = 8

func newVerdicts() verdicts { return verdicts{all: make([]verdict, verdictsFixed, 4)} }

func (v *verdict) resolvable() bool { return v.Rejection != nil && !v.Unresolvable }

// of is the place of a rejection, or of its equal. It is likely that at hint.
func (vs *verdicts) of(r *Rejection, hint int64) int64 {
	if r == nil {
		return verdictFits
	}
	if vs.all[hint].same(r) {
		return hint
	}
	if vs.ids == nil {
		for i := range vs.all {
			if vs.all[i].same(r) {
				return int64(i)
			}
		}
		if len(vs.all) < fewVerdicts {
			return vs.add(r)
		}
		vs.ids = map[string]int32{}
		for i := range vs.all {
			if o := vs.all[i].Rejection; o != nil {
				vs.ids[string(vs.encode(o))] = int32(i)
			}
		}
	}
	if id, ok := vs.ids[string(vs.encode(r))]; ok {
		return int64(id)
	}
	return vs.add(r)
}

func (vs *verdicts) add(r *Rejection) int64 {
	id := int32(len(vs.all))
	if k := len(vs.unused); k > 0 {
		id, vs.unused = vs.unused[k-1], vs.unused[:k-1]
		vs.all[id].Rejection = r
	} else {
		vs.all = append(vs.all, verdict{Rejection: r})
	}
	if vs.ids != nil {
		vs.ids[string(vs.encode(r))] = id
	}
	return int64(id)
}

// count notes that a verdict is said of a node (sign 1), or no longer (-1).
func (vs *verdicts) count(id int64, sign int) {
	v := &vs.all[id]
	if v.nodes += sign; v.nodes > 0 || id < verdictsFixed {
		return
	}
	if vs.ids != nil {
		delete(vs.ids, string(vs.encode(v.Rejection)))
	}
	v.Rejection = nil
	vs.unused = append(vs.unused, int32(id))
}

// same reports whether the rejection says the same as another.
func (v *verdict) same(o *Rejection) bool {
	r := v.Rejection
	return r == o || r != nil && r.Unresolvable == o.Unresolvable && r.Plugin == o.Plugin && slices.Equal(r.Reasons, o.Reasons)
}

// encode is the same for rejections that say the same, and for no others. It is valid until the next call.
func (vs *verdicts) encode(r *Rejection) []byte {
	b := append(vs.key[:0], byte(one(r.Unresolvable)))
	b = strconv.AppendQuote(b, r.Plugin)
	for _, reason := range r.Reasons {
		b = strconv.AppendQuote(b, reason)
	}
	vs.key = b
	return b
}

// explainInto counts nodes by reasons, and returns the plugins that reject any.
func (vs *verdicts) explainInto(reasons map[string]int) (plugins map[string]int) {
	plugins = map[string]int{}
	for i := range vs.all {
		v := &vs.all[i]
		if v.Rejection == nil || v.nodes == 0 {
			continue
		}
		plugins[v.Plugin] += v.nodes
		for _, reason := range v.Reasons {
			reasons[reason] += v.nodes
		}
	}
	return plugins
}

func (vs *verdicts) bytes() int {
	const each = 3 * unsafe.Sizeof(Rejection{}) // with its reasons, and its place in ids
	return len(vs.all)*int(unsafe.Sizeof(verdict{})+each) + 4*cap(vs.unused) + cap(vs.key)
}
