package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// use looks answers up as the engine does, and reports whether they were kept.
func (c *answerCache) use(key string, limit int) (kept bool) {
	c.settle(limit)
	a := c.answersOf([]byte(key))
	if kept = a != nil && a.kept(); a == nil {
		c.addAnswers(newAnswers(key, key, 0))
	}
	return kept
}

// sizeOf is that of the answers which use makes, for keys of this length.
func sizeOf(key string) int { return newAnswers(key, key, 0).bytes() }

func TestAnswerCacheKeeps(t *testing.T) {
	const room = 20
	key := func(i int) string { return fmt.Sprintf("%06d", i) }
	limit := room * sizeOf(key(0))
	for _, c := range []struct {
		name  string
		next  func(i int) int
		uses  int
		least float64 // part of the uses whose answers were kept
	}{
		{"fits", func(i int) int { return i % room }, 2000, 0.98},
		{"rotation of twice as many", func(i int) int { return i % (2 * room) }, 8000, 0.3},
		{"one by one, each many times", func(i int) int { return i / 50 }, 5000, 0.4},
		{"hot ones between others that come once", func(i int) int {
			if i%2 == 0 {
				return i / 2 % (room / 2)
			}
			return 1000 + i
		}, 8000, 0.45},
		{"others after a while", func(i int) int { return i%room + i/4000*room }, 8000, 0.8},
	} {
		t.Run(c.name, func(t *testing.T) {
			cache := newAnswerCache()
			hits := 0
			for i := range c.uses {
				if cache.use(key(c.next(i)), limit) {
					hits++
				}
				if cache.bytes > limit {
					t.Fatalf("%d bytes are kept, want %d at most", cache.bytes, limit)
				}
			}
			if got := float64(hits) / float64(c.uses); got < c.least {
				t.Errorf("%.2f of the uses were of what is kept, want %.2f", got, c.least)
			}
		})
	}
}

// TestAnswerCacheAccounts compares what the cache says that it keeps with what it does, under random uses.
func TestAnswerCacheAccounts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 0))
	cache := newAnswerCache()
	for i := range 20000 {
		limit := []int{100, 5000, 20000}[i/3000%3]
		cache.settle(limit)
		key := fmt.Sprint(r.IntN(10 + r.IntN(50)))
		a := cache.answersOf([]byte(key))
		if a == nil {
			a = newAnswers(key, key, 0)
			cache.addAnswers(a)
		}
		if r.IntN(3) == 0 {
			a.grow(r.IntN(500)) // it takes more than before
		}
		key = fmt.Sprint(key, " ", r.IntN(3))
		switch x := cache.indexOf([]byte(key)); {
		case x == nil:
			cache.addIndex(newIndex(key, &profile{}, a, nil, nil))
		case x.base != a || r.IntN(50) == 0:
			cache.replace(x, newIndex(key, &profile{}, a, nil, nil))
		}
		if r.IntN(500) == 0 {
			cache.dropIndexes()
		}
		kept := 0
		var ring []*entry
		for n := cache.recent.next; n != &cache.recent; n = n.next {
			kept += n.size
			ring = append(ring, n)
		}
		if cache.bytes != kept || len(ring) != len(cache.answers)+len(cache.indexes) {
			t.Fatalf("use %d: %d bytes in %d entries, counted as %d in %d", i, kept, len(ring), cache.bytes, len(cache.answers)+len(cache.indexes))
		}
		for _, x := range cache.indexes {
			if cache.answers[x.base.key] != x.base || slices.Index(ring, &x.entry) < slices.Index(ring, &x.base.entry) {
				t.Fatalf("use %d: an index is kept longer than what it is of", i)
			}
		}
	}
}

func TestVerdicts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 0))
	a := newAnswers("", "", 0)
	a.grow(60)
	said := make([]*Rejection, 60)
	for i := range 30000 {
		slot := r.IntN(len(said))
		said[slot] = nil
		if kinds := []int{3, 40, 400}[i/5000%3]; r.IntN(4) > 0 {
			k := r.IntN(kinds)
			said[slot] = &Rejection{Reasons: []string{fmt.Sprint("r", k/4), fmt.Sprint("s", k)}[:1+k%2], Unresolvable: k%3 == 0, Plugin: fmt.Sprint("p", k%5)}
		}
		a.set(int32(slot), a.verdicts.of(said[slot], a.said.at(int32(slot))))
		if i%97 > 0 {
			continue
		}
		feasible, resolvable := 0, 0
		for slot, want := range said {
			v := a.verdicts.all[a.said.at(int32(slot))]
			if want == nil {
				if id := a.said.at(int32(slot)); id != verdictFits && id != verdictGone {
					t.Fatalf("step %d: slot %d is rejected", i, slot)
				} else if id == verdictFits {
					feasible++
				}
				continue
			}
			if !v.same(want) {
				t.Fatalf("step %d: slot %d: %v, want %v", i, slot, v.Rejection, want)
			}
			if !want.Unresolvable {
				resolvable++
			}
		}
		if a.feasible() != feasible || a.resolvables != resolvable {
			t.Fatalf("step %d: %d nodes are feasible and %d resolvable, want %d and %d", i, a.feasible(), a.resolvables, feasible, resolvable)
		}
		nodes := 0
		for i := range a.verdicts.all {
			nodes += a.verdicts.all[i].nodes
		}
		if nodes != len(said) || len(a.verdicts.all) > len(said)+verdictsFixed+1 {
			t.Fatalf("step %d: %d verdicts of %d nodes", i, len(a.verdicts.all), nodes)
		}
	}
}
