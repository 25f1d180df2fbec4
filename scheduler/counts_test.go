package scheduler

import (
	"math/rand/v2"
	"testing"
)

func TestCounts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 0))
	for _, spread := range []int{3, 40, 1000} { // nodes with pods: a map for few of them, a column for many
		var c, copied Counts
		want := make([]int64, 1000)
		for i := range 4000 {
			slot, pods := r.IntN(spread), int32(r.IntN(3)-1)
			if want[slot] == 0 {
				pods = 1
			}
			c.add(int32(slot), pods, len(want))
			want[slot] += int64(pods)
			if i == 2000 {
				copied = c.clone()
				before := copied.On(&Node{slot: slot})
				if copied.add(int32(slot), 1, len(want)); c.On(&Node{slot: slot}) != before {
					t.Errorf("of %d: a copy is no copy", spread)
				}
			}
			if i%100 > 0 {
				continue
			}
			for slot := range want {
				if got := c.On(&Node{slot: slot}); got != want[slot] {
					t.Fatalf("of %d: step %d: %d pods on %d, want %d", spread, i, got, slot, want[slot])
				}
			}
		}
		if dense := c.many.n > 0; dense != (spread*mapPlace > len(want)) && spread != 40 {
			t.Errorf("of %d: in a column: %v", spread, dense)
		}
		if got := c.On(&Node{slot: 5000}); got != 0 {
			t.Errorf("of %d: %d pods on a node that came later", spread, got)
		}
	}
}
