package robustness

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/tests/v3/robustness/model"
	"go.etcd.io/etcd/tests/v3/robustness/report"

	"github.com/keelson/keelson/store"
)

// change is what a revision did to a key; a line of a history file has those of one revision.
type change struct {
	Key     string
	Value   []byte
	Deleted bool
	Lease   int64 // that the key has, or had
}

type revision struct {
	Revision int64
	Changes  []change
	// Ended are the leases whose records went.
	Ended []int64
}

// What etcdserve writes beside the keys, see its keys.go.
const (
	hidden      = "\x00etcd/"
	sidePrefix  = hidden + "k/"
	leasePrefix = hidden + "l/"
)

// newRevision makes a revision of its events.
func newRevision(events []store.Event) revision {
	r := revision{Revision: events[0].KV.ModRevision}
	leases := map[string]int64{}
	for _, ev := range events {
		if key, ok := strings.CutPrefix(ev.KV.Key, sidePrefix); ok {
			value := ev.KV.Value
			if ev.Deleted {
				value = ev.Prev.Value
			}
			_, n := binary.Varint(value) // the key's version
			leases[key], _ = binary.Varint(value[n:])
		}
		if id, ok := strings.CutPrefix(ev.KV.Key, leasePrefix); ok && ev.Deleted {
			n, _ := strconv.ParseUint(id, 16, 64)
			r.Ended = append(r.Ended, int64(n))
		}
	}
	for _, ev := range events {
		if !strings.HasPrefix(ev.KV.Key, hidden) {
			r.Changes = append(r.Changes, change{ev.KV.Key, ev.KV.Value, ev.Deleted, leases[ev.KV.Key]})
		}
	}
	return r
}

// revoked returns the lease whose end is all that happened in a revision, 0 if it is not that. The record of a lease that
// ended without keys goes with some other commit.
func (r revision) revoked() int64 {
	for _, id := range r.Ended {
		if !slices.ContainsFunc(r.Changes, func(c change) bool { return !c.Deleted || c.Lease != id }) {
			return id
		}
	}
	return 0
}

// readHistory reads a history file, which may end in the middle of a line.
func readHistory(file string) ([]revision, error) {
	b, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	var out []revision
	for line := range bytes.Lines(b) {
		var r revision
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, err
		}
		if len(out) > 0 && r.Revision != out[len(out)-1].Revision+1 {
			return nil, fmt.Errorf("in the history %d follows %d", r.Revision, out[len(out)-1].Revision)
		}
		out = append(out, r)
	}
	return out, nil
}

// writeHistory appends to a file, beyond compactions and crashes, what a store goes through, until the returned
// function is called; it returns when the file has what there was when it was called.
func writeHistory(s store.Store, file string) (stop func(), err error) {
	before, err := readHistory(file)
	if err != nil {
		return nil, err
	}
	after := int64(1)
	var whole []byte
	for _, r := range before {
		after = r.Revision
		line, err := json.Marshal(r)
		if err != nil {
			return nil, err
		}
		whole = append(append(whole, line...), '\n')
	}
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	w, err := s.Watch(context.Background(), store.WatchOptions{After: after})
	if err != nil {
		f.Close()
		return nil, err
	}
	last, done := make(chan int64, 1), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(done)
		defer f.Close()
		defer w.Close()
		end := int64(1) << 62
		for reached := after; reached < end; {
			b, err := w.Next(ctx)
			if ctx.Err() != nil && end == 1<<62 {
				ctx, end = context.Background(), <-last
				continue
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "history:", err)
				return
			}
			reached = b.Revision
			for len(b.Events) > 0 {
				n := 0
				for n < len(b.Events) && b.Events[n].KV.ModRevision == b.Events[0].KV.ModRevision {
					n++
				}
				line, err := json.Marshal(newRevision(b.Events[:n]))
				b.Events = b.Events[n:]
				if err == nil {
					_, err = f.Write(append(line, '\n'))
				}
				if err != nil {
					fmt.Fprintln(os.Stderr, "history:", err)
					return
				}
			}
		}
	}()
	return func() {
		rev, _, err := s.Revision(context.Background())
		if err != nil {
			fmt.Fprintln(os.Stderr, "history:", err)
		}
		last <- rev
		cancel()
		<-done
	}, nil
}

// requests returns what, one after the other, leads to the revisions of a history. The changes of one revision are in the order
// in which the client that made them has asked for them, which says nothing of how the server keeps that.
func requests(history []revision, reports []report.ClientReport) (out []model.EtcdRequest) {
	asked, granted := transactions(reports), map[int64]bool{}
	for _, r := range history {
		if id := r.revoked(); id != 0 {
			out = append(out, model.EtcdRequest{Type: model.LeaseRevoke, LeaseRevoke: &model.LeaseRevokeRequest{LeaseID: id}})
			continue
		}
		txn := &model.TxnRequest{}
		for _, c := range r.Changes {
			if !c.Deleted && c.Lease != 0 && !granted[c.Lease] {
				granted[c.Lease] = true
				out = append(out, model.EtcdRequest{Type: model.LeaseGrant, LeaseGrant: &model.LeaseGrantRequest{LeaseID: c.Lease}})
			}
			op := model.EtcdOperation{Type: model.PutOperation, Put: model.PutOptions{
				Key: c.Key, Value: model.ToValueOrHash(string(c.Value)), LeaseID: c.Lease,
			}}
			if c.Deleted {
				op = model.EtcdOperation{Type: model.DeleteOperation, Delete: model.DeleteOptions{Key: c.Key}}
			}
			txn.OperationsOnSuccess = append(txn.OperationsOnSuccess, op)
		}
		for _, op := range txn.OperationsOnSuccess {
			order := asked[model.PutOptions{Key: op.Put.Key, Value: op.Put.Value}]
			if op.Type != model.PutOperation || order == nil {
				continue
			}
			slices.SortStableFunc(txn.OperationsOnSuccess, func(a, b model.EtcdOperation) int {
				return cmp.Compare(slices.Index(order, written(a)), slices.Index(order, written(b)))
			})
			break
		}
		out = append(out, model.EtcdRequest{Type: model.Txn, Txn: txn})
	}
	return out
}

// written is the key that an operation writes, "" if it writes none.
func written(op model.EtcdOperation) string {
	switch op.Type {
	case model.PutOperation:
		return op.Put.Key
	case model.DeleteOperation:
		return op.Delete.Key
	}
	return ""
}

// transactions returns the keys that transactions were asked to write, by each of their puts, whose values are unique.
func transactions(reports []report.ClientReport) map[model.PutOptions][]string {
	out := map[model.PutOptions][]string{}
	for _, r := range reports {
		for _, op := range r.KeyValue {
			in := op.Input.(model.EtcdRequest)
			if in.Type != model.Txn {
				continue
			}
			for _, ops := range [][]model.EtcdOperation{in.Txn.OperationsOnSuccess, in.Txn.OperationsOnFailure} {
				var keys []string
				for _, op := range ops {
					keys = append(keys, written(op))
				}
				for _, op := range ops {
					if op.Type == model.PutOperation {
						out[model.PutOptions{Key: op.Put.Key, Value: op.Put.Value}] = keys
					}
				}
			}
		}
	}
	return out
}
