package storetest

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keelson/keelson/store"
)

// Factory makes the stores that the suite runs on.
type Factory struct {
	// New returns an empty store. It is called by every check; the suite closes what it returns.
	New func(ctx context.Context) (store.Store, error)
	// Reopen opens again what s, which has been closed, had stored. Nil if the stores do
	// not outlive Close; then what is about that is skipped.
	Reopen func(ctx context.Context, s store.Store) (store.Store, error)
	// Shared says that the revisions of a store may rise by more than one a commit and an empty
	// one may be at any revision, because others write to what it stands on.
	Shared bool
	// MaxOps is how many ops a commit may have; 0 means 1000.
	MaxOps int
	// Timeout bounds each check; 0 means 30 seconds.
	Timeout time.Duration
}

func (f Factory) withDefaults() Factory {
	if f.MaxOps == 0 {
		f.MaxOps = 1000
	}
	if f.Timeout == 0 {
		f.Timeout = 30 * time.Second
	}
	return f
}

// Run runs every check as a subtest.
func Run(t *testing.T, f Factory) {
	if f.New == nil {
		t.Fatal("storetest: Factory.New is nil")
	}
	f = f.withDefaults()
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			if c.needsReopen && f.Reopen == nil {
				t.Skip("Factory.Reopen is nil")
			}
			if err := run(t.Context(), f, c); err != nil {
				t.Error(err)
			}
		})
	}
}

// Check runs every check, or only the named ones, and returns what is wrong by the check's name.
func Check(ctx context.Context, f Factory, names ...string) map[string]error {
	f = f.withDefaults()
	failed := map[string]error{}
	for _, c := range checks() {
		if len(names) > 0 && !slices.Contains(names, c.name) || c.needsReopen && f.Reopen == nil {
			continue
		}
		if err := run(ctx, f, c); err != nil {
			failed[c.name] = err
		}
	}
	return failed
}

type check struct {
	name        string
	run         func(*env)
	needsReopen bool
}

// checks returns all checks in the order in which they are worth reading when they fail.
func checks() []check {
	return slices.Concat(commitChecks(), readChecks(), compactChecks(), watchChecks(), lifeChecks(), randomChecks(), linearizableChecks())
}

// failure is what env.fatalf panics with, within one check.
type failure struct{ err error }

// run runs one check within its time and looks for goroutines it leaves behind.
func run(ctx context.Context, f Factory, c check) error {
	before := goleak.IgnoreCurrent()
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- runCheck(ctx, f, c) }()
	select {
	case err := <-result:
		if err != nil {
			return err
		}
	case <-time.After(f.Timeout + 5*time.Second):
		return fmt.Errorf("does not end when its context does, %v ago", 5*time.Second)
	}
	if err := goleak.Find(before); err != nil {
		return fmt.Errorf("after Close: %w", err)
	}
	return nil
}

func runCheck(ctx context.Context, f Factory, c check) (err error) {
	e := &env{ctx: ctx, f: f}
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = r.err
		default:
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
		for _, s := range e.open {
			if cerr := s.Close(); err == nil && cerr != nil {
				err = fmt.Errorf("Close: %w", cerr)
			}
		}
	}()
	c.run(e)
	return nil
}

// env is what a check works with. Its methods end the check when something is wrong; they
// may be used by the check's own goroutine only.
type env struct {
	ctx  context.Context
	f    Factory
	open []store.Store
}

func (e *env) fatalf(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }

func (e *env) ok(err error, format string, args ...any) {
	if err != nil {
		e.fatalf("%s: %w", fmt.Sprintf(format, args...), err)
	}
}

func (e *env) is(err, want error, format string, args ...any) {
	if !errors.Is(err, want) {
		e.fatalf("%s: error is %v, want %v", fmt.Sprintf(format, args...), err, want)
	}
}

func (e *env) new() store.Store {
	s, err := e.f.New(e.ctx)
	e.ok(err, "Factory.New")
	e.open = append(e.open, s)
	return s
}

func (e *env) reopen(s store.Store) store.Store {
	e.ok(s.Close(), "Close")
	again, err := e.f.Reopen(e.ctx, s)
	e.ok(err, "Factory.Reopen")
	e.open = append(slices.DeleteFunc(e.open, func(o store.Store) bool { return o == s }), again)
	return again
}

