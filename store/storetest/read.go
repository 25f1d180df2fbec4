package storetest

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/keelson/keelson/store"
)

func readChecks() []check {
	return []check{
		{name: "Read/AtRevision", run: readAtRevision},
		{name: "Read/FutureRevision", run: futureRevision},
		{name: "Read/ListPrefix", run: listPrefix},
		{name: "Read/ListPages", run: listPages},
		{name: "Read/ListPagesUnderWrites", run: listPagesUnderWrites},
		{name: "Read/Linearizable", run: linearizable},
		{name: "Read/ResultsAreStable", run: resultsAreStable},
	}
}

func readAtRevision(e *env) {
	s := e.new()
	empty := e.revision(s)
	one := e.put(s, "a", "1")
	two := e.put(s, "b", "2")
	three := e.put(s, "a", "3")
	four := e.del(s, "a")
	five := e.put(s, "a", "5")
	for _, c := range []struct {
		rev  int64
		want string
	}{{empty, ""}, {one, "a=1 "}, {two, "a=1 b=2 "}, {three, "a=3 b=2 "}, {four, "b=2 "}, {five, "a=5 b=2 "}, {0, "a=5 b=2 "}} {
		res := e.list(s, store.ListOptions{Revision: c.rev})
		got := ""
		for _, kv := range res.KVs {
			got += fmt.Sprintf("%s=%s ", kv.Key, kv.Value)
			e.wantKV(fmt.Sprintf("%q by Get at %d", kv.Key, c.rev), e.get(s, kv.Key, c.rev), &kv)
		}
		if got != c.want {
			e.fatalf("at revision %d there is %q, want %q", c.rev, got, c.want)
		}
		if c.rev != 0 && res.Revision != c.rev {
			e.fatalf("List at revision %d says %d", c.rev, res.Revision)
		}
		if !strings.Contains(c.want, "a=") {
			e.wantKV(fmt.Sprintf("an absent key at %d", c.rev), e.get(s, "a", c.rev), nil)
		}
	}
}

func futureRevision(e *env) {
	s := e.new()
	rev := e.put(s, "a", "1") + 1_000_000
	_, err := s.Get(e.ctx, "a", rev)
	e.is(err, store.ErrFutureRevision, "Get at a future revision")
	_, err = s.List(e.ctx, store.ListOptions{Revision: rev})
	e.is(err, store.ErrFutureRevision, "List at a future revision")
	_, err = s.Watch(e.ctx, store.WatchOptions{After: rev})
	e.is(err, store.ErrFutureRevision, "Watch after a future revision")
	e.is(s.Compact(e.ctx, rev), store.ErrFutureRevision, "Compact to a future revision")
}

func listPrefix(e *env) {
	s := e.new()
	keys := []string{"", "a", "a/", "a/1", "a/2", "a/b/1", "a0", "ab", "b", "\xff", "\xff\xff", "\xff\xffx", "a/\x00", "a/\xff"}
	for _, k := range keys[1:] {
		e.put(s, k, "v"+k)
	}
	sorted := slices.Sorted(slices.Values(keys[1:]))
	for _, prefix := range append(keys, "c", "a/2/", "zzz") {
		for _, after := range append(keys, "a/11", "zzz") {
			var want []string
			for _, k := range sorted {
				if strings.HasPrefix(k, prefix) && (after == "" || k > after) {
					want = append(want, k)
				}
			}
			for limit := range 4 {
				res := e.list(s, store.ListOptions{Prefix: prefix, After: after, Limit: limit, KeysOnly: limit == 2})
				n := len(want)
				if limit > 0 {
					n = min(n, limit)
				}
				var got []string
				for _, kv := range res.KVs {
					got = append(got, kv.Key)
					value := "v" + kv.Key
					if limit == 2 {
						value = ""
					}
					if string(kv.Value) != value || kv.ModRevision == 0 || kv.CreateRevision == 0 {
						e.fatalf("pair in a list is %s", describeKV(&kv))
					}
				}
				what := fmt.Sprintf("list of prefix %q after %q limit %d", prefix, after, limit)
				if !slices.Equal(got, want[:n]) {
					e.fatalf("%s has keys %q, want %q", what, got, want[:n])
				}
				if res.More != (n < len(want)) {
					e.fatalf("%s says More=%v of %d pairs", what, res.More, len(want))
				}
				if left := int64(len(want) - n); res.Remaining != left && (res.Remaining != -1 || left == 0) {
					e.fatalf("%s says %d remain, want %d", what, res.Remaining, left)
				}
			}
		}
	}
}

func listPages(e *env) {
	s := e.new()
	const n = 57
	for i := range n {
		e.put(s, fmt.Sprintf("p/%03d", i), fmt.Sprint(i))
	}
	first := e.list(s, store.ListOptions{Prefix: "p/", Limit: 10})
	got := first.KVs
	for res := first; res.More; {
		e.put(s, fmt.Sprintf("p/%03dx", len(got)), "later")
		e.del(s, fmt.Sprintf("p/%03d", min(len(got)+3, n-1)))
		res = e.list(s, store.ListOptions{Prefix: "p/", Limit: 10, After: got[len(got)-1].Key, Revision: first.Revision})
		if res.Revision != first.Revision {
			e.fatalf("a later page is of revision %d, want %d", res.Revision, first.Revision)
		}
		got = append(got[:len(got):len(got)], res.KVs...)
		if len(got) > n {
			break
		}
	}
	if len(got) != n {
		e.fatalf("the pages have %d pairs, want %d", len(got), n)
	}
	for i, kv := range got {
		if kv.Key != fmt.Sprintf("p/%03d", i) || string(kv.Value) != fmt.Sprint(i) {
			e.fatalf("pair %d of the pages is %s", i, describeKV(&kv))
		}
	}
}

