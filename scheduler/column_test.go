package scheduler

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestColumn(t *testing.T) {
	for _, widest := range []int64{0, 1, math.MaxInt8, math.MaxInt8 + 1, math.MaxInt16, math.MaxInt16 + 1, math.MaxInt32, math.MaxInt32 + 1, math.MaxInt64} {
		r := rand.New(rand.NewPCG(uint64(widest), 0))
		var c column
		var want []int64
		for range 300 {
			if len(want) == 0 || r.IntN(4) == 0 {
				want = append(want, make([]int64, r.IntN(20)+1)...)
				c.grow(len(want))
			}
			i, v := r.IntN(len(want)), int64(0)
			switch r.IntN(6) {
			case 0:
				v = widest
			case 1:
				v = -widest - 1
			case 2:
				v = r.Int64N(max(widest, 1))
			case 3:
				v = -r.Int64N(max(widest, 1))
			}
			want[i] = v
			c.set(int32(i), v)
			for i := range want {
				if got := c.at(int32(i)); got != want[i] {
					t.Fatalf("widest %d: %d is %d, want %d", widest, i, got, want[i])
				}
			}
		}
		if c.n != len(want) || len(c.b) != c.n*c.width {
			t.Errorf("widest %d: %d numbers of %d bytes in %d bytes, want %d numbers", widest, c.n, c.width, len(c.b), len(want))
		}
	}
}
