package boltstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keelson/keelson/store"
)

// flights is a store of which each sync of the log waits for the test.
type flights struct {
	*Store
	t      *testing.T
	path   string
	began  chan struct{} // a sync has begun
	end    chan error    // how it goes
	allow  atomic.Int32  // whether nobody asks any more
	fails  atomic.Int32  // how many of the next writes fail for want of room
	synced atomic.Int64  // how many syncs have succeeded
}

func newFlights(t *testing.T) *flights {
	path := filepath.Join(t.TempDir(), "s")
	f := &flights{Store: open(t, path, Options{}), t: t, path: path, began: make(chan struct{}, 100), end: make(chan error)}
	put(t, f.Store, "first", "")
	alwaysInFlight(f.Store)
	f.log.sync = func(file *os.File) error {
		if f.allow.Load() == 0 {
			f.began <- struct{}{}
			if err := <-f.end; err != nil {
				return err
			}
		}
		f.synced.Add(1)
		return syncData(file)
	}
	f.log.write = func(file *os.File, b []byte, at int64) (int, error) {
		if f.fails.Load() > 0 && f.fails.Add(-1) >= 0 {
			return 0, &os.PathError{Op: "write", Path: file.Name(), Err: syscall.ENOSPC}
		}
		return file.WriteAt(b, at)
	}
	return f
}

// alwaysInFlight has a batch written while the next one is evaluated, whatever that brings.
func alwaysInFlight(s *Store) {
	s.pipeline.mu.Lock()
	defer s.pipeline.mu.Unlock()
	s.pipeline.always = true
}

// answers is what CommitEach returns, and how many syncs had succeeded then.
type answers struct {
	results []store.CommitResult
	synced  int64
}

// commit is CommitEach on its own goroutine.
func (f *flights) commit(commits ...[]store.Op) <-chan answers {
	out := make(chan answers, 1)
	go func() {
		res := f.CommitEach(context.Background(), commits)
		out <- answers{res, f.synced.Load()}
	}()
	return out
}

// many is a commit of each key that puts it.
func many(value string, cond store.Condition) (out [][]store.Op) {
	for i := range flightMin + 4 {
		out = append(out, []store.Op{store.Put(fmt.Sprintf("key%02d", i), []byte(value), cond)})
	}
	return out
}

// until waits for a condition on the pipeline.
func (f *flights) until(what string, cond func(p *pipeline) bool) {
	f.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Microsecond) {
		f.pipeline.mu.Lock()
		ok := cond(&f.pipeline)
		f.pipeline.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%s does not come about", what)
		}
	}
}

// both has a batch being synced and another one evaluated on top of it.
func (f *flights) both(first, second [][]store.Op) (a, b <-chan answers) {
	f.t.Helper()
	a = f.commit(first...)
	<-f.began
	b = f.commit(second...)
	f.until("a batch on top of the one being synced", func(p *pipeline) bool { return p.open != nil && len(p.open.reqs) == len(second) })
	return a, b
}

// release lets everything go on.
func (f *flights) release(err error) {
	f.allow.Store(1)
	f.end <- err
}

func (f *flights) revision() int64 {
	f.t.Helper()
	rev, _, err := f.Revision(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	return rev
}

// events returns those of the revisions after after, all of which have to be there.
func (f *flights) events(w store.Watcher, through int64) (out []store.Event) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for reached := int64(0); reached < through; {
		b, err := w.Next(ctx)
		if err != nil {
			f.t.Fatal(err)
		}
		out, reached = append(out, b.Events...), b.Revision
	}
	return out
}

// reopened is the store as a kill would leave it now.
func (f *flights) reopened() *Store {
	f.t.Helper()
	path := filepath.Join(f.t.TempDir(), "again")
	quietly(f.t, f.path).write(f.t, path)
	return open(f.t, path, Options{})
}