// listPagesUnderWrites moves a token from key to key while lists count it.
func listPagesUnderWrites(e *env) {
	s := e.new()
	const keys = 20
	for i := range keys {
		e.put(s, fmt.Sprintf("k/%02d", i), "")
	}
	e.put(s, "k/00", "token")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var commits atomic.Int64
	errs := make(chan error, 1)
	wg.Go(func() {
		for i := 0; ; i++ {
			commits.Store(int64(i))
			select {
			case <-stop:
				return
			default:
			}
			_, err := s.Commit(e.ctx,
				store.Put(fmt.Sprintf("k/%02d", i%keys), nil, store.Any()),
				store.Put(fmt.Sprintf("k/%02d", (i+1)%keys), []byte("token"), store.Any()))
			if err != nil {
				errs <- err
				return
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	for range 30 {
		for seen := commits.Load(); commits.Load() == seen && e.ctx.Err() == nil && len(errs) == 0; {
			runtime.Gosched()
		}
		tokens, pairs := 0, 0
		opts := store.ListOptions{Prefix: "k/", Limit: 7}
		for {
			res := e.list(s, opts)
			for _, kv := range res.KVs {
				pairs++
				if len(kv.Value) > 0 {
					tokens++
				}
			}
			if !res.More {
				break
			}
			opts.After, opts.Revision = res.KVs[len(res.KVs)-1].Key, res.Revision
		}
		if tokens != 1 || pairs != keys {
			e.fatalf("pages at revision %d show %d pairs and %d tokens, want %d and 1", opts.Revision, pairs, tokens, keys)
		}
		select {
		case err := <-errs:
			e.ok(err, "Commit")
		default:
		}
	}
}

// linearizable has writers that tell of a commit after it was acknowledged, and readers that
// must then see it, by every way of reading.
func linearizable(e *env) {
	s := e.new()
	var mu sync.Mutex
	acked := map[string]int64{}
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	stop := make(chan struct{})
	for i := range 4 {
		key := fmt.Sprint("k", i)
		wg.Go(func() {
			for n := 0; n < 60; n++ {
				rev, err := s.Commit(e.ctx, store.Put(key, []byte(fmt.Sprint(n)), store.Any()))
				if err != nil {
					errs <- err
					return
				}
				mu.Lock()
				acked[key] = rev
				mu.Unlock()
			}
		})
	}
	var readers sync.WaitGroup
	for i := range 3 {
		readers.Go(func() {
			for n := i; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprint("k", n%4)
				mu.Lock()
				want := acked[key]
				mu.Unlock()
				if want == 0 {
					continue
				}
				var got, at int64
				var err error
				switch i {
				case 0:
					var res store.GetResult
					if res, err = s.Get(e.ctx, key, 0); res.KV != nil {
						got = res.KV.ModRevision
					}
					at = res.Revision
				case 1:
					var res store.ListResult
					if res, err = s.List(e.ctx, store.ListOptions{Prefix: key}); len(res.KVs) == 1 {
						got = res.KVs[0].ModRevision
					}
					at = res.Revision
				default:
					got, _, err = s.Revision(e.ctx)
					at = got
				}
				if err == nil && (got < want || at < want) {
					err = fmt.Errorf("stale read of %q: sees revision %d at %d after %d was acknowledged", key, got, at, want)
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	readers.Wait()
	select {
	case err := <-errs:
		e.ok(err, "concurrent reads and writes")
	default:
	}
	// The key that was committed last has the newest revision of all.
	for key, want := range acked {
		if kv := e.get(s, key, 0); kv == nil || kv.ModRevision < want {
			e.fatalf("stale read of %q: it is %s after %d was acknowledged", key, describeKV(kv), want)
		}
	}
}

// resultsAreStable keeps what was returned and looks at it again after more calls.
func resultsAreStable(e *env) {
	s := e.new()
	for i := range 20 {
		e.put(s, fmt.Sprintf("k%02d", i), strings.Repeat(string(rune('a'+i)), 500))
	}
	w := e.watch(s, "", 0)
	defer w.Close()
	e.put(s, "k03", "watched")
	rev := e.put(s, "k04", "watched too")

	got := e.get(s, "k00", 0)
	list := e.list(s, store.ListOptions{})
	page := e.list(s, store.ListOptions{Limit: 5, Revision: rev})
	events := e.until(w, rev)
	snapshot := func() string {
		var b strings.Builder
		b.WriteString(describeKV(got) + string(got.Value))
		for _, kvs := range [][]store.KV{list.KVs, page.KVs} {
			for _, kv := range kvs {
				b.WriteString(describeKV(&kv) + string(kv.Value))
			}
		}
		for _, ev := range events {
			b.WriteString(describeKV(&ev.KV) + describeKV(ev.Prev) + string(ev.KV.Value))
		}
		return b.String()
	}
	before := snapshot()
	for i := range 200 {
		last := e.put(s, fmt.Sprintf("k%02d", i%20), strings.Repeat("z", 500))
		if i%50 == 49 {
			e.ok(s.Compact(e.ctx, last), "Compact")
		}
		e.get(s, fmt.Sprintf("k%02d", i%20), 0)
		e.list(s, store.ListOptions{Limit: 1 + i%20})
	}
	if after := snapshot(); after != before {
		e.fatalf("what was returned has changed under the caller by later calls")
	}
}
