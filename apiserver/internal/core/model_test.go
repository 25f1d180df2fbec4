package core_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/keelson/keelson/apiserver/internal/core"
)

// state is what a reference server would have: objects by name as "resourceVersion node".
type state map[string]string

func stateOf(t testing.TB, c *core.Core, tg core.Target, o core.ListOptions) (state, int64) {
	t.Helper()
	l, err := c.List(context.Background(), tg, o)
	if err != nil {
		t.Fatal(err)
	}
	s := state{}
	for _, o := range l.Items {
		s.put(o)
	}
	return s, l.Revision
}

func (s state) put(o *core.Object) {
	p := o.Object().(*corev1.Pod)
	s[p.Namespace+"/"+p.Name] = p.ResourceVersion + " " + p.Spec.NodeName
}

func (s state) apply(t testing.TB, ev core.Event) {
	t.Helper()
	if ev.Object == nil {
		return
	}
	name := ev.Object.Key()
	_, have := s[name]
	switch ev.Type {
	case watch.Added:
		if have {
			t.Fatalf("ADDED %s, which was there", name)
		}
		s.put(ev.Object)
	case watch.Modified:
		if !have {
			t.Fatalf("MODIFIED %s, which was not there", name)
		}
		s.put(ev.Object)
	case watch.Deleted:
		if !have {
			t.Fatalf("DELETED %s, which was not there", name)
		}
		delete(s, name)
	}
}

// TestModel does random operations one after the other, and compares with a map.
func TestModel(t *testing.T) {
	for seed := range int64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewSource(seed))
			s := newStore(t)
			c := start(t, core.Options{Store: s, HistoryEvents: 400})
			ctx := context.Background()
			model := state{}
			history := map[int64]state{}
			type watching struct {
				w *core.Watch
				s state
				n string // node
			}
			var watches []watching
			all := target(t, c, "pods", "", "")
			rev := int64(0)
			for step := range 600 {
				name := fmt.Sprint("p", rnd.Intn(12))
				ns := fmt.Sprint("ns", rnd.Intn(2))
				node := fmt.Sprint("n", rnd.Intn(3))
				tg := target(t, c, "pods", ns, name)
				key := ns + "/" + name
				_, have := model[key]
				var o *core.Object
				var err error
				switch rnd.Intn(6) {
				case 0, 1:
					o, err = c.Create(ctx, core.Target{Resource: tg.Resource, Namespace: ns}, pod(ns, name, node), metav1.CreateOptions{})
					if have != apierrors.IsAlreadyExists(err) {
						t.Fatalf("step %d: create %s: have %v, %v", step, key, have, err)
					}
				case 2:
					o, _, err = c.Update(ctx, tg, pod(ns, name, node), metav1.UpdateOptions{})
					if have == apierrors.IsNotFound(err) {
						t.Fatalf("step %d: update %s: have %v, %v", step, key, have, err)
					}
				case 3:
					o, _, err = c.Patch(ctx, tg, types.MergePatchType, []byte(fmt.Sprintf(`{"spec":{"nodeName":%q}}`, node)), metav1.PatchOptions{})
					if have == apierrors.IsNotFound(err) {
						t.Fatalf("step %d: patch %s: have %v, %v", step, key, have, err)
					}
				case 4:
					_, gone, derr := c.Delete(ctx, tg, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
					if have != gone || have == apierrors.IsNotFound(derr) {
						t.Fatalf("step %d: delete %s: have %v, %v %v", step, key, have, gone, derr)
					}
					delete(model, key)
				case 5:
					w := watching{s: state{}}
					o := core.ListOptions{}
					if rnd.Intn(2) == 0 && len(history) > 0 {
						w.s = maps.Clone(history[rev])
						o.ResourceVersion = fmt.Sprint(rev)
					} else if rnd.Intn(2) == 0 {
						w.n = node
						o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", node)
					}
					w.w = mustWatch(t, c, all, o)
					watches = append(watches, w)
				}
				if err == nil && o != nil {
					model.put(o)
				}
				var got state
				got, rev = stateOf(t, c, all, core.ListOptions{})
				if d := cmp.Diff(model, got); d != "" {
					t.Fatalf("step %d: -model +list\n%s", step, d)
				}
				history[rev] = got
			}
			for r, want := range history {
				got, _ := stateOf(t, c, all, core.ListOptions{ResourceVersion: fmt.Sprint(r), ResourceVersionMatch: metav1.ResourceVersionMatchExact})
				if d := cmp.Diff(want, got); d != "" {
					t.Fatalf("list at %d: -want +got\n%s", r, d)
				}
			}
			for _, w := range watches {
				want := state{}
				for k, v := range model {
					if w.n == "" || v[len(v)-len(w.n):] == w.n {
						want[k] = v
					}
				}
				// A state may be like the last one before it is the last one.
				for {
					for !maps.Equal(w.s, want) {
						w.s.apply(t, next(t, w.w))
					}
					short, cancel := context.WithTimeout(ctx, time.Millisecond)
					evs, err := w.w.Next(short, nil)
					cancel()
					if err != nil {
						break
					}
					w.s.apply(t, evs[0])
				}
			}
			// Another server on the same store, which decodes what this one wrote, has the same.
			other := start(t, core.Options{Store: s})
			got, _ := stateOf(t, other, target(t, other, "pods", "", ""), core.ListOptions{})
			if d := cmp.Diff(model, got); d != "" {
				t.Errorf("other server: %s", d)
			}
		})
	}
}

