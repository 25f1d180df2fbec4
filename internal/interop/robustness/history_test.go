package robustness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"go.etcd.io/etcd/tests/v3/robustness/model"

	"github.com/keelson/keelson/store"
)

// change is what a revision did to a key; a line of a history file has those of one revision.
type change struct {
	Key     string
	Value   []byte
	Deleted bool
}

type revision struct {
	Revision int64
	Changes  []change
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
				r := revision{Revision: b.Events[0].KV.ModRevision}
				for len(b.Events) > 0 && b.Events[0].KV.ModRevision == r.Revision {
					if ev := b.Events[0]; !strings.HasPrefix(ev.KV.Key, "\x00") { // etcdserve's own
						r.Changes = append(r.Changes, change{ev.KV.Key, ev.KV.Value, ev.Deleted})
					}
					b.Events = b.Events[1:]
				}
				line, err := json.Marshal(r)
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

// requests returns what, one after the other, leads to the revisions of a history.
func requests(history []revision) (out []model.EtcdRequest) {
	for _, r := range history {
		txn := &model.TxnRequest{}
		for _, c := range r.Changes {
			op := model.EtcdOperation{Type: model.PutOperation, Put: model.PutOptions{Key: c.Key, Value: model.ToValueOrHash(string(c.Value))}}
			if c.Deleted {
				op = model.EtcdOperation{Type: model.DeleteOperation, Delete: model.DeleteOptions{Key: c.Key}}
			}
			txn.OperationsOnSuccess = append(txn.OperationsOnSuccess, op)
		}
		out = append(out, model.EtcdRequest{Type: model.Txn, Txn: txn})
	}
	return out
}
