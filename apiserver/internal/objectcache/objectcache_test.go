package objectcache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"

	"github.com/go-logr/logr"

	"github.com/keelson/keelson/apiserver/internal/objectcache"
	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// codec stores a ConfigMap's message in an envelope of nothing but the message.
type codec struct{ decoded atomic.Int64 }

func encode(cm *corev1.ConfigMap) []byte {
	cm.ResourceVersion = ""
	data, _ := cm.Marshal()
	u := runtime.Unknown{Raw: data}
	env, _ := u.Marshal()
	return append([]byte("k8s\x00"), env...)
}

func (c *codec) Decode(value []byte) (runtime.Object, error) {
	c.decoded.Add(1)
	if len(value) < 4 {
		return nil, errors.New("short")
	}
	var u runtime.Unknown
	if err := u.Unmarshal(value[4:]); err != nil {
		return nil, err
	}
	cm := &corev1.ConfigMap{}
	return cm, cm.Unmarshal(u.Raw)
}

func configMap(name, color string) *corev1.ConfigMap {
	cm := &corev1.ConfigMap{Data: map[string]string{"color": color}}
	cm.Namespace, cm.Name = "ns", name
	return cm
}

type fixture struct {
	store store.Store
	cache *objectcache.Cache
	res   *objectcache.Resource
	codec *codec
}

