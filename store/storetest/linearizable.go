package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/keelson/keelson/store"
)

// Operation is one call on one key in a history that Linearizable checks. It can be marshalled,
// so that a process that is about to be killed can write down what it does.
type Operation struct {
	Client int
	Key    string
	// Kind is "get", "put" or "delete".
	Kind string
	// Value of a put, or what a get has found. Each put of a history has a value of its own.
	Value string
	// If is the condition of a put or delete: "", "absent", "present" or "at" revision At.
	If string
	At int64
	// Call and Return are times of one clock. Return is 0 while there is no answer.
	Call, Return int64
	// Outcome is "ok", "conflict", "failed" (certainly nothing happened), or "unknown".
	Outcome string
	// Revision is that of the commit, of the pair that was found, or of the one that a condition
	// conflicted with; 0 if there was none.
	Revision int64
}

func (o Operation) String() string {
	return fmt.Sprintf("client %d: %s %q if %s%.0d value %q: %s, revision %d", o.Client, o.Kind, o.Key, o.If, o.At, o.Value, o.Outcome, o.Revision)
}

// DriveOptions of Drive; the zero value is the default.
type DriveOptions struct {
	Clients int    // 0 means 5
	Keys    int    // 0 means 3
	Seed    uint64 // of the random choice of operations
	// Tag is part of every value, and tells the runs of one history apart.
	Tag string
	// Started is called before each operation, Done after it, by all clients. Either may be nil.
	Started, Done func(Operation)
	// Timeout bounds each call; 0 means 5 seconds.
	Timeout time.Duration
}

// Drive runs clients that do random operations on s until the context ends or the store is
// closed. Deletes that find nothing have revision 0.
func Drive(ctx context.Context, s store.Store, opts DriveOptions) {
	if opts.Clients == 0 {
		opts.Clients = 5
	}
	if opts.Keys == 0 {
		opts.Keys = 3
	}
	if opts.Timeout == 0 {
		opts.Timeout = 5 * time.Second
	}
	var wg sync.WaitGroup
	for c := range opts.Clients {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(opts.Seed, uint64(c)))
			known := map[string]int64{} // the last revision seen of a key
			for n := 0; ctx.Err() == nil; n++ {
				runtime.Gosched() // or one client does everything
				op := Operation{Client: c, Key: fmt.Sprint("key", r.IntN(opts.Keys)), Kind: "get"}
				switch p := r.IntN(10); {
				case p < 4:
					op.Kind, op.Value = "put", fmt.Sprintf("%s/%d/%d", opts.Tag, c, n)
				case p == 4:
					op.Kind = "delete"
				}
				if op.Kind != "get" {
					switch r.IntN(5) {
					case 0, 1:
						if op.At = known[op.Key]; op.At > 0 {
							op.If = "at"
						} else {
							op.If = "absent"
						}
					case 2:
						op.If = "present"
					}
				}
				op.Call = time.Now().UnixNano()
				if opts.Started != nil {
					opts.Started(op)
				}
				cctx, cancel := context.WithTimeout(ctx, opts.Timeout)
				closed := do(cctx, s, &op)
				cancel()
				op.Return = time.Now().UnixNano()
				if op.Outcome == "ok" || op.Outcome == "conflict" {
					known[op.Key] = op.Revision
					if op.Kind == "delete" && op.Outcome == "ok" {
						known[op.Key] = 0
					}
				}
				if opts.Done != nil {
					opts.Done(op)
				}
				if closed {
					return
				}
			}
		})
	}
	wg.Wait()
}

// do makes the call and fills in its outcome.
func do(ctx context.Context, s store.Store, op *Operation) (closed bool) {
	if op.Kind == "get" {
		res, err := s.Get(ctx, op.Key, 0)
		op.Outcome = "ok"
		if err != nil {
			op.Outcome = "failed"
		} else if res.KV != nil {
			op.Value, op.Revision = string(res.KV.Value), res.KV.ModRevision
		}
		return errors.Is(err, store.ErrClosed)
	}
	cond := store.Any()
	switch op.If {
	case "absent":
		cond = store.Absent()
	case "present":
		cond = store.Present()
	case "at":
		cond = store.At(op.At)
	}
	req := store.Put(op.Key, []byte(op.Value), cond)
	if op.Kind == "delete" {
		req = store.Delete(op.Key, cond)
	}
	rev, err := s.Commit(ctx, req)
	var conflict *store.ConflictError
	switch {
	case err == nil:
		op.Outcome, op.Revision = "ok", rev
	case errors.As(err, &conflict):
		op.Outcome = "conflict"
		if conflict.Current != nil {
			op.Revision = conflict.Current.ModRevision
		}
	case errors.Is(err, store.ErrUnknownOutcome):
		op.Outcome = "unknown"
	default:
		op.Outcome = "failed"
	}
	return errors.Is(err, store.ErrClosed)
}

