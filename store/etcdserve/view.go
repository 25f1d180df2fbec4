package etcdserve

import (
	"cmp"
	"context"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson/keelson/store"
)

const page = 1000

// pendingRev stands for the revision that a transaction is going to have.
const pendingRev = int64(-1)

// view is the store at one revision, with what a transaction has changed so far on top.
type view struct {
	s       store.Store
	rev     int64 // 0 until the first read
	read    map[string]*mvccpb.KeyValue
	changed map[string]*change
	order   []string // the keys of changed, as the transaction came to them
}

// change is what a transaction does to a key.
type change struct {
	before *mvccpb.KeyValue
	after  *mvccpb.KeyValue // nil if deleted
}

func newView(s store.Store, rev int64) *view {
	return &view{s: s, rev: rev, read: map[string]*mvccpb.KeyValue{}, changed: map[string]*change{}}
}

// get returns a key as the transaction sees it.
func (v *view) get(ctx context.Context, key string) (*mvccpb.KeyValue, error) {
	if c, ok := v.changed[key]; ok {
		return c.after, nil
	}
	if kv, ok := v.read[key]; ok {
		return kv, nil
	}
	res, err := v.s.Get(ctx, key, v.rev)
	if err != nil {
		return nil, err
	}
	v.rev = res.Revision
	var beside store.GetResult
	if res.KV != nil {
		if beside, err = v.s.Get(ctx, sidePrefix+key, v.rev); err != nil {
			return nil, err
		}
	}
	kv, err := toKV(res.KV, beside.KV)
	if err == nil {
		v.read[key] = kv
	}
	return kv, err
}

// list returns up to limit pairs of an interval in order, without those that a transaction
// changed, and how many there are in all; limit 0 means all.
func (v *view) list(ctx context.Context, r interval, limit int64, keysOnly bool) (kvs []*mvccpb.KeyValue, total int64, err error) {
	prefix, exact := r.prefix()
	opts := store.ListOptions{Prefix: prefix, Revision: v.rev, Limit: page, KeysOnly: keysOnly}
	if r.key > prefix {
		// A store's lists start behind a key, etcd's at one.
		if last := len(r.key) - 1; r.key[last] == 0 {
			opts.After = r.key[:last]
		} else {
			opts.After = r.key
			kv, err := v.get(ctx, r.key)
			if err != nil {
				return nil, 0, err
			}
			opts.Revision = v.rev
			if kv != nil {
				kvs, total = append(kvs, kv), 1
			}
		}
	}
	full := func() bool { return limit > 0 && int64(len(kvs)) >= limit }
	for {
		opts.Limit = page
		if limit > 0 && !full() {
			opts.Limit = int(min(page, limit-int64(len(kvs))))
		}
		opts.KeysOnly = keysOnly || full()
		res, err := v.s.List(ctx, opts)
		if err != nil {
			return nil, 0, err
		}
		v.rev, opts.Revision = res.Revision, res.Revision
		var beside records
		if !full() && len(res.KVs) > 0 {
			if beside, err = v.beside(ctx, prefix, opts.After, res.KVs[len(res.KVs)-1].Key); err != nil {
				return nil, 0, err
			}
		}
		for i := range res.KVs {
			kv := &res.KVs[i]
			opts.After = kv.Key
			if !r.contains(kv.Key) {
				if kv.Key > r.key {
					return kvs, total, nil
				}
				continue
			}
			if hidden(kv.Key) {
				continue
			}
			total++
			if full() {
				continue
			}
			out, err := toKV(kv, beside.of(kv.Key))
			if err != nil {
				return nil, 0, err
			}
			kvs = append(kvs, out)
		}
		if !res.More {
			return kvs, total, nil
		}
		if full() && exact && res.Remaining >= 0 && !strings.HasPrefix(hiddenPrefix, prefix) {
			return kvs, total + res.Remaining, nil
		}
	}
}

// records are those beside keys, in the order of the keys.
type records []store.KV

// of returns the record beside a key, if there is one. It is called with keys in order.
func (r *records) of(key string) *store.KV {
	for len(*r) > 0 && (*r)[0].Key < sidePrefix+key {
		*r = (*r)[1:]
	}
	if len(*r) > 0 && (*r)[0].Key == sidePrefix+key {
		return &(*r)[0]
	}
	return nil
}

// beside returns the records beside the keys with the prefix behind after up to last.
func (v *view) beside(ctx context.Context, prefix, after, last string) (records, error) {
	opts := store.ListOptions{Prefix: sidePrefix + prefix, Revision: v.rev, Limit: page}
	if after != "" {
		opts.After = sidePrefix + after
	}
	var out records
	for {
		res, err := v.s.List(ctx, opts)
		if err != nil {
			return nil, err
		}
		out = append(out, res.KVs...)
		if !res.More || out[len(out)-1].Key >= sidePrefix+last {
			return out, nil
		}
		opts.After = out[len(out)-1].Key
	}
}