func start(t testing.TB, s store.Store, events int) fixture {
	t.Helper()
	f := fixture{store: s, codec: &codec{}}
	f.cache = objectcache.New(s, objectcache.Options{Prefix: "/r/", HistoryEvents: events, HistoryBytes: 1 << 20, Clock: clock.RealClock{}, Logger: logr.Discard()})
	var err error
	f.res, err = f.cache.Add("things/special", f.codec, []objectcache.Index{{Name: "color", Get: func(o runtime.Object) string { return o.(*corev1.ConfigMap).Data["color"] }}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.cache.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	<-f.cache.Ready()
	return f
}

func newStore(t testing.TB, o memstore.Options) store.Store {
	t.Helper()
	s, err := memstore.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func (f fixture) put(t testing.TB, name, color string) *objectcache.Object {
	t.Helper()
	cm := configMap(name, color)
	o, err := f.cache.Put(context.Background(), objectcache.Write{Resource: f.res, Key: "ns/" + name, Object: cm, Value: encode(cm)})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestOwnWritesAreNotDecoded(t *testing.T) {
	s := newStore(t, memstore.Options{})
	f := start(t, s, 100)
	for i := range 100 {
		o := f.put(t, fmt.Sprint("a", i%10), "red")
		if got := f.res.Get(o.Key()); got != o {
			t.Fatalf("%d: the cache has %v, committed was %v", i, got, o)
		}
	}
	if f.codec.decoded.Load() != 0 {
		t.Errorf("%d own writes were decoded", f.codec.decoded.Load())
	}
	rev, err := s.Commit(context.Background(), store.Put("/r/things/special/ns/b", encode(configMap("b", "blue")), store.Any()))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.cache.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	if o := f.res.Get("ns/b"); o == nil || o.Revision() != rev || o.Object().GetResourceVersion() != fmt.Sprint(rev) || f.codec.decoded.Load() != 1 {
		t.Errorf("another's write: %v, %d decoded", o, f.codec.decoded.Load())
	}
	// What cannot be decoded is left out, what belongs to no resource is ignored.
	if _, err := s.Commit(context.Background(), store.Put("/r/things/special/ns/c", []byte("x"), store.Any()), store.Put("/r/others/x", nil, store.Any())); err != nil {
		t.Fatal(err)
	}
	if err := f.cache.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	if f.res.Len() != 11 {
		t.Errorf("%d objects", f.res.Len())
	}
}

func TestCommitsInAnyOrder(t *testing.T) {
	f := start(t, newStore(t, memstore.Options{}), 10000)
	_, cursor := f.res.SnapshotAndCursor(true)
	done := make(chan bool)
	for g := range 8 {
		go func() {
			for i := range 100 {
				f.put(t, fmt.Sprint(g, "-", i%7), "red")
			}
			done <- true
		}()
	}
	for range 8 {
		<-done
	}
	last := int64(0)
	for n := 0; n < 800; {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		events, err := cursor.Next(ctx, 50)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Revision <= last {
				t.Fatalf("revision %d after %d", e.Revision, last)
			}
			last = e.Revision
			n++
		}
	}
}

func TestIndex(t *testing.T) {
	f := start(t, newStore(t, memstore.Options{}), 10000)
	rnd := rand.New(rand.NewSource(1))
	colors := []string{"", "red", "green", "blue"}
	first := f.put(t, "first", "red")
	cursor, err := f.res.IndexCursor(first.Revision(), "color", "red")
	if err != nil {
		t.Fatal(err)
	}
	defer cursor.Close()
	red := map[string]bool{"ns/first": true}
	want := map[string]string{"ns/first": "red"}
	for range 500 {
		name := fmt.Sprint("x", rnd.Intn(10))
		if o := f.res.Get("ns/" + name); o != nil && rnd.Intn(3) == 0 {
			if _, err := f.cache.Delete(context.Background(), objectcache.Deletion{Resource: f.res, Object: o}); err != nil {
				t.Fatal(err)
			}
			delete(want, "ns/"+name)
		} else {
			c := colors[rnd.Intn(4)]
			f.put(t, name, c)
			want["ns/"+name] = c
		}
		for _, c := range colors[1:] {
			objs, _ := f.res.ByIndex("color", c)
			n := 0
			for _, v := range want {
				if v == c {
					n++
				}
			}
			if len(objs) != n {
				t.Fatalf("%d are %s, want %d", len(objs), c, n)
			}
		}
		for {
			events, _, _, err := cursor.Poll(10)
			if err != nil {
				t.Fatal(err)
			}
			if len(events) == 0 {
				break
			}
			for _, e := range events {
				is := !e.Deleted && e.Object.Object().(*corev1.ConfigMap).Data["color"] == "red"
				if is {
					red[e.Object.Key()] = true
				} else {
					delete(red, e.Object.Key())
				}
			}
		}
		for k := range red {
			if want[k] != "red" {
				t.Fatalf("%s is thought red", k)
			}
		}
	}
}

func TestRetention(t *testing.T) {
	f := start(t, newStore(t, memstore.Options{}), 300)
	first := f.put(t, "a", "red")
	slow, err := f.res.Cursor(first.Revision(), false)
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := f.res.Cursor(first.Revision(), true)
	if err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		f.put(t, "a", "red")
	}
	if _, _, _, err := slow.Poll(1); !errors.Is(err, objectcache.ErrExpired) {
		t.Errorf("slow: %v", err)
	}
	if _, err := f.res.Cursor(first.Revision(), false); !errors.Is(err, objectcache.ErrExpired) {
		t.Errorf("old: %v", err)
	}
	for n := 0; n < 3000; n++ {
		events, _, _, err := pinned.Poll(1)
		if err != nil || len(events) != 1 || events[0].Revision != first.Revision()+int64(n)+1 {
			t.Fatalf("pinned %d: %v %v", n, events, err)
		}
	}
	if _, ok := f.res.SnapshotAt(first.Revision()); ok {
		t.Error("a snapshot older than the log")
	}
	old, err := f.res.Historic(context.Background(), first.Revision())
	if err != nil || old.Get("ns/a").Revision() != first.Revision() {
		t.Errorf("historic: %v %v", old, err)
	}
}

// laggard is a store whose watcher starts late, so that history is compacted away under it.
type laggard struct {
	store.Store
	release chan struct{}
}

func (l *laggard) Watch(ctx context.Context, o store.WatchOptions) (store.Watcher, error) {
	select {
	case <-l.release:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return l.Store.Watch(ctx, o)
}

func TestReloadAfterCompaction(t *testing.T) {
	s := newStore(t, memstore.Options{})
	ctx := context.Background()
	commit := func(ops ...store.Op) {
		t.Helper()
		if _, err := s.Commit(ctx, ops...); err != nil {
			t.Fatal(err)
		}
	}
	key := func(n string) string { return "/r/things/special/ns/" + n }
	commit(store.Put(key("goes"), encode(configMap("goes", "red")), store.Any()))
	commit(store.Put(key("stays"), encode(configMap("stays", "red")), store.Any()))
	l := &laggard{s, make(chan struct{})}
	f := start(t, l, 100)
	_, cursor := f.res.SnapshotAndCursor(false)
	commit(store.Delete(key("goes"), store.Any()))
	commit(store.Put(key("stays"), encode(configMap("stays", "blue")), store.Any()))
	commit(store.Put(key("comes"), encode(configMap("comes", "red")), store.Any()))
	cur, _, err := s.Revision(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Compact(ctx, cur); err != nil {
		t.Fatal(err)
	}
	close(l.release)
	seen := map[string]bool{}
	for len(seen) < 3 {
		short, cancel := context.WithTimeout(ctx, time.Minute)
		events, err := cursor.Next(short, 10)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			seen[fmt.Sprint(e.Object.Key(), " ", e.Deleted, " ", e.Prev != nil)] = true
		}
	}
	for _, want := range []string{"ns/goes true true", "ns/stays false true", "ns/comes false false"} {
		if !seen[want] {
			t.Errorf("no event %q in %v", want, seen)
		}
	}
	if f.res.Len() != 2 {
		t.Errorf("%d objects", f.res.Len())
	}
}

func TestUnknownOutcome(t *testing.T) {
	s := newStore(t, memstore.Options{})
	f := start(t, &flaky{s}, 100)
	cm := configMap("a", "red")
	_, err := f.cache.Put(context.Background(), objectcache.Write{Resource: f.res, Key: "ns/a", Object: cm, Value: encode(cm)})
	if !errors.Is(err, store.ErrUnknownOutcome) {
		t.Fatalf("%v", err)
	}
	if err := f.cache.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	o := f.res.Get("ns/a")
	if o == nil || o.Object().GetResourceVersion() != o.ResourceVersion() {
		t.Errorf("%v", o)
	}
}

// flaky commits, and says that it doesn't know.
type flaky struct{ store.Store }

func (f *flaky) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	if _, err := f.Store.Commit(ctx, ops...); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("%w: the connection broke", store.ErrUnknownOutcome)
}

type format struct{}

func (format) View(o runtime.Object) (runtime.Object, error) { return o, nil }
func (format) JSON(runtime.Object) ([]byte, int, error)      { return []byte("{}"), 0, nil }
func (format) Protobuf(o runtime.Object) ([]byte, error)     { return o.(*corev1.ConfigMap).Marshal() }
func (format) Envelope(runtime.Object) []byte                { return nil }
func (format) Stored() bool                                  { return true }

// FuzzSplice compares the splicing of the resourceVersion with encoding it.
func FuzzSplice(f *testing.F) {
	f.Add("a", "ns", "k", "v", int64(7))
	f.Add("", "", "", "", int64(1))
	f.Fuzz(func(t *testing.T, name, ns, k, v string, rev int64) {
		if rev <= 0 {
			return
		}
		cm := &corev1.ConfigMap{Data: map[string]string{k: v}}
		cm.Name, cm.Namespace, cm.UID = name, ns, "u"
		cm.Labels = map[string]string{v: k}
		s, err := memstore.New(memstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		value := encode(cm.DeepCopy())
		o, err := objectcache.Stored(rev, value, &codec{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := o.AppendItem(nil, format{}, objectcache.Protobuf)
		if err != nil {
			t.Fatal(err)
		}
		cm.ResourceVersion = fmt.Sprint(rev)
		want, _ := (&corev1.ConfigMapList{Items: []corev1.ConfigMap{*cm}}).Marshal()
		if !bytes.HasSuffix(want, got) {
			t.Errorf("got  %x\nwant %x", got, want)
		}
	})
}
