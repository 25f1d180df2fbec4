package boltstore

import (
	"fmt"
	"testing"
)

// TestFrames checks that frames are what they were, in order, until they are trimmed, and that their memory is used again.
func TestFrames(t *testing.T) {
	var f frames
	value := make([]byte, 10_000)
	write := func(rev int64) *batch {
		e := encoded{record: record{rev: rev, create: rev, count: 1}, key: fmt.Sprint("key", rev), val: value}
		value[0] = byte(rev)
		p := &batch{base: rev - 1, rev: rev, logged: rev - 1, recs: [][]encoded{{e}}}
		p.encode(&f, nil)
		p.frame.records = p.data[frameHead:]
		f.hold(p.frame, p.slab)
		return p
	}
	check := func(after, to int64) {
		t.Helper()
		next := after + 1
		err := f.each(after, to, func(rev int64, index uint32, v []byte) error {
			r, err := decodeRecord(recordKey(rev, index), v)
			if err != nil {
				return err
			}
			if rev != next || string(r.key) != fmt.Sprint("key", rev) || r.value[0] != byte(rev) {
				return fmt.Errorf("revision %d of %q, want %d", rev, r.key, next)
			}
			next++
			return nil
		})
		if err != nil || next != to+1 {
			t.Fatalf("revisions %d to %d: %v, and the next is %d", after+1, to, err, next)
		}
	}
	slabs := map[*slab]bool{}
	for rev := int64(2); rev < 2000; rev++ {
		slabs[write(rev).slab] = true
		if rev%400 == 0 {
			check(max(1, rev-400), rev-1)
			f.trim(rev - 1)
			check(rev-1, rev)
		}
	}
	if len(slabs) > 10 {
		t.Errorf("%d slabs for 400 frames of 10 kB at a time", len(slabs))
	}
	if err := f.each(1, 1999, func(int64, uint32, []byte) error { return nil }); err == nil {
		t.Error("frames that are gone are not missed")
	}
	if p := write(2000); p.slab == nil {
		t.Error("a small frame has no slab")
	}
	f.trim(2000)
	if f.held != nil || f.free != nil || f.room != nil {
		t.Error("memory is kept for no frame")
	}
}
