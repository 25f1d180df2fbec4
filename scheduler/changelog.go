package scheduler

// changeLog remembers which nodes changed, so that cached answers are brought up to date by looking at those alone.
type changeLog struct {
	first   int // the position of entries[0]
	entries []change

	once   []change
	onceAt []int32 // by slot: its place in once, if that is of the same slot
}

type change struct {
	slot   int32
	object bool // the node object itself changed, not only its pods
}

// maxLog bounds the log; answers older than it are computed anew.
const maxLog = 1 << 16

func (l *changeLog) add(slot int, object bool) {
	if len(l.entries) >= maxLog {
		half := len(l.entries) / 2
		l.first += half
		l.entries = append(l.entries[:0], l.entries[half:]...)
	}
	l.entries = append(l.entries, change{int32(slot), object})
}

func (l *changeLog) end() int { return l.first + len(l.entries) }

// since returns what changed after pos; ok is false if that isn't known any more.
func (l *changeLog) since(pos int) (changes []change, ok bool) {
	if pos < l.first {
		return nil, false
	}
	return l.entries[pos-l.first:], true
}

// sinceOnce is since with each node once, in the order in which they first changed. The slice is valid until the next call.
func (l *changeLog) sinceOnce(pos int) (changes []change, ok bool) {
	if changes, ok = l.since(pos); len(changes) < 2 {
		return changes, ok
	}
	l.once = l.once[:0]
	for _, c := range changes {
		for len(l.onceAt) <= int(c.slot) {
			l.onceAt = append(l.onceAt, 0)
		}
		if at := int(l.onceAt[c.slot]); at < len(l.once) && l.once[at].slot == c.slot {
			l.once[at].object = l.once[at].object || c.object
			continue
		}
		l.onceAt[c.slot] = int32(len(l.once))
		l.once = append(l.once, c)
	}
	return l.once, ok
}
