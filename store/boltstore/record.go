package boltstore

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/keelson/keelson/store"
)

// A record is one change of one key. Its bbolt key is its revision and its number within it,
// big-endian, so that bbolt's order is the order of events:
//
//	revision uint64 | index uint32
//
// and its value, with varints where no width is given:
//
//	crc32c uint32 of the bbolt key and all that follows
//	flags  byte: 1 deleted
//	count  of the records of this revision
//	create revision of the key; of a delete, that of what was deleted
//	prev   revision and index of the record that this one supersedes, 0 0 if there is none
//	length of the key | key | value
const (
	recordKeyLen = 12
	recordMinLen = 4 + 1 + 1 + 1 + 1 + 1 + 1 + 1
	recordMax    = 64 // without key and value
	flagDeleted  = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ref is where a value is, and what conditions and lists need of it.
type ref struct {
	create, mod int64
	index       uint32
}

// record is a decoded record. Its key and value may alias what it was decoded from.
type record struct {
	rev, create int64
	prev        int64
	index, prevIndex,
	count uint32
	deleted    bool
	key, value []byte
}

func (r *record) ref() ref { return ref{create: r.create, mod: r.rev, index: r.index} }

// prevRef is where the superseded value is; an update keeps the creation of what it updates.
func (r *record) prevRef() (ref, bool) {
	return ref{create: r.create, mod: r.prev, index: r.prevIndex}, r.prev != 0
}

func recordKey(rev int64, index uint32) []byte {
	return appendRecordKey(make([]byte, 0, recordKeyLen), rev, index)
}

func appendRecordKey(b []byte, rev int64, index uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, uint64(rev)), index)
}

func decodeRecordKey(k []byte) (rev int64, index uint32, err error) {
	if len(k) != recordKeyLen {
		return 0, 0, errors.New("its key is not of 12 bytes")
	}
	rev = int64(binary.BigEndian.Uint64(k))
	if rev < 2 {
		return 0, 0, errors.New("its revision is out of range")
	}
	return rev, binary.BigEndian.Uint32(k[8:]), nil
}

// appendRecord encodes one change.
func appendRecord(b []byte, r *record, key string, value []byte) []byte {
	var head [recordKeyLen]byte
	appendRecordKey(head[:0], r.rev, r.index)
	from := len(b)
	flags := byte(0)
	if r.deleted {
		flags = flagDeleted
	}
	b = append(b, 0, 0, 0, 0, flags)
	b = binary.AppendUvarint(b, uint64(r.count))
	b = binary.AppendUvarint(b, uint64(r.create))
	b = binary.AppendUvarint(b, uint64(r.prev))
	b = binary.AppendUvarint(b, uint64(r.prevIndex))
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = append(b, key...)
	b = append(b, value...)
	binary.BigEndian.PutUint32(b[from:], checksum(head[:], b[from+4:]))
	return b
}

func checksum(key, rest []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, rest)
}

// recordCount returns how many records the revision of a record has.
func recordCount(v []byte) (uint32, error) {
	if len(v) < recordMinLen {
		return 0, errors.New("it is too short")
	}
	n, size := binary.Uvarint(v[5:])
	if size <= 0 || n == 0 || n > 1<<32-1 {
		return 0, errors.New("a number in it is malformed")
	}
	return uint32(n), nil
}

// decodeRecord decodes what appendRecord has made; the result aliases v.
func decodeRecord(k, v []byte) (record, error) {
	var r record
	var err error
	if r.rev, r.index, err = decodeRecordKey(k); err != nil {
		return r, err
	}
	if len(v) < recordMinLen {
		return r, errors.New("it is too short")
	}
	if binary.BigEndian.Uint32(v) != checksum(k, v[4:]) {
		return r, errors.New("its checksum is wrong")
	}
	if v[4]&^flagDeleted != 0 {
		return r, errors.New("it has unknown flags")
	}
	r.deleted = v[4]&flagDeleted != 0
	b := v[5:]
	next := func(limit uint64) uint64 {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > limit {
			err = errors.New("a number in it is malformed")
			return 0
		}
		b = b[size:]
		return n
	}
	r.count = uint32(next(1<<32 - 1))
	if err == nil {
		r.create = int64(next(1<<63 - 1))
	}
	if err == nil {
		r.prev = int64(next(1<<63 - 1))
	}
	if err == nil {
		r.prevIndex = uint32(next(1<<32 - 1))
	}
	var n uint64
	if err == nil {
		n = next(1 << 31)
	}
	switch {
	case err != nil:
		return r, err
	case n == 0 || n > uint64(len(b)):
		return r, errors.New("the length of its key is out of range")
	case r.index >= r.count:
		return r, errors.New("its index is out of range")
	case r.create < 1 || r.create > r.rev || r.prev >= r.rev || r.prev == 0 && r.create != r.rev || r.prev != 0 && r.create > r.prev:
		return r, errors.New("its revisions contradict each other")
	case r.deleted && r.prev == 0:
		return r, errors.New("it deletes nothing")
	}
	r.key, r.value = b[:n:n], b[n:]
	return r, nil
}

// kv makes a pair of its own out of a record.
func (r *record) kv(key string) *store.KV {
	return &store.KV{Key: key, Value: append([]byte{}, r.value...), CreateRevision: r.create, ModRevision: r.rev}
}