// A batch that is evaluated on one that is not durable yet is neither shown nor answered before both are.
func TestPipeline(t *testing.T) {
	f := newFlights(t)
	w, err := f.Watch(t.Context(), store.WatchOptions{Prefix: "key"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	second := many("2", store.Present())
	second = append(second, []store.Op{store.Put("key00", nil, store.Absent())}, []store.Op{store.Check("key01", store.Present())})
	a, b := f.both(many("1", store.Absent()), second)
	nothing := func(when string, rev int64, val string) {
		t.Helper()
		if got := value(t, f.Store, "key00"); got != val || f.revision() != rev {
			t.Errorf("%s key00 is %s at revision %d, want %s at %d", when, got, f.revision(), val, rev)
		}
		f.tail.mu.RLock()
		defer f.tail.mu.RUnlock()
		if last := f.tail.first + int64(len(f.tail.events)) - 1; f.tail.first > 0 && last > rev {
			t.Errorf("%s watchers get events to revision %d", when, last)
		}
	}
	nothing("while the first batch is synced", 2, "-")
	f.end <- nil
	<-f.began // the second one's sync, before or while the first one is answered
	n := int64(flightMin + 4)
	for i, res := range (<-a).results {
		if res.Err != nil || res.Revision != 3+int64(i) {
			t.Fatalf("commit %d: %+v", i, res)
		}
	}
	nothing("while the second batch is synced", 2+n, "1")
	first := f.events(w, 2+n)
	select {
	case got := <-b:
		t.Fatalf("the second batch is answered before it is durable: %+v", got)
	default:
	}
	f.release(nil)
	got := <-b
	if got.synced < 2 {
		t.Errorf("the second batch is answered after %d syncs", got.synced)
	}
	for i, res := range got.results[:n] {
		if res.Err != nil || res.Revision != 3+n+int64(i) {
			t.Fatalf("commit %d of the second batch: %+v", i, res)
		}
	}
	var conflict *store.ConflictError
	if !errors.As(got.results[n].Err, &conflict) || conflict.Current == nil || conflict.Current.ModRevision != 3+n || string(conflict.Current.Value) != "2" {
		t.Errorf("the conflict is %v", got.results[n].Err)
	}
	if res := got.results[n+1]; res.Err != nil || res.Revision != 2+2*n {
		t.Errorf("the check is answered %+v", res)
	}
	events := append(first, f.events(w, 2+2*n)...)
	for i, ev := range events {
		rev := 3 + int64(i)
		if ev.KV.ModRevision != rev || (ev.Prev == nil) != (rev < 3+n) || ev.Prev != nil && (ev.Prev.ModRevision != rev-n || string(ev.Prev.Value) != "1") {
			t.Fatalf("event %d is %+v of %+v", i, ev, ev.Prev)
		}
	}
	if len(events) != int(2*n) {
		t.Errorf("there are %d events", len(events))
	}
	if got, want := everything(t, f.reopened()), everything(t, f.Store); got != want {
		t.Errorf("after a kill it is\n%.300s\nwant\n%.300s", got, want)
	}
}

// A conflict with what is not durable yet waits for that, also if it is all that there is.
func TestPipelinedConflict(t *testing.T) {
	f := newFlights(t)
	a, b := f.both(many("1", store.Absent()), [][]store.Op{{store.Put("key03", nil, store.Absent())}, {store.Check("key03", store.At(6))}})
	f.release(nil)
	<-a
	got := <-b
	var conflict *store.ConflictError
	if !errors.As(got.results[0].Err, &conflict) || conflict.Current == nil || string(conflict.Current.Value) != "1" || got.synced < 1 {
		t.Errorf("the conflict is %v after %d syncs", got.results[0].Err, got.synced)
	}
	if got.results[1].Err != nil {
		t.Errorf("the check is answered %v", got.results[1].Err)
	}
}

// When a sync fails, the batch is written once more, elsewhere, and the one on top of it goes on.
func TestPipelineSyncFails(t *testing.T) {
	f := newFlights(t)
	a, b := f.both(many("1", store.Absent()), many("2", store.Present()))
	f.release(syscall.EIO)
	for _, c := range []<-chan answers{a, b} {
		for i, res := range (<-c).results {
			if res.Err != nil {
				t.Errorf("commit %d: %v", i, res.Err)
			}
		}
	}
	if got := value(t, f.Store, "key07"); got != "2" || f.revision() != 2+2*(flightMin+4) {
		t.Errorf("key07 is %s at revision %d", got, f.revision())
	}
	if got, want := everything(t, f.reopened()), everything(t, f.Store); got != want {
		t.Errorf("after a kill it is\n%.300s\nwant\n%.300s", got, want)
	}
}

// When nobody knows what has become of a batch, the one on top of it waits until it is known, and is evaluated on that.
func TestPipelineUnknownOutcome(t *testing.T) {
	f := newFlights(t)
	second := append(many("2", store.Present()), []store.Op{store.Put("key00", nil, store.Absent())})
	a, b := f.both(many("1", store.Absent()), second)
	f.end <- syscall.EIO
	<-f.began // of the next segment
	f.release(syscall.EIO)
	for i, res := range (<-a).results {
		if !errors.Is(res.Err, store.ErrUnknownOutcome) {
			t.Errorf("commit %d: %v", i, res.Err)
		}
	}
	got := (<-b).results
	for i, res := range got[:flightMin+4] {
		if res.Err != nil {
			t.Errorf("commit %d of the second batch: %v", i, res.Err)
		}
	}
	if err := got[flightMin+4].Err; !errors.Is(err, store.ErrConflict) {
		t.Errorf("the conflict is %v", err)
	}
	if got := value(t, f.Store, "key07"); got != "2" || f.revision() != 2+2*(flightMin+4) {
		t.Errorf("key07 is %s at revision %d", got, f.revision())
	}
	if got, want := everything(t, f.reopened()), everything(t, f.Store); got != want {
		t.Errorf("after a kill it is\n%.300s\nwant\n%.300s", got, want)
	}
}

// What was evaluated on a batch for which there is no room is evaluated anew, without it.
func TestPipelineNoRoom(t *testing.T) {
	f := newFlights(t)
	put(t, f.unblocked(), "old", "x")
	f.allow.Store(0)
	first, second := many("1", store.Absent()), many("2", store.Absent())
	second = append(second, []store.Op{store.Put("old", nil, store.At(4))})
	// The first batch is in the air, the second one, which has no room, on top of it, and the third one on top of that.
	zero := f.commit(many("0", store.Any())...)
	<-f.began
	for i := range first { // they see what the batch before has
		first[i][0] = store.Put(fmt.Sprintf("key%02d", i), []byte("1"), store.Present())
		second[i][0] = store.Put(fmt.Sprintf("key%02d", i), []byte("2"), store.At(4+int64(i)))
	}
	a := f.commit(first...)
	f.until("the second batch", func(p *pipeline) bool { return p.open != nil && len(p.open.reqs) == len(first) })
	f.fails.Store(1)
	hold := make(chan struct{})
	write := f.log.write
	f.log.write = func(file *os.File, b []byte, at int64) (int, error) {
		if f.fails.Load() > 0 {
			<-hold
		}
		return write(file, b, at)
	}
	f.end <- nil
	for _, res := range (<-zero).results {
		if res.Err != nil {
			t.Fatal(res.Err)
		}
	}
	b := f.commit(second...)
	f.until("the third batch", func(p *pipeline) bool { return p.open != nil && len(p.open.reqs) == len(second) })
	f.allow.Store(1)
	close(hold)
	for i, res := range (<-a).results {
		if !errors.Is(res.Err, syscall.ENOSPC) || errors.Is(res.Err, store.ErrUnknownOutcome) {
			t.Errorf("commit %d, for which there is no room: %v", i, res.Err)
		}
	}
	got := (<-b).results
	for i, res := range got[:len(first)] {
		if res.Err != nil || res.Revision != 4+int64(len(first)+i) {
			t.Errorf("commit %d behind that: %+v", i, res)
		}
	}
	if err := got[len(first)].Err; !errors.Is(err, store.ErrConflict) {
		t.Errorf("the conflict is %v", err)
	}
	if got, want := everything(t, f.reopened()), everything(t, f.Store); got != want {
		t.Errorf("after a kill it is\n%.300s\nwant\n%.300s", got, want)
	}
}

// unblocked is the store while no sync waits for the test.
func (f *flights) unblocked() *Store {
	f.allow.Store(1)
	return f.Store
}

// Close waits for what is under way.
func TestClosePipeline(t *testing.T) {
	f := newFlights(t)
	a, b := f.both(many("1", store.Absent()), many("2", store.Present()))
	closed := make(chan error, 1)
	go func() { closed <- f.Close() }()
	for {
		if _, _, err := f.Revision(t.Context()); errors.Is(err, store.ErrClosed) {
			break
		}
	}
	select {
	case err := <-closed:
		t.Errorf("Close does not wait: %v", err)
	default:
	}
	f.release(nil)
	for _, c := range []<-chan answers{a, b} {
		for i, res := range (<-c).results {
			if res.Err != nil {
				t.Errorf("commit %d: %v", i, res.Err)
			}
		}
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	s := open(t, f.path, Options{})
	if got := value(t, s, "key07"); got != "2" {
		t.Errorf("key07 is %s", got)
	}
}

// What cannot go on beside a batch that is being synced waits for it, in the queue, and can be taken back from there.
func TestBehindPipeline(t *testing.T) {
	f := newFlights(t)
	a, b := f.both(many("1", store.Absent()), many("2", store.Present()))
	evaluated, cancelEvaluated := context.WithCancel(t.Context())
	queued, cancelQueued := context.WithCancel(t.Context())
	errs, advanced := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := f.Commit(evaluated, store.Put("evaluated", nil, store.Any()))
		errs <- err
	}()
	f.until("another commit", func(p *pipeline) bool { return len(p.open.reqs) == flightMin+5 })
	cancelEvaluated()
	if err := <-errs; !errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("the commit that has been evaluated: %v", err)
	}
	go func() { advanced <- f.Advance(t.Context(), 1000) }()
	f.queuedUntil(1)
	go func() {
		_, err := f.Commit(queued, store.Put("queued", nil, store.Any()))
		errs <- err
	}()
	f.queuedUntil(2)
	cancelQueued()
	if err := <-errs; !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("the commit that waits: %v", err)
	}
	f.release(nil)
	for _, c := range []<-chan answers{a, b} {
		for i, res := range (<-c).results {
			if res.Err != nil || res.Revision > 1000 {
				t.Errorf("commit %d: %+v", i, res)
			}
		}
	}
	if err := <-advanced; err != nil || f.revision() != 1000 {
		t.Errorf("the advance: %v, at revision %d", err, f.revision())
	}
	if got := value(t, f.Store, "evaluated") + value(t, f.Store, "queued"); got != "-" {
		t.Errorf("what was cancelled is %q", got)
	}
}

// queuedUntil waits until so many requests are queued.
func (f *flights) queuedUntil(n int) {
	f.t.Helper()
	f.until(fmt.Sprint(n, " queued requests"), func(*pipeline) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.queue) == n
	})
}