// keyState is what the model knows of one key.
type keyState struct {
	value   string
	rev     int64 // 0 if absent, unknownRev if put by a commit whose answer was lost
	highest int64 // revision of any known commit of the key
}

const unknownRev = -1

// forever is after every other time in a history.
const forever = int64(1) << 62

// Linearizable returns an error if the history is not what a store could have done that does one
// operation at a time, each between its call and its return. An operation of unknown outcome
// may have happened at any time after its call until its Return, or ever after if that is 0,
// or not at all.
func Linearizable(history []Operation) error {
	byKey := map[string][]porcupine.Operation{}
	for _, op := range history {
		if op.Outcome == "failed" || op.Kind == "get" && op.Outcome != "ok" {
			continue
		}
		end := op.Return
		if end == 0 {
			end = forever
		}
		if op.Outcome == "" {
			op.Outcome = "unknown"
		}
		byKey[op.Key] = append(byKey[op.Key], porcupine.Operation{ClientId: op.Client, Input: op, Call: op.Call, Output: op, Return: end})
	}
	nd := porcupine.NondeterministicModel{
		Init: func() []any { return []any{keyState{}} },
		Step: func(s, in, _ any) []any { return step(s.(keyState), in.(Operation)) },
	}
	model := nd.ToModel()
	for key, ops := range byKey {
		slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
		switch porcupine.CheckOperationsTimeout(model, ops, 30*time.Second) {
		case porcupine.Illegal:
			return fmt.Errorf("the history of %q, %d operations, is not linearizable; it ends with %s", key, len(ops), ops[len(ops)-1].Input)
		case porcupine.Unknown:
			return fmt.Errorf("the history of %q, %d operations, takes too long to check", key, len(ops))
		}
	}
	return nil
}

// step returns the states that op can lead to.
func step(s keyState, op Operation) []any {
	if op.Kind == "get" {
		switch {
		case op.Revision == 0:
			return keep(s, s.rev == 0)
		case s.rev == unknownRev && s.value == op.Value && op.Revision > s.highest:
			s.rev, s.highest = op.Revision, op.Revision
			return []any{s}
		}
		return keep(s, s.rev == op.Revision && s.value == op.Value)
	}
	// holds and fails tell whether the condition can hold, and can fail, in this state.
	var holds, fails bool
	switch op.If {
	case "":
		holds = true
	case "absent":
		holds = s.rev == 0
		fails = !holds
	case "present":
		holds = s.rev != 0
		fails = !holds
	case "at":
		holds = s.rev == op.At || s.rev == unknownRev && op.At > s.highest
		fails = s.rev != op.At
	}
	next := keyState{highest: s.highest}
	if op.Kind == "put" {
		next.value, next.rev = op.Value, unknownRev
	}
	switch op.Outcome {
	case "conflict":
		if !fails {
			return nil
		}
		if s.rev == unknownRev && op.Revision > s.highest {
			s.rev, s.highest = op.Revision, op.Revision
			return []any{s}
		}
		return keep(s, s.rev == op.Revision)
	case "ok":
		if op.Kind == "delete" && s.rev == 0 && holds {
			return []any{s} // nothing to delete
		}
		if !holds || op.Revision <= s.highest {
			return nil
		}
		next.highest = op.Revision
		if op.Kind == "put" {
			next.rev = op.Revision
		}
		return []any{next}
	}
	// Unknown: it may have happened or not.
	out := []any{s}
	if holds {
		out = append(out, next)
	}
	return out
}

func keep(s keyState, ok bool) []any {
	if !ok {
		return nil
	}
	return []any{s}
}

// Recorder collects the operations of Drive.
type Recorder struct {
	mu  sync.Mutex
	ops []Operation
}

// Done records an operation; it is for DriveOptions.Done.
func (r *Recorder) Done(op Operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, op)
}

// Operations returns what has been recorded.
func (r *Recorder) Operations() []Operation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ops)
}

func linearizableChecks() []check {
	return []check{{name: "Linearizable", run: func(e *env) {
		s := e.new()
		for seed := range uint64(3) {
			var rec Recorder
			ctx, cancel := context.WithCancel(e.ctx)
			var mu sync.Mutex
			n := 0
			Drive(ctx, s, DriveOptions{Seed: seed, Tag: fmt.Sprint(seed), Done: func(op Operation) {
				rec.Done(op)
				mu.Lock()
				defer mu.Unlock()
				if n++; n >= 400 {
					cancel()
				}
			}})
			cancel()
			// Each run starts from what the one before it left.
			e.ok(Linearizable(rec.Operations()), "random operations of several clients")
			for i := range 3 {
				e.del(s, fmt.Sprint("key", i))
			}
		}
	}}}
}
