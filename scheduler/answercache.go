package scheduler

import "math"

// answerCache keeps answers and indexes within a bound of memory. What is needed but not kept serves as long as no other is needed, so that a pod can be asked about again, and others of
// its kind that follow it.
//
// Where there is no room, what was used last is kept, but not at the price of what is used more often (as in TinyLFU): kinds of pods that come once, or more kinds in turn than
// there is room for, don't drive out those that there is use for.
type answerCache struct {
	answers map[string]*answers
	indexes map[string]*index
	recent  entry // of the ring of what is kept: next is what was used last
	bytes   int
	uses    frequencies

	pendingAnswers *answers
	pendingIndex   *index
	// lastAnswers and lastIndex are in use. What becomes of them is settled when others are needed.
	lastAnswers *answers
	lastIndex   *index
}

// entry is the cache's account of answers, or of an index.
type entry struct {
	key        string
	answers    *answers // one of them
	index      *index
	prev, next *entry // nil: it isn't kept
	size       int
	hash       uint64 // of key; 0 if it isn't known yet
	// heir takes the place of one that was kept.
	heir bool
}

func newAnswerCache() *answerCache {
	c := &answerCache{answers: map[string]*answers{}, indexes: map[string]*index{}}
	c.recent.prev, c.recent.next = &c.recent, &c.recent
	return c
}

// answersOf returns what there is for a key, else nil.
func (c *answerCache) answersOf(key []byte) *answers {
	if c.lastAnswers = c.answers[string(key)]; c.lastAnswers == nil && c.pendingAnswers != nil && c.pendingAnswers.key == string(key) {
		c.lastAnswers = c.pendingAnswers
	}
	return c.lastAnswers
}

// indexOf returns what there is for a key, else nil.
func (c *answerCache) indexOf(key []byte) *index {
	if c.lastIndex = c.indexes[string(key)]; c.lastIndex == nil && c.pendingIndex != nil && c.pendingIndex.key == string(key) {
		c.lastIndex = c.pendingIndex
	}
	return c.lastIndex
}

func (c *answerCache) addAnswers(a *answers) { c.pendingAnswers, c.lastAnswers = a, a }

func (c *answerCache) addIndex(x *index) { c.pendingIndex, c.lastIndex = x, x }

// settle accounts for what was used since the last call, and keeps it where there is room, or it is worth more than what has to go.
func (c *answerCache) settle(limit int) {
	a, x := c.lastAnswers, c.lastIndex
	c.lastAnswers, c.lastIndex = nil, nil
	if x != nil {
		c.account(&x.entry, x.bytes())
	}
	if a != nil { // after its index, so that it doesn't go before
		c.account(&a.entry, a.bytes())
		if !a.kept() && c.admit(&a.entry, limit) {
			c.answers[a.key], c.pendingAnswers = a, nil
		}
	}
	if x != nil && x.base == a && a.kept() && !x.kept() && c.admit(&x.entry, limit) {
		c.indexes[x.key], c.pendingIndex = x, nil
		c.touch(&a.entry)
	}
	for c.bytes > limit {
		c.drop(c.recent.prev)
	}
}

func (c *answerCache) account(n *entry, size int) {
	if n.hash == 0 {
		n.hash = hashOf(n.key)
	}
	c.uses.note(n.hash, 4*(len(c.answers)+len(c.indexes))+256)
	if n.kept() {
		c.bytes += size - n.size
		c.touch(n)
	}
	n.size = size
}

func (n *entry) kept() bool { return n.next != nil }

// admit keeps an entry, unless what has to go for it is used as often.
func (c *answerCache) admit(n *entry, limit int) bool {
	if n.size > limit {
		return false
	}
	room := limit - c.bytes
	if room < n.size {
		c.uses.begin()
	}
	for v := c.recent.prev; room < n.size && v != &c.recent; v = v.prev {
		// A victim may be about to be used: it is one use behind then.
		if !n.heir && c.uses.of(n.hash) <= c.uses.of(v.hash)+1 {
			return false
		}
		room += v.size
	}
	for c.bytes+n.size > limit {
		c.drop(c.recent.prev)
	}
	n.heir = false
	c.bytes += n.size
	c.link(n)
	return true
}

// touch makes an entry the last to go.
func (c *answerCache) touch(n *entry) {
	n.prev.next, n.next.prev = n.next, n.prev
	c.link(n)
}

func (c *answerCache) link(n *entry) {
	n.prev, n.next = &c.recent, c.recent.next
	n.prev.next, n.next.prev = n, n
}

func (c *answerCache) drop(n *entry) {
	if n.answers != nil {
		delete(c.answers, n.key)
	} else {
		delete(c.indexes, n.key)
	}
	c.bytes -= n.size
	n.prev.next, n.next.prev = n.next, n.prev
	n.prev, n.next = nil, nil
}

// replace has an index take the place of another that isn't right any more.
func (c *answerCache) replace(old, x *index) {
	if old.kept() {
		x.heir = true
		c.drop(&old.entry)
	}
	c.addIndex(x)
}

// dropIndexes forgets all indexes.
func (c *answerCache) dropIndexes() {
	for _, x := range c.indexes {
		c.drop(&x.entry)
	}
	c.pendingIndex, c.lastIndex = nil, nil
}

// hashOf is FNV-1a: the same in all processes, for what is kept must be.
func hashOf(key string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	return h | 1
}

// frequencies estimate how often keys were used of late: a count-min sketch. The zero value counts nothing until it is begun.
type frequencies struct {
	rows  [sketchRows][]uint8
	noted int
}

const (
	sketchRows  = 4
	sketchWidth = 1 << 13
	maxUses     = 7
)

func (f *frequencies) begin() {
	if f.rows[0] == nil {
		for i := range f.rows {
			f.rows[i] = make([]uint8, sketchWidth)
		}
	}
}

// note counts a use. After as many as a period has, all counts are halved.
func (f *frequencies) note(hash uint64, period int) {
	if f.rows[0] == nil {
		return
	}
	for i := range f.rows {
		if n := &f.rows[i][hash>>(16*i)%sketchWidth]; *n < maxUses {
			*n++
		}
	}
	if f.noted++; f.noted < period {
		return
	}
	f.noted = 0
	for _, row := range f.rows {
		for k := range row {
			row[k] /= 2
		}
	}
}

func (f *frequencies) of(hash uint64) uint8 {
	if f.rows[0] == nil {
		return 0
	}
	least := uint8(math.MaxUint8)
	for i := range f.rows {
		least = min(least, f.rows[i][hash>>(16*i)%sketchWidth])
	}
	return least
}
