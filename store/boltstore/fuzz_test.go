package boltstore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/keelson/keelson/store"
)

func FuzzRecord(f *testing.F) {
	for _, r := range []record{
		{rev: 2, create: 2, count: 1},
		{rev: 300, create: 5, prev: 299, prevIndex: 3, index: 2, count: 4},
		{rev: 1 << 40, create: 1 << 39, prev: 1<<40 - 1, count: 1, deleted: true},
	} {
		f.Add(recordKey(r.rev, r.index), appendRecord(nil, &r, "key", []byte("value")))
	}
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, k, v []byte) {
		r, err := decodeRecord(k, v)
		if err != nil {
			return
		}
		if again := recordKey(r.rev, r.index); !bytes.Equal(again, k) {
			t.Fatalf("the key %x becomes %x", k, again)
		}
		// Varints can be written in more than one way, but mean the same.
		b := appendRecord(nil, &r, string(r.key), r.value)
		r2, err := decodeRecord(k, b)
		if err != nil || r2.rev != r.rev || r2.create != r.create || r2.prev != r.prev || !bytes.Equal(r2.value, r.value) || !bytes.Equal(r2.key, r.key) {
			t.Fatalf("%+v becomes %+v, %v", r, r2, err)
		}
	})
}

// seeded returns a store with some commits.
func seeded(f *testing.F) (s *Store, path string) {
	f.Helper()
	path = filepath.Join(f.TempDir(), "seed")
	s, err := Open(path, Options{})
	if err != nil {
		f.Fatal(err)
	}
	for i := range 8 {
		if _, err := s.Commit(context.Background(), store.Put(string(rune('a'+i%5)), []byte("value"), store.Any())); err != nil {
			f.Fatal(err)
		}
	}
	return s, path
}

func FuzzOpen(f *testing.F) {
	s, path := seeded(f)
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	for len(seed) > 0 && seed[len(seed)-1] == 0 {
		seed = seed[:len(seed)-1]
	}
	whole := make([]byte, (len(seed)+pageSize-1)/pageSize*pageSize)
	copy(whole, seed)
	f.Add(whole, 0, byte(0))
	f.Add(whole, 3*pageSize+20, byte(7))
	f.Add(whole[:pageSize*3], 5, byte(1))
	f.Add([]byte("hello"), 0, byte(0))
	f.Fuzz(func(t *testing.T, b []byte, at int, flip byte) {
		if len(b) > 1<<20 {
			return
		}
		openFlipped(t, image{"": b}, "", at, flip)
	})
}

func FuzzFrame(f *testing.F) {
	g := segment{epoch: 7, number: 3, base: 5}
	frames := func(g segment) []byte {
		fr := frame{base: 5, last: 6, floor: 2}
		b := fr.begin(nil)
		for i := range uint32(2) {
			b = appendLogged(b, &encoded{record: record{rev: 6, create: 6, index: i, count: 2}, key: string(rune('a' + i)), val: []byte("value")})
		}
		b = fr.end(b, g.seed())
		fr = frame{base: 6, last: 6, floor: 6, reserved: 100}
		return append(b, fr.end(fr.begin(nil), g.seed())...)
	}
	f.Add(g.encode(), frames(g), 0, byte(0))
	f.Add(g.encode(), frames(g), 50, byte(1))
	f.Add(g.encode(), append(frames(g), frames(g)...), 600, byte(1))
	f.Add([]byte{}, []byte{}, 0, byte(0))
	f.Fuzz(func(t *testing.T, head, rest []byte, at int, flip byte) {
		h, err := decodeSegment(head)
		if err == nil && (h.number < 1 || !bytes.Equal(h.encode()[:segmentHead], head[:segmentHead])) {
			t.Fatalf("%+v is encoded as something else", h)
		}
		b := append(g.encode(), rest...)
		if at >= 0 && at < len(rest) {
			b[segmentStart+at] ^= flip
		}
		last := g.base
		tail, damaged, err := g.eachFrame(b, func(at int, fr frame) error {
			if fr.base < last || fr.last < fr.base || at%sectorLen != 0 {
				t.Fatalf("frame %+v at %d comes after revision %d", fr, at, last)
			}
			last = fr.last
			rev := fr.base
			err := fr.eachRecord(func(r record) error {
				if r.rev != rev && r.rev != rev+1 {
					t.Fatalf("a record of revision %d comes after one of %d", r.rev, rev)
				}
				rev = r.rev
				return nil
			})
			if err == nil && rev != fr.last {
				t.Fatalf("the records of %+v end with revision %d", fr, rev)
			}
			return nil
		})
		if err != nil || tail < segmentStart || damaged && tail >= len(b) {
			t.Fatalf("the frames end at %d of %d, damaged %v, %v", tail, len(b), damaged, err)
		}
	})
}

func FuzzOpenLog(f *testing.F) {
	s, path := seeded(f)
	defer s.Close()
	files := snap(f, path)
	whole := files[".log1"][:s.log.tail]
	f.Add(whole, 0, byte(0))
	f.Add(whole, segmentStart+5, byte(7))
	f.Add(whole, segmentStart+9*sectorLen, byte(7))
	f.Add(files[".log1"][:s.log.tail+sectorLen], int(s.log.tail)-sectorLen+5, byte(7)) // the last frame, with the mark behind it
	f.Add(whole[:segmentStart], 5, byte(1))
	f.Add([]byte("hello"), 0, byte(0))
	f.Fuzz(func(t *testing.T, b []byte, at int, flip byte) {
		if len(b) > 1<<20 {
			return
		}
		openFlipped(t, image{"": files[""], ".log1": b}, ".log1", at, flip)
	})
}

// openFlipped opens files, in one of which a byte is changed: that is refused as damage, or what opens works.
func openFlipped(t *testing.T, files image, name string, at int, flip byte) {
	t.Helper()
	if b := bytes.Clone(files[name]); at >= 0 && at < len(b) {
		b[at] ^= flip
		files[name] = b
	}
	p := filepath.Join(t.TempDir(), "f")
	files.write(t, p)
	s, err := Open(p, Options{})
	var damage *DamageError
	if err != nil {
		if !errors.As(err, &damage) {
			t.Fatalf("error %v is not a *DamageError", err)
		}
		return
	}
	if _, err := s.Commit(t.Context(), store.Put("new", []byte("1"), store.Any())); err != nil {
		t.Errorf("Commit: %v", err)
	}
	if _, err := s.List(t.Context(), store.ListOptions{}); err != nil {
		t.Errorf("List: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}