func (e *env) commit(s store.Store, ops ...store.Op) int64 {
	rev, err := s.Commit(e.ctx, ops...)
	e.ok(err, "Commit(%s)", describe(ops))
	return rev
}

func (e *env) put(s store.Store, key, value string) int64 {
	return e.commit(s, store.Put(key, []byte(value), store.Any()))
}

func (e *env) del(s store.Store, key string) int64 {
	return e.commit(s, store.Delete(key, store.Any()))
}

func (e *env) get(s store.Store, key string, rev int64) *store.KV {
	res, err := s.Get(e.ctx, key, rev)
	e.ok(err, "Get(%q, %d)", key, rev)
	return res.KV
}

func (e *env) list(s store.Store, opts store.ListOptions) store.ListResult {
	res, err := s.List(e.ctx, opts)
	e.ok(err, "List(%+v)", opts)
	return res
}

func (e *env) revision(s store.Store) int64 {
	rev, _, err := s.Revision(e.ctx)
	e.ok(err, "Revision")
	return rev
}

func (e *env) watch(s store.Store, prefix string, after int64) store.Watcher {
	w, err := s.Watch(e.ctx, store.WatchOptions{Prefix: prefix, After: after})
	e.ok(err, "Watch(%q after %d)", prefix, after)
	return w
}

// until reads w until it has reported rev.
func (e *env) until(w store.Watcher, rev int64) []store.Event {
	events, err := collect(e.ctx, w, rev)
	e.ok(err, "Next, waiting for revision %d after %d events", rev, len(events))
	return events
}

// collect reads w until it has reported rev, and checks the form of every batch.
func collect(ctx context.Context, w store.Watcher, rev int64) ([]store.Event, error) {
	var events []store.Event
	last := int64(0)
	for reported := int64(0); reported < rev; {
		b, err := w.Next(ctx)
		if err != nil {
			return events, err
		}
		if b.Revision < reported {
			return events, fmt.Errorf("a batch reports up to revision %d, the one before it %d", b.Revision, reported)
		}
		for i, ev := range b.Events {
			switch {
			case ev.KV.ModRevision > b.Revision:
				return events, fmt.Errorf("event of revision %d in a batch that reports up to %d", ev.KV.ModRevision, b.Revision)
			case ev.KV.ModRevision < last:
				return events, fmt.Errorf("event of revision %d comes after one of %d", ev.KV.ModRevision, last)
			case ev.KV.ModRevision <= reported:
				return events, fmt.Errorf("event of revision %d comes after a batch that reported up to %d", ev.KV.ModRevision, reported)
			case ev.KV.ModRevision == last && i > 0 && ev.KV.Key <= b.Events[i-1].KV.Key:
				return events, fmt.Errorf("in revision %d, %q comes after %q", last, ev.KV.Key, b.Events[i-1].KV.Key)
			}
			last = ev.KV.ModRevision
		}
		events = append(events, b.Events...)
		reported = b.Revision
	}
	return events, nil
}

func describe(ops []store.Op) string {
	out := ""
	for i, op := range ops {
		if i == 8 {
			return fmt.Sprintf("%s and %d more", out, len(ops)-i)
		}
		name := [...]string{"put", "delete", "check"}[min(op.Kind, 2)]
		out += fmt.Sprintf("%s %q if %s; ", name, op.Key, op.If)
	}
	return out
}

func describeKV(kv *store.KV) string {
	if kv == nil {
		return "nothing"
	}
	v := string(kv.Value)
	if len(v) > 40 {
		v = v[:40] + "…"
	}
	return fmt.Sprintf("%q=%q created %d modified %d", kv.Key, v, kv.CreateRevision, kv.ModRevision)
}

func sameKV(a, b *store.KV) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Key == b.Key && string(a.Value) == string(b.Value) &&
		a.CreateRevision == b.CreateRevision && a.ModRevision == b.ModRevision
}

func (e *env) wantKV(what string, got, want *store.KV) {
	if !sameKV(got, want) {
		e.fatalf("%s is %s, want %s", what, describeKV(got), describeKV(want))
	}
}