// TestConcurrent has many writers on two servers over one store, and watchers that must all see the same.
func TestConcurrent(t *testing.T) {
	s := newStore(t)
	cores := []*core.Core{start(t, core.Options{Store: s}), start(t, core.Options{Store: s})}
	ctx := context.Background()
	var watches []*core.Watch
	for _, c := range cores {
		for _, o := range []core.ListOptions{{}, {FieldSelector: fields.OneTermEqualSelector("spec.nodeName", "n1")}} {
			watches = append(watches, mustWatch(t, c, target(t, c, "pods", "", ""), o))
		}
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewSource(int64(g)))
			c := cores[g%2]
			for i := range 150 {
				name := fmt.Sprint("p", rnd.Intn(10))
				tg := target(t, c, "pods", "ns", name)
				var err error
				switch rnd.Intn(4) {
				case 0, 1:
					_, err = c.Create(ctx, core.Target{Resource: tg.Resource, Namespace: "ns"}, pod("ns", name, ""), metav1.CreateOptions{})
				case 2:
					_, _, err = c.Patch(ctx, tg, types.MergePatchType, []byte(fmt.Sprintf(`{"metadata":{"labels":{"i":"%d-%d"}},"spec":{"nodeName":"n%d"}}`, g, i, rnd.Intn(3))), metav1.PatchOptions{})
				case 3:
					_, _, err = c.Delete(ctx, tg, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
				}
				if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsAlreadyExists(err) {
					t.Errorf("%v", err)
				}
			}
		}()
	}
	wg.Wait()
	want, _ := stateOf(t, cores[0], target(t, cores[0], "pods", "", ""), core.ListOptions{})
	second, _ := stateOf(t, cores[1], target(t, cores[1], "pods", "", ""), core.ListOptions{})
	if d := cmp.Diff(want, second); d != "" {
		t.Fatalf("the servers differ: %s", d)
	}
	// The last write is a mark that every watch sees.
	mark := mustCreate(t, cores[0], target(t, cores[0], "pods", "zz", ""), pod("zz", "mark", "n1"))
	want.put(mark)
	for i, w := range watches {
		got, last := state{}, int64(0)
		for got["zz/mark"] == "" {
			ev := next(t, w)
			if ev.Object == nil {
				continue
			}
			if ev.Revision <= last && last != 0 && ev.Type != watch.Added {
				t.Fatalf("watch %d: revision %d after %d", i, ev.Revision, last)
			}
			last = max(last, ev.Revision)
			got.apply(t, ev)
		}
		expect := state{}
		for k, v := range want {
			if i%2 == 0 || v[len(v)-2:] == "n1" {
				expect[k] = v
			}
		}
		if d := cmp.Diff(expect, got); d != "" {
			t.Errorf("watch %d: -want +got\n%s", i, d)
		}
	}
}

func TestEncodings(t *testing.T) {
	c := start(t, core.Options{})
	tg := target(t, c, "pods", "ns", "a")
	o := mustCreate(t, c, tg, benchPod("a"))
	r := tg.Resource
	doc, err := o.Encoded(r, "application/json")
	if err != nil {
		t.Fatal(err)
	}
	var p corev1.Pod
	if err := json.Unmarshal(doc, &p); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(o.Object().(*corev1.Pod), &p); d != "" {
		t.Errorf("JSON: %s", d)
	}
	it, err := o.AppendItem(nil, r, "application/json")
	if err != nil {
		t.Fatal(err)
	}
	p = corev1.Pod{}
	if err := json.Unmarshal(it, &p); err != nil || p.Kind != "" || p.Name != "a" || p.ResourceVersion != o.ResourceVersion() {
		t.Errorf("item: %v %+v", err, p.TypeMeta)
	}
	// As one item, and as a whole, decoded by apimachinery's own.
	pb, err := o.AppendItem(nil, r, "application/vnd.kubernetes.protobuf")
	if err != nil {
		t.Fatal(err)
	}
	var l corev1.PodList
	if err := l.Unmarshal(pb); err != nil {
		t.Fatal(err)
	}
	p = l.Items[0]
	p.TypeMeta = o.Object().(*corev1.Pod).TypeMeta
	if d := cmp.Diff(o.Object().(*corev1.Pod), &p); d != "" {
		t.Errorf("protobuf item: %s", d)
	}
	pb, err = o.Encoded(r, "application/vnd.kubernetes.protobuf")
	if err != nil {
		t.Fatal(err)
	}
	got := decodeProtobuf(t, c, pb)
	if d := cmp.Diff(o.Object(), got); d != "" {
		t.Errorf("protobuf: %s", d)
	}
	// What is stored has no version, and is what kube-apiserver stores.
	stored := decodeProtobuf(t, c, o.Value()).(*corev1.Pod)
	if stored.ResourceVersion != "" || stored.Name != "a" {
		t.Errorf("stored: %+v", stored.ObjectMeta)
	}
}
