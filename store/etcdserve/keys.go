package etcdserve

import (
	"encoding/binary"
	"errors"
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson/keelson/store"
)

// Beside a key with a version above 1 or a lease there is a record of both, written in the
// same commit. A lease that has keys has a record too. A transaction whose changes are not in the order of
// their keys says in what order they are.
const (
	hiddenPrefix = "\x00etcd/"
	sidePrefix   = hiddenPrefix + "k/"
	leasePrefix  = hiddenPrefix + "l/"
	orderKey     = hiddenPrefix + "order"
)

var errSide = errors.New("etcdserve: a hidden record is malformed")

// side is what is known of a key beyond the store's pair.
type side struct{ version, lease int64 }

func (d side) needed() bool { return d.version > 1 || d.lease != 0 }

func (d side) encode() []byte {
	return binary.AppendVarint(binary.AppendVarint(nil, d.version), d.lease)
}

func decodeSide(b []byte) (side, error) {
	version, n := binary.Varint(b)
	if n <= 0 {
		return side{}, errSide
	}
	lease, m := binary.Varint(b[n:])
	if m <= 0 || n+m != len(b) || version < 1 {
		return side{}, errSide
	}
	return side{version, lease}, nil
}

// encodeOrder returns a record of the order in which keys were changed, nil if that is their own.
func encodeOrder(keys []string) []byte {
	if slices.IsSorted(keys) {
		return nil
	}
	sorted := slices.Sorted(slices.Values(keys))
	var b []byte
	for _, key := range keys {
		n, _ := slices.BinarySearch(sorted, key)
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

// decodeOrder returns which of n sorted keys was the first to be changed, the second, and so on.
func decodeOrder(b []byte, n int) ([]int, error) {
	out, seen := make([]int, 0, n), make([]bool, n)
	for len(b) > 0 {
		i, size := binary.Uvarint(b)
		if size <= 0 || i >= uint64(n) || seen[i] {
			return nil, errSide
		}
		seen[i] = true
		out, b = append(out, int(i)), b[size:]
	}
	if len(out) != n {
		return nil, errSide
	}
	return out, nil
}

// toKV makes etcd's pair of a store's and the record beside it. A record that is not of the same
// revision is from before somebody else wrote the key.
func toKV(kv, beside *store.KV) (*mvccpb.KeyValue, error) {
	if kv == nil {
		return nil, nil
	}
	d := side{version: 1}
	if kv.ModRevision != kv.CreateRevision {
		d.version = 2
	}
	if beside != nil && beside.ModRevision == kv.ModRevision {
		var err error
		if d, err = decodeSide(beside.Value); err != nil {
			return nil, err
		}
	}
	return &mvccpb.KeyValue{
		Key: []byte(kv.Key), Value: kv.Value, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision,
		Version: d.version, Lease: d.lease,
	}, nil
}

// locks makes writers of the same key wait for each other, instead of for conflicts; writers
// of ranges exclude all others.
type locks struct {
	all     sync.RWMutex
	stripes [256]sync.Mutex
}

var seed = maphash.MakeSeed()

// keys locks some keys and returns what unlocks them.
func (l *locks) keys(keys []string) (unlock func()) {
	var idx []int
	for _, k := range keys {
		idx = append(idx, int(maphash.String(seed, k)%uint64(len(l.stripes))))
	}
	slices.Sort(idx)
	idx = slices.Compact(idx)
	l.all.RLock()
	for _, i := range idx {
		l.stripes[i].Lock()
	}
	return func() {
		for _, i := range idx {
			l.stripes[i].Unlock()
		}
		l.all.RUnlock()
	}
}

func (l *locks) everything() (unlock func()) {
	l.all.Lock()
	return l.all.Unlock
}

// interval is etcd's [key, end), with "" for the key alone and "\x00" for no end.
type interval struct{ key, end string }

func newInterval(key, end []byte) interval { return interval{string(key), string(end)} }

func (r interval) single() bool { return r.end == "" }

func (r interval) contains(key string) bool {
	if r.single() {
		return key == r.key
	}
	return key >= r.key && (r.end == "\x00" || key < r.end)
}

// prefix returns a prefix that all keys of the interval have, and whether the end of the
// interval is also the end of the keys that have it.
func (r interval) prefix() (p string, exact bool) {
	if r.end == "\x00" {
		return "", true
	}
	if len(r.key) >= len(r.end) {
		if end, ok := store.PrefixEnd(r.key[:len(r.end)]); ok && end == r.end {
			return r.key[:len(r.end)], true
		}
	}
	n := 0
	for n < len(r.key) && n < len(r.end) && r.key[n] == r.end[n] {
		n++
	}
	return r.key[:n], false
}

func hidden(key string) bool { return strings.HasPrefix(key, hiddenPrefix) }
