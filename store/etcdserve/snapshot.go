package etcdserve

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"

	"go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/keelson/keelson/store"
)

// snapshotPiece is how much of a snapshot one message has.
const snapshotPiece = 1 << 16

// Snapshot sends what etcd would: the file of its storage with the pairs of one revision, and the file's
// SHA-256. "etcdutl snapshot restore" makes a member of it.
func (m *maintenanceServer) Snapshot(_ *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) (err error) {
	f, err := os.CreateTemp(m.s.opts.TempDir, "etcdserve-snapshot-*")
	if err != nil {
		return grpcError(err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	rev, err := m.s.export(stream.Context(), f.Name())
	if err != nil {
		return grpcError(err)
	}
	info, err := f.Stat()
	if err != nil {
		return grpcError(err)
	}
	res := &pb.SnapshotResponse{Header: m.s.header(rev), RemainingBytes: uint64(info.Size()), Version: storageVersion}
	sum, piece := sha256.New(), make([]byte, snapshotPiece)
	for res.RemainingBytes > 0 {
		n, err := io.ReadFull(f, piece[:min(snapshotPiece, res.RemainingBytes)])
		if err != nil {
			return grpcError(err)
		}
		sum.Write(piece[:n])
		res.RemainingBytes -= uint64(n)
		res.Blob = append([]byte{}, piece[:n]...) // the one before may still be on its way
		if err := stream.Send(res); err != nil {
			return err
		}
	}
	res.Blob = sum.Sum(nil)
	return stream.Send(res)
}

// The buckets of etcd's storage that something is put into here. There have to be the others, too.
var (
	bucketKeys   = []byte("key")
	bucketMeta   = []byte("meta")
	bucketLeases = []byte("lease")
)

func otherBuckets() []string {
	return []string{"alarm", "cluster", "members", "members_removed", "auth", "authUsers", "authRoles"}
}

// export writes the pairs of the newest revision into a file in the format of etcd's storage, in
// which all history before it is compacted.
func (s *Server) export(ctx context.Context, file string) (rev int64, err error) {
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range append(otherBuckets(), string(bucketKeys), string(bucketMeta), string(bucketLeases)) {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if rev, err = s.exportKeys(ctx, db); err != nil {
		return 0, err
	}
	return rev, db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		at := revisionKey(rev, 0)
		one := binary.BigEndian.AppendUint64(nil, 1)
		return errors.Join(
			meta.Put([]byte("scheduledCompactRev"), at), meta.Put([]byte("finishedCompactRev"), at),
			meta.Put([]byte("consistent_index"), one), meta.Put([]byte("term"), one),
			meta.Put([]byte("storageVersion"), []byte(storageVersion)),
			s.exportLeases(tx.Bucket(bucketLeases)),
		)
	})
}

// revisionKey is what etcd stores the change number sub of a revision under.
func revisionKey(rev, sub int64) []byte {
	b := append(binary.BigEndian.AppendUint64(nil, uint64(rev)), '_')
	return binary.BigEndian.AppendUint64(b, uint64(sub))
}

func (s *Server) exportKeys(ctx context.Context, db *bbolt.DB) (rev int64, err error) {
	subs := map[int64]int64{} // how many pairs of each revision there have been
	v := newView(s.s, 0)
	after := ""
	for more := true; more; {
		res, err := s.s.List(ctx, store.ListOptions{After: after, Limit: page, Revision: v.rev})
		if err != nil {
			return 0, err
		}
		v.rev, more = res.Revision, res.More
		if len(res.KVs) == 0 {
			break
		}
		beside, err := v.beside(ctx, "", after, res.KVs[len(res.KVs)-1].Key)
		if err != nil {
			return 0, err
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketKeys)
			for i := range res.KVs {
				if hidden(res.KVs[i].Key) {
					continue
				}
				kv, err := toKV(&res.KVs[i], beside.of(res.KVs[i].Key))
				if err != nil {
					return err
				}
				value, err := proto.Marshal(kv)
				if err != nil {
					return err
				}
				if err := b.Put(revisionKey(kv.ModRevision, subs[kv.ModRevision]), value); err != nil {
					return err
				}
				subs[kv.ModRevision]++
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		after = res.KVs[len(res.KVs)-1].Key
	}
	return v.rev, nil
}

func (s *Server) exportLeases(b *bbolt.Bucket) error {
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	for id, l := range s.leases.byID {
		if l.granting {
			continue
		}
		value := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(id))
		value = protowire.AppendVarint(protowire.AppendTag(value, 2, protowire.VarintType), uint64(l.ttl))
		if err := b.Put(binary.BigEndian.AppendUint64(nil, uint64(id)), value); err != nil {
			return err
		}
	}
	return nil
}
