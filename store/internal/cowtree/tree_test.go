package cowtree

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// check returns what is wrong with the tree's structure.
func (t Tree[V]) check() error {
	if t.root == nil {
		return nil
	}
	var walk func(n *node[V], lo, hi string) (depth int, err error)
	walk = func(n *node[V], lo, hi string) (int, error) {
		if len(n.keys) == 0 || len(n.keys) > maxLen {
			return 0, fmt.Errorf("node of %d keys", len(n.keys))
		}
		if n.kids == nil {
			if len(n.vals) != len(n.keys) || n.count != len(n.keys) {
				return 0, fmt.Errorf("leaf of %d keys, %d values, count %d", len(n.keys), len(n.vals), n.count)
			}
			for i, k := range n.keys {
				if k < lo || (hi != "" && k >= hi) || (i > 0 && k <= n.keys[i-1]) {
					return 0, fmt.Errorf("key %q out of order", k)
				}
			}
			return 1, nil
		}
		count, depth := 0, 0
		for i, k := range n.kids {
			klo, khi := lo, hi
			if i > 0 {
				klo = n.keys[i]
			}
			if i+1 < len(n.kids) {
				khi = n.keys[i+1]
			}
			d, err := walk(k, klo, khi)
			if err != nil {
				return 0, err
			}
			if i > 0 && d != depth {
				return 0, fmt.Errorf("uneven depth")
			}
			depth = d
			count += k.count
		}
		if count != n.count || len(n.kids) != len(n.keys) {
			return 0, fmt.Errorf("inner count %d, want %d", n.count, count)
		}
		return depth + 1, nil
	}
	_, err := walk(t.root, "", "")
	return err
}

func TestAgainstMap(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		space := []int{10, 200, 3000, 3000, 20000, 200}[seed]
		want := map[string]int{}
		var tree Tree[int]
		type snapshot struct {
			t    Tree[int]
			want map[string]int
		}
		var snaps []snapshot
		for step := range 4000 {
			e := tree.Edit()
			grow := step/1000%2 == 0
			for range 1 + r.IntN(8) {
				k := fmt.Sprintf("/k/%05d", r.IntN(space))
				if seed == 3 && grow {
					k = fmt.Sprintf("/k/%05d", len(want))
				}
				_, had := want[k]
				if p := r.IntN(10); (grow && p < 8) || (!grow && p < 2) {
					if e.Set(k, step) == had {
						t.Fatalf("seed %d step %d: Set(%q) says new=%v", seed, step, k, had)
					}
					want[k] = step
				} else {
					if e.Delete(k) != had {
						t.Fatalf("seed %d step %d: Delete(%q) does not say %v", seed, step, k, had)
					}
					delete(want, k)
				}
			}
			tree = e.Tree()
			if step%200 == 0 {
				snaps = append(snaps, snapshot{tree, maps.Clone(want)})
			}
			if step%50 == 0 {
				if err := tree.check(); err != nil {
					t.Fatalf("seed %d step %d: %v", seed, step, err)
				}
			}
		}
		snaps = append(snaps, snapshot{tree, want})
		for i, s := range snaps {
			if err := s.t.check(); err != nil {
				t.Fatalf("snapshot %d: %v", i, err)
			}
			keys := slices.Sorted(maps.Keys(s.want))
			if s.t.Len() != len(keys) {
				t.Fatalf("snapshot %d: Len %d, want %d", i, s.t.Len(), len(keys))
			}
			for range 5 {
				from := fmt.Sprintf("/k/%05d", r.IntN(space))
				at, _ := slices.BinarySearch(keys, from)
				if got := s.t.Rank(from); got != at {
					t.Fatalf("snapshot %d: Rank(%q) = %d, want %d", i, from, got, at)
				}
				s.t.Ascend(from, func(k string, v *int) bool {
					if at >= len(keys) || keys[at] != k || s.want[k] != *v {
						t.Fatalf("snapshot %d: Ascend(%q) gives %q=%d at %d", i, from, k, *v, at)
					}
					at++
					return true
				})
				if at != len(keys) {
					t.Fatalf("snapshot %d: Ascend(%q) ended at %d of %d", i, from, at, len(keys))
				}
			}
			for k, v := range s.want {
				if got, ok := s.t.Get(k); !ok || got != v {
					t.Fatalf("snapshot %d: Get(%q) = %d, %v", i, k, got, ok)
				}
			}
			if _, ok := s.t.Get("nothing"); ok {
				t.Fatal("Get finds a key that is not there")
			}
		}
	}
}

func FuzzEdit(f *testing.F) {
	f.Add("a b c -a d -b -c -d")
	f.Add(strings.Repeat("x y z ", 50))
	f.Fuzz(func(t *testing.T, script string) {
		want := map[string]bool{}
		var tree Tree[bool]
		for _, w := range strings.Split(script, " ") {
			e := tree.Edit()
			if k, del := strings.CutPrefix(w, "-"); del {
				e.Delete(k)
				delete(want, k)
			} else {
				e.Set(w, true)
				want[w] = true
			}
			tree = e.Tree()
		}
		if err := tree.check(); err != nil {
			t.Fatal(err)
		}
		var got []string
		tree.Ascend("", func(k string, _ *bool) bool { got = append(got, k); return true })
		if !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
			t.Fatalf("got %q", got)
		}
	})
}

func BenchmarkSet(b *testing.B) {
	var tree Tree[*int]
	keys := make([]string, 100_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("/registry/pods/namespace-%03d/pod-%06d", i%100, i)
		e := tree.Edit()
		e.Set(keys[i], new(int))
		tree = e.Tree()
	}
	v := new(int)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e := tree.Edit()
		e.Set(keys[i*7919%len(keys)], v)
		tree = e.Tree()
	}
}
