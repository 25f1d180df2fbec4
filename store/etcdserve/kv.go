package etcdserve

import (
	"context"
	"errors"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/keelson/keelson/store"
)

type kvServer struct {
	pb.UnimplementedKVServer
	s *Server
}

// Every request is a transaction of one operation, if it is not one of several.

func (k *kvServer) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	res, err := k.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: r}}}})
	if err != nil {
		return nil, err
	}
	out := res.Responses[0].GetResponseRange()
	out.Header = res.Header
	return out, nil
}

// streamChunk is how many pairs one message of a streamed range has.
const streamChunk = 1000

func (k *kvServer) RangeStream(r *pb.RangeRequest, stream pb.KV_RangeStreamServer) error {
	res, err := k.Range(stream.Context(), r)
	if err != nil {
		return err
	}
	for len(res.Kvs) > streamChunk {
		part := &pb.RangeStreamResponse{RangeResponse: &pb.RangeResponse{Kvs: res.Kvs[:streamChunk]}}
		if err := stream.Send(part); err != nil {
			return err
		}
		res.Kvs = res.Kvs[streamChunk:]
	}
	return stream.Send(&pb.RangeStreamResponse{RangeResponse: res})
}

func (k *kvServer) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	res, err := k.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: r}}}})
	if err != nil {
		return nil, err
	}
	out := res.Responses[0].GetResponsePut()
	out.Header = res.Header
	return out, nil
}

func (k *kvServer) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	res, err := k.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}}})
	if err != nil {
		return nil, err
	}
	out := res.Responses[0].GetResponseDeleteRange()
	out.Header = res.Header
	return out, nil
}

func (k *kvServer) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	p := plan{}
	if err := p.txn(r, k.s.opts.MaxTxnOps); err != nil {
		return nil, err
	}
	unlock := func() {}
	switch {
	case p.writes > 0 && p.ranges:
		unlock = k.s.locks.everything()
	case p.writes > 0:
		unlock = k.s.locks.keys(p.keys)
	}
	defer unlock()
	for {
		res, err := k.s.try(ctx, r)
		// A conflict comes from one who does not write through this server, a compaction may
		// overtake reads of what was the newest revision.
		if errors.Is(err, store.ErrConflict) || errors.Is(err, errOvertaken) {
			continue
		}
		if err != nil {
			return nil, grpcError(err)
		}
		return res, nil
	}
}

// errOvertaken says that the revision that was the newest when a request began is compacted.
var errOvertaken = errors.New("etcdserve: overtaken by compaction")

// try runs a transaction once.
func (s *Server) try(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	v := newView(s.s, 0)
	x := &execution{s: s, v: v}
	res, err := x.txn(ctx, r)
	if err != nil {
		if errors.Is(err, store.ErrCompacted) && !x.old {
			return nil, errOvertaken
		}
		return nil, err
	}
	rev, err := s.commit(ctx, v)
	if err != nil {
		return nil, err
	}
	// etcd's header has the newest revision, also when what is read is older.
	if rev == 0 {
		if rev = v.rev; rev == 0 || x.old {
			if rev, _, err = s.s.Revision(ctx); err != nil {
				return nil, err
			}
		}
	}
	x.fill(rev)
	res.Header = s.header(rev)
	return res, nil
}

// execution is a transaction that is being run.
type execution struct {
	s       *Server
	v       *view
	old     bool // something was read at a revision of the client's
	results []*pb.ResponseHeader
}

// header returns a header whose revision is filled in later.
func (x *execution) header() *pb.ResponseHeader {
	h := x.s.header(0)
	x.results = append(x.results, h)
	return h
}

// fill fills in the revision of the transaction.
func (x *execution) fill(rev int64) {
	for _, h := range x.results {
		h.Revision = rev
	}
	for _, c := range x.v.changed {
		if c.after != nil && c.after.ModRevision == pendingRev {
			c.after.ModRevision = rev
			if c.after.CreateRevision == pendingRev {
				c.after.CreateRevision = rev
			}
		}
	}
}

func (x *execution) txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	ok := true
	for _, c := range r.Compare {
		holds, err := x.compare(ctx, c)
		if err != nil {
			return nil, err
		}
		ok = ok && holds
	}
	ops := r.Success
	if !ok {
		ops = r.Failure
	}
	res := &pb.TxnResponse{Header: x.header(), Succeeded: ok}
	for _, op := range ops {
		out, err := x.op(ctx, op)
		if err != nil {
			return nil, err
		}
		res.Responses = append(res.Responses, out)
	}
	return res, nil
}

