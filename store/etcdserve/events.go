package etcdserve

import (
	"slices"
	"strings"

	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson/keelson/store"
)

// events makes etcd's events of the store's. The records beside the keys are in the same
// revision as the keys.
func (w *watch) events(in []store.Event) ([]*mvccpb.Event, error) {
	var out []*mvccpb.Event
	for len(in) > 0 {
		rev, n := in[0].KV.ModRevision, 0
		for n < len(in) && in[n].KV.ModRevision == rev {
			n++
		}
		group := in[:n]
		in = in[n:]
		if rev < w.start {
			continue
		}
		changed, err := inOrder(group)
		if err != nil {
			return nil, err
		}
		for _, ev := range changed {
			if !w.r.contains(ev.KV.Key) || ev.Deleted && w.noDelete || !ev.Deleted && w.noPut {
				continue
			}
			pe, err := toEvent(ev, find(group, sidePrefix+ev.KV.Key), w.prev && rev != w.noPrev)
			if err != nil {
				return nil, err
			}
			out = append(out, pe)
		}
	}
	return out, nil
}

// toEvent makes etcd's event of a store's and of what happened to the record beside the key.
func toEvent(ev, beside *store.Event, prev bool) (*mvccpb.Event, error) {
	if beside == nil {
		beside = &store.Event{}
	}
	out := &mvccpb.Event{Type: mvccpb.Event_PUT}
	var err error
	if ev.Deleted {
		out.Type = mvccpb.Event_DELETE
		out.Kv = &mvccpb.KeyValue{Key: []byte(ev.KV.Key), ModRevision: ev.KV.ModRevision}
	} else {
		var d *store.KV
		if beside.KV.Key != "" && !beside.Deleted {
			d = &beside.KV
		}
		if out.Kv, err = toKV(&ev.KV, d); err != nil {
			return nil, err
		}
	}
	if prev && ev.Prev != nil {
		out.PrevKv, err = toKV(ev.Prev, beside.Prev)
	}
	return out, err
}

// find returns the event of a key, nil if there is none.
func find(group []store.Event, key string) *store.Event {
	i, ok := slices.BinarySearchFunc(group, key, func(e store.Event, key string) int { return strings.Compare(e.KV.Key, key) })
	if !ok {
		return nil
	}
	return &group[i]
}

// inOrder returns the events of one revision that clients see, in the order in which its transaction made them.
func inOrder(group []store.Event) ([]*store.Event, error) {
	changed := make([]*store.Event, 0, len(group))
	for i := range group {
		if !hidden(group[i].KV.Key) {
			changed = append(changed, &group[i])
		}
	}
	record := find(group, orderKey)
	if record == nil || record.Deleted {
		return changed, nil
	}
	order, err := decodeOrder(record.KV.Value, len(changed))
	if err != nil {
		return nil, err
	}
	out := make([]*store.Event, len(order))
	for i, n := range order {
		out[i] = changed[n]
	}
	return out, nil
}