// each returns all pairs of an interval as the transaction sees them.
func (v *view) each(ctx context.Context, r interval, limit int64, keysOnly bool) ([]*mvccpb.KeyValue, int64, error) {
	if r.single() {
		kv, err := v.get(ctx, r.key)
		if kv == nil || err != nil {
			return nil, 0, err
		}
		return []*mvccpb.KeyValue{kv}, 1, nil
	}
	if r.end != "\x00" && r.key >= r.end {
		return nil, 0, nil
	}
	touched := false
	for key := range v.changed {
		touched = touched || r.contains(key)
	}
	if !touched {
		return v.list(ctx, r, limit, keysOnly)
	}
	kvs, _, err := v.list(ctx, r, 0, keysOnly)
	if err != nil {
		return nil, 0, err
	}
	kvs = slices.DeleteFunc(kvs, func(kv *mvccpb.KeyValue) bool { return v.changed[string(kv.Key)] != nil })
	for key, c := range v.changed {
		if r.contains(key) && c.after != nil {
			kvs = append(kvs, c.after)
		}
	}
	slices.SortFunc(kvs, func(a, b *mvccpb.KeyValue) int { return strings.Compare(string(a.Key), string(b.Key)) })
	total := int64(len(kvs))
	if limit > 0 && total > limit {
		kvs = kvs[:limit]
	}
	return kvs, total, nil
}

// rangeKeys answers a range request.
func (v *view) rangeKeys(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	at := v
	if r.Revision > 0 && r.Revision != v.rev {
		at = newView(v.s, r.Revision)
	}
	filtered := r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0
	sorted := r.SortOrder != pb.RangeRequest_NONE || r.SortTarget != pb.RangeRequest_KEY
	if r.SortTarget == pb.RangeRequest_KEY && r.SortOrder == pb.RangeRequest_ASCEND {
		sorted = false
	}
	limit := r.Limit
	switch {
	case r.CountOnly:
		limit = 1
	case filtered || sorted:
		limit = 0
	}
	byValue := sorted && r.SortTarget == pb.RangeRequest_VALUE
	kvs, total, err := at.each(ctx, newInterval(r.Key, r.RangeEnd), limit, (r.KeysOnly || r.CountOnly) && !byValue)
	if err != nil {
		return nil, err
	}
	res := &pb.RangeResponse{Count: total}
	if r.CountOnly {
		return res, nil
	}
	if filtered {
		kvs = slices.DeleteFunc(slices.Clone(kvs), func(kv *mvccpb.KeyValue) bool {
			return r.MinModRevision != 0 && kv.ModRevision < r.MinModRevision || r.MaxModRevision != 0 && kv.ModRevision > r.MaxModRevision ||
				r.MinCreateRevision != 0 && kv.CreateRevision < r.MinCreateRevision || r.MaxCreateRevision != 0 && kv.CreateRevision > r.MaxCreateRevision
		})
	}
	if sorted {
		kvs = sortKVs(kvs, r.SortOrder, r.SortTarget)
	}
	if r.Limit > 0 && int64(len(kvs)) > r.Limit {
		kvs = kvs[:r.Limit]
		res.More = true
	}
	if !filtered && !sorted {
		res.More = total > int64(len(kvs))
	}
	if r.KeysOnly {
		kvs = slices.Clone(kvs)
		for i, kv := range kvs {
			kvs[i] = &mvccpb.KeyValue{
				Key: kv.Key, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Version: kv.Version, Lease: kv.Lease,
			}
		}
	}
	res.Kvs = kvs
	return res, nil
}

func sortKVs(kvs []*mvccpb.KeyValue, order pb.RangeRequest_SortOrder, target pb.RangeRequest_SortTarget) []*mvccpb.KeyValue {
	kvs = slices.Clone(kvs)
	slices.SortStableFunc(kvs, func(a, b *mvccpb.KeyValue) int {
		if order == pb.RangeRequest_DESCEND {
			a, b = b, a
		}
		switch target {
		case pb.RangeRequest_VERSION:
			return cmp.Compare(a.Version, b.Version)
		case pb.RangeRequest_CREATE:
			return cmp.Compare(a.CreateRevision, b.CreateRevision)
		case pb.RangeRequest_MOD:
			return cmp.Compare(a.ModRevision, b.ModRevision)
		case pb.RangeRequest_VALUE:
			return strings.Compare(string(a.Value), string(b.Value))
		}
		return strings.Compare(string(a.Key), string(b.Key))
	})
	return kvs
}
