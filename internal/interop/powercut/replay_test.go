package powercut

import (
	"bytes"
	"iter"
	"maps"
	"math/rand/v2"
)

const sector = 512

func keysOf[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }

// replay follows a record and knows what is certainly on the disk and what may be.
type replay struct {
	files map[int]*replayed
	names map[string]int // certainly
	dirty []op           // of names, since the last sync of the directory
}

type replayed struct {
	data []byte // certainly; what is behind it is zero
	size int64
	// since is what was done since. What a failed sync should have written is in limbo: no later
	// sync says anything about it.
	since []change
}

type change struct {
	op
	certain, limbo bool
}

func newReplay(start image) *replay {
	r := &replay{files: map[int]*replayed{}, names: map[string]int{}}
	i := 0
	for _, name := range sortedNames(start) {
		r.files[i] = &replayed{data: bytes.Clone(start[name]), size: int64(len(start[name]))}
		r.names[name] = i
		i++
	}
	return r
}

func (r *replay) step(o op) {
	switch o.kind {
	case opWrite, opTruncate:
		f := r.files[o.ino]
		f.since = append(f.since, change{op: o})
	case opSync:
		f := r.files[o.ino]
		limbo := false
		for i := range f.since {
			c := &f.since[i]
			if o.failed && !c.certain {
				c.limbo = true
			} else if !c.limbo {
				c.certain = true
			}
			limbo = limbo || c.limbo
		}
		if !limbo {
			for _, c := range f.since {
				f.data, f.size = c.apply(f.data, f.size)
			}
			f.since = nil
		}
	case opCreate, opLink, opUnlink, opRename:
		if o.kind == opCreate {
			r.files[o.ino] = &replayed{}
		}
		r.dirty = append(r.dirty, o)
	case opSyncDir:
		if !o.failed {
			for _, d := range r.dirty {
				applyName(r.names, d)
			}
			r.dirty = nil
		}
	}
}

func applyName(names map[string]int, o op) {
	switch o.kind {
	case opCreate, opLink:
		names[o.name] = o.ino
	case opUnlink:
		delete(names, o.name)
	case opRename:
		if ino, ok := names[o.name]; ok {
			names[o.to] = ino
			delete(names, o.name)
		}
	}
}

func (o *op) apply(data []byte, size int64) ([]byte, int64) {
	if o.kind == opTruncate {
		return data[:min(int64(len(data)), o.off)], o.off
	}
	end := o.off + int64(len(o.data))
	if end > int64(len(data)) {
		data = append(data, make([]byte, end-int64(len(data)))...)
	}
	copy(data[o.off:], o.data)
	return data, max(size, end)
}

// torn is the file as a power cut may leave it.
func (f *replayed) torn(r *rand.Rand) ([]byte, int64) {
	if len(f.since) == 0 {
		return f.data, f.size
	}
	data, size := bytes.Clone(f.data), f.size
	keep, drop := r.IntN(4), r.IntN(4) // some power cuts keep most, some lose most
	for _, c := range f.since {
		p := r.IntN(4 + keep + drop)
		switch {
		case c.certain || p < 1+keep:
			data, size = c.apply(data, size)
		case p < 2+keep+drop:
			if c.kind == opWrite && r.IntN(8) == 0 {
				size = max(size, c.off+int64(len(c.data))) // longer, but with nothing in it
			}
		case c.kind == opWrite:
			whole := c.op
			for at := 0; at < len(whole.data); {
				n := min(len(whole.data)-at, sector-int(whole.off+int64(at))%sector)
				part := op{kind: opWrite, off: whole.off + int64(at), data: whole.data[at : at+n]}
				switch q := r.IntN(16); {
				case q == 0: // a part of a sector
					part.data = part.data[:r.IntN(n)]
					data, size = part.apply(data, size)
				case q < 8:
					data, size = part.apply(data, size)
				}
				at += n
			}
		}
	}
	return data, size
}

// cut returns what a power cut now may leave on the disk.
func (r *replay) cut(rng *rand.Rand) map[string]file {
	names := r.names
	if len(r.dirty) > 0 {
		names = maps.Clone(names)
		n := rng.IntN(len(r.dirty) + 1)
		all := rng.IntN(2) == 0 // some file systems keep the order of such changes, some do not
		for i, o := range r.dirty {
			if all && i < n || !all && rng.IntN(2) == 0 {
				applyName(names, o)
			}
		}
	}
	out := map[string]file{}
	for _, name := range sortedNames(names) {
		data, size := r.files[names[name]].torn(rng)
		out[name] = file{data, size}
	}
	return out
}

// file is contents that are followed by zeros up to size.
type file struct {
	data []byte
	size int64
}
