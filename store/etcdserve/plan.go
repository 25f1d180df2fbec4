package etcdserve

import (
	"maps"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// plan is what is known of a transaction before it is run.
type plan struct {
	keys   []string
	ranges bool
	writes int // operations that write
}

func (p *plan) key(key, end []byte) error {
	if len(key) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	if hidden(string(key)) {
		return status.Errorf(codes.InvalidArgument, "etcdserve: keys that begin with %q are not for clients", hiddenPrefix)
	}
	p.keys = append(p.keys, string(key))
	p.ranges = p.ranges || len(end) > 0
	return nil
}

// txn checks a transaction and the ones in it.
func (p *plan) txn(r *pb.TxnRequest, maxOps int) error {
	if err := p.nested(r, maxOps); err != nil || p.writes < 2 {
		return err
	}
	_, err := txnWrites(r)
	return err
}

// nested checks a transaction, in which those that are in it may have as many operations as it leaves them.
func (p *plan) nested(r *pb.TxnRequest, maxOps int) error {
	n := max(len(r.Compare), len(r.Success), len(r.Failure))
	if n > maxOps {
		return rpctypes.ErrGRPCTooManyOps
	}
	for _, c := range r.Compare {
		if err := p.key(c.Key, c.RangeEnd); err != nil {
			return err
		}
	}
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			if err := p.op(op, maxOps-n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *plan) op(op *pb.RequestOp, maxOps int) error {
	switch r := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		if _, ok := pb.RangeRequest_SortOrder_name[int32(r.RequestRange.SortOrder)]; !ok {
			return rpctypes.ErrGRPCInvalidSortOption
		}
		if _, ok := pb.RangeRequest_SortTarget_name[int32(r.RequestRange.SortTarget)]; !ok {
			return rpctypes.ErrGRPCInvalidSortOption
		}
		return p.key(r.RequestRange.Key, r.RequestRange.RangeEnd)
	case *pb.RequestOp_RequestPut:
		p.writes++
		if r.RequestPut.IgnoreValue && len(r.RequestPut.Value) > 0 {
			return rpctypes.ErrGRPCValueProvided
		}
		if r.RequestPut.IgnoreLease && r.RequestPut.Lease != 0 {
			return rpctypes.ErrGRPCLeaseProvided
		}
		return p.key(r.RequestPut.Key, nil)
	case *pb.RequestOp_RequestDeleteRange:
		p.writes++
		return p.key(r.RequestDeleteRange.Key, r.RequestDeleteRange.RangeEnd)
	case *pb.RequestOp_RequestTxn:
		return p.nested(r.RequestTxn, maxOps)
	}
	return status.Error(codes.InvalidArgument, "etcdserve: an operation of a transaction is empty")
}

// writes is what operations may write.
type writes struct {
	puts    map[string]bool
	deletes []interval
}

// add adds what is done besides, or returns an error if a key would be put twice, or put and deleted.
// etcd allows it that a transaction within one deletes what another one before it has put, which a
// store's commit could not express; it is refused here.
func (w *writes) add(other writes) error {
	for key := range other.puts {
		if w.puts[key] || deletes(w.deletes, key) {
			return rpctypes.ErrGRPCDuplicateKey
		}
	}
	for key := range w.puts {
		if deletes(other.deletes, key) {
			return rpctypes.ErrGRPCDuplicateKey
		}
	}
	w.join(other)
	return nil
}

// join adds what is done instead.
func (w *writes) join(other writes) {
	if w.puts == nil {
		w.puts = map[string]bool{}
	}
	maps.Copy(w.puts, other.puts)
	w.deletes = append(w.deletes, other.deletes...)
}

func deletes(in []interval, key string) bool {
	for _, d := range in {
		if d.contains(key) {
			return true
		}
	}
	return false
}

func txnWrites(r *pb.TxnRequest) (w writes, err error) {
	if w, err = opsWrites(r.Success); err != nil {
		return w, err
	}
	failure, err := opsWrites(r.Failure)
	w.join(failure)
	return w, err
}

func opsWrites(ops []*pb.RequestOp) (w writes, err error) {
	for _, op := range ops {
		var one writes
		switch r := op.Request.(type) {
		case *pb.RequestOp_RequestPut:
			one.puts = map[string]bool{string(r.RequestPut.Key): true}
		case *pb.RequestOp_RequestDeleteRange:
			one.deletes = []interval{newInterval(r.RequestDeleteRange.Key, r.RequestDeleteRange.RangeEnd)}
		case *pb.RequestOp_RequestTxn:
			if one, err = txnWrites(r.RequestTxn); err != nil {
				return w, err
			}
		default:
			continue
		}
		if err := w.add(one); err != nil {
			return w, err
		}
	}
	return w, nil
}
