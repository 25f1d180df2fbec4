package boltstore

import (
	"fmt"
	"sync"
)

// slabLen is how much memory for frames is allocated at once.
const slabLen = 1 << 20

// frames holds the frames of the log that are not in the bbolt file yet, encoded as they were written, so that the file
// gets the very bytes that the log has. Their memory is used again for later ones.
type frames struct {
	mu   sync.Mutex
	held []heldFrame // in order
	room *slab       // where the next frame goes
	free []*slab
}

type heldFrame struct {
	frame
	slab *slab // nil if the memory is not to be used again
}

// slab is memory for several frames.
type slab struct {
	b     []byte
	users int
}

// buffer returns an empty slice of capacity n for a frame, and the slab that it is of. A frame that is never held keeps
// its slab from being used again, and nothing else.
func (f *frames) buffer(n int) ([]byte, *slab) {
	if n > slabLen {
		return make([]byte, 0, n), nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.room == nil || cap(f.room.b)-len(f.room.b) < n {
		if last := len(f.free) - 1; last >= 0 {
			f.room, f.free = f.free[last], f.free[:last]
		} else {
			f.room = &slab{b: make([]byte, 0, slabLen)}
		}
	}
	g := f.room
	at := len(g.b)
	g.b = g.b[:at+n]
	g.users++
	return g.b[at : at : at+n], g
}

// hold keeps a frame, whose memory is of slab if that is not nil, until its records are in the file.
func (f *frames) hold(fr frame, g *slab) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fr.base == fr.last {
		f.release(g)
		return
	}
	f.held = append(f.held, heldFrame{frame: fr, slab: g})
}

func (f *frames) release(g *slab) {
	if g == nil {
		return
	}
	if g.users--; g.users > 0 {
		return
	}
	g.b = g.b[:0]
	if g != f.room {
		f.free = append(f.free, g)
	}
}

// trim drops the frames up to revision rev, whose records nobody may use any more.
func (f *frames) trim(rev int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for n < len(f.held) && f.held[n].last <= rev {
		f.release(f.held[n].slab)
		n++
	}
	f.held = append(make([]heldFrame, 0, len(f.held)-n+64), f.held[n:]...)
	if len(f.held) == 0 {
		// Perhaps nothing is written for long.
		f.held, f.room, f.free = nil, nil, nil
	}
}

// each calls visit for the records of the revisions in (after, to], all of which there must be, in order.
func (f *frames) each(after, to int64, visit func(rev int64, index uint32, v []byte) error) error {
	f.mu.Lock()
	held := f.held
	f.mu.Unlock()
	for i := range held {
		fr := &held[i].frame
		if fr.last <= after {
			continue
		}
		if fr.base != after || fr.last > to {
			break
		}
		if err := fr.split(visit); err != nil {
			return fmt.Errorf("boltstore: in memory: %w", err)
		}
		after = fr.last
	}
	if after < to {
		return fmt.Errorf("boltstore: revision %d is missing in memory", after+1)
	}
	return nil
}
