package boltstore

import "sync"

// overlay holds the commits that are not in the bbolt file yet.
type overlay struct {
	mu    sync.RWMutex
	first int64 // revision of revs[0]
	revs  [][]encoded
}

// reset empties the overlay; the next revision added is first.
func (o *overlay) reset(first int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.first, o.revs = first, nil
}

// add appends the records of the revisions that follow.
func (o *overlay) add(recs ...[]encoded) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.revs = append(o.revs, recs...)
}

// trim drops the revisions up to rev.
func (o *overlay) trim(rev int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := rev + 1 - o.first
	if n <= 0 {
		return
	}
	// The dropped ones are not to be held by the array.
	o.revs = append(make([][]encoded, 0, len(o.revs)-int(n)+64), o.revs[n:]...)
	o.first = rev + 1
}

// revision returns the records of a revision, nil if it is not in the overlay.
func (o *overlay) revision(rev int64) []encoded {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if i := rev - o.first; i >= 0 && i < int64(len(o.revs)) {
		return o.revs[i]
	}
	return nil
}

// revisions returns the records of the revisions in (after, to], which must be in the overlay.
func (o *overlay) revisions(after, to int64) [][]encoded {
	if after == to {
		return nil
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	from, end := after+1-o.first, to+1-o.first
	return o.revs[from:end:end]
}

func (o *overlay) get(r ref) ([]byte, bool) {
	if recs := o.revision(r.mod); int(r.index) < len(recs) {
		return recs[r.index].val, true
	}
	return nil, false
}