func (x *execution) op(ctx context.Context, op *pb.RequestOp) (*pb.ResponseOp, error) {
	switch r := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		if r.RequestRange.Revision > 0 {
			x.old = true
			if err := x.s.readable(ctx, r.RequestRange.Revision); err != nil {
				return nil, err
			}
		}
		res, err := x.v.rangeKeys(ctx, r.RequestRange)
		if err != nil {
			return nil, err
		}
		res.Header = x.header()
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: res}}, nil
	case *pb.RequestOp_RequestPut:
		res, err := x.put(ctx, r.RequestPut)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: res}}, err
	case *pb.RequestOp_RequestDeleteRange:
		res, err := x.deleteRange(ctx, r.RequestDeleteRange)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: res}}, err
	}
	res, err := x.txn(ctx, op.GetRequestTxn())
	return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: res}}, err
}

func (x *execution) put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	key := string(r.Key)
	before, err := x.v.get(ctx, key)
	if err != nil {
		return nil, err
	}
	if before == nil && (r.IgnoreValue || r.IgnoreLease) {
		return nil, rpctypes.ErrGRPCKeyNotFound
	}
	after := &mvccpb.KeyValue{
		Key: r.Key, Value: r.Value, Lease: r.Lease, Version: 1, CreateRevision: pendingRev, ModRevision: pendingRev,
	}
	if before != nil {
		after.Version, after.CreateRevision = before.Version+1, before.CreateRevision
		if r.IgnoreValue {
			after.Value = before.Value
		}
		if r.IgnoreLease {
			after.Lease = before.Lease
		}
	}
	if after.Lease != 0 && !x.s.leases.exists(after.Lease) {
		return nil, rpctypes.ErrGRPCLeaseNotFound
	}
	x.set(key, before, after)
	res := &pb.PutResponse{Header: x.header()}
	if r.PrevKv {
		res.PrevKv = before
	}
	return res, nil
}

func (x *execution) deleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	kvs, _, err := x.v.each(ctx, newInterval(r.Key, r.RangeEnd), 0, false)
	if err != nil {
		return nil, err
	}
	for _, kv := range kvs {
		x.set(string(kv.Key), kv, nil)
	}
	res := &pb.DeleteRangeResponse{Header: x.header(), Deleted: int64(len(kvs))}
	if r.PrevKv {
		res.PrevKvs = kvs
	}
	return res, nil
}

func (x *execution) set(key string, before, after *mvccpb.KeyValue) {
	if c := x.v.changed[key]; c != nil {
		c.after = after
		return
	}
	x.v.changed[key] = &change{before: before, after: after}
	x.v.order = append(x.v.order, key)
}

func (x *execution) compare(ctx context.Context, c *pb.Compare) (bool, error) {
	r := newInterval(c.Key, c.RangeEnd)
	kvs, _, err := x.v.each(ctx, r, 0, c.Target != pb.Compare_VALUE)
	if err != nil {
		return false, err
	}
	if len(kvs) == 0 {
		if c.Target == pb.Compare_VALUE {
			return false, nil // a value that is not there compares with nothing
		}
		return r.single() && compareKV(&mvccpb.KeyValue{}, c), nil
	}
	for _, kv := range kvs {
		if !compareKV(kv, c) {
			return false, nil
		}
	}
	return true, nil
}

func compareKV(kv *mvccpb.KeyValue, c *pb.Compare) bool {
	order := 0
	num := func(a, b int64) {
		if a < b {
			order = -1
		} else if a > b {
			order = 1
		}
	}
	switch c.Target {
	case pb.Compare_VERSION:
		num(kv.Version, c.GetVersion())
	case pb.Compare_CREATE:
		num(kv.CreateRevision, c.GetCreateRevision())
	case pb.Compare_MOD:
		num(kv.ModRevision, c.GetModRevision())
	case pb.Compare_VALUE:
		order = strings.Compare(string(kv.Value), string(c.GetValue()))
	case pb.Compare_LEASE:
		num(kv.Lease, c.GetLease())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return order == 0
	case pb.Compare_NOT_EQUAL:
		return order != 0
	case pb.Compare_GREATER:
		return order > 0
	}
	return order < 0
}
