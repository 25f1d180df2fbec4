package boltstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"unsafe"
)

// bbolt trusts its pages: it follows a wrong number into memory that is not there. So the
// pages of a file are checked, by reading the file as bytes, before bbolt gets to see it. The
// layout is bbolt's version 2, in the byte order of the machine.

const (
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	pageHeader     = 16
	metaLen        = 64 // up to the checksum
	elementLen     = 16
	bucketHeader   = 16
	flagBranch     = 0x01
	flagLeaf       = 0x02
	flagFreelist   = 0x10
	leafIsBucket   = 0x01
	noFreelist     = ^uint64(0)
	maxDepth       = 64
	maxPageOverrun = 1 << 30
)

var order = func() binary.ByteOrder {
	one := uint16(1)
	if *(*byte)(unsafe.Pointer(&one)) == 1 {
		return binary.LittleEndian
	}
	return binary.BigEndian
}()

// boltMeta is what a meta page says.
type boltMeta struct {
	pageSize                   uint32
	root, freelist, pages, txn uint64
}

func parseMeta(b []byte) (boltMeta, bool) {
	if len(b) < pageHeader+metaLen {
		return boltMeta{}, false
	}
	m := b[pageHeader:]
	h := fnv.New64a()
	_, _ = h.Write(m[:metaLen-8])
	if order.Uint32(m) != boltMagic || order.Uint32(m[4:]) != boltVersion || order.Uint64(m[metaLen-8:]) != h.Sum64() {
		return boltMeta{}, false
	}
	return boltMeta{
		pageSize: order.Uint32(m[8:]), root: order.Uint64(m[16:]), freelist: order.Uint64(m[32:]),
		pages: order.Uint64(m[40:]), txn: order.Uint64(m[48:]),
	}, true
}

// readMeta returns the newest valid meta page. The second is a page size behind the first, and
// its size is only known from a valid one.
func readMeta(f io.ReaderAt) (meta boltMeta, ok bool) {
	var buf [pageHeader + metaLen]byte
	try := func(at int64) {
		if n, _ := f.ReadAt(buf[:], at); n < len(buf) {
			return
		}
		m, valid := parseMeta(buf[:])
		if valid && (at == 0 || int64(m.pageSize) == at) && (!ok || m.txn > meta.txn) {
			meta, ok = m, true
		}
	}
	try(0)
	if ok {
		try(int64(meta.pageSize))
		return meta, ok
	}
	for size := int64(1024); size <= 1024<<14; size *= 2 {
		try(size)
	}
	return meta, ok
}

func checkMeta(path string, f *os.File) error {
	meta, ok := readMeta(f)
	if !ok {
		return &DamageError{Path: path, Where: "pages 0 and 1", What: "neither is a valid meta page"}
	}
	if s := meta.pageSize; s < 1024 || s > 1<<24 || s&(s-1) != 0 {
		return &DamageError{Path: path, Where: "meta page", What: fmt.Sprintf("the page size is %d", s)}
	}
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("boltstore: %w", err)
	}
	have := uint64(info.Size()) / uint64(meta.pageSize)
	if meta.pages < 4 || meta.pages > have {
		return &DamageError{
			Path: path, Where: fmt.Sprintf("page %d", have),
			What: fmt.Sprintf("the file ends here and should have %d pages", meta.pages),
		}
	}
	return nil
}

// checker walks the pages of a file.
type checker struct {
	path string
	f    io.ReaderAt
	meta boltMeta
	seen []bool
}

// checkFile checks the structure of every page that is in use.
func checkFile(path string, f io.ReaderAt) error {
	meta, ok := readMeta(f)
	if !ok {
		return &DamageError{Path: path, Where: "pages 0 and 1", What: "neither is a valid meta page"}
	}
	c := &checker{path: path, f: f, meta: meta, seen: make([]bool, meta.pages)}
	if meta.freelist != noFreelist {
		if err := c.freelist(); err != nil {
			return err
		}
	}
	return c.tree(meta.root, nil, nil, 0)
}

func (c *checker) bad(page uint64, format string, args ...any) error {
	return &DamageError{Path: c.path, Where: fmt.Sprintf("page %d", page), What: fmt.Sprintf(format, args...)}
}

// page reads a page with its overflow and checks its header.
func (c *checker) page(id uint64) (b []byte, flags uint16, count int, err error) {
	if id < 2 || id >= c.meta.pages {
		return nil, 0, 0, c.bad(id, "a reference to it is out of range")
	}
	size := int64(c.meta.pageSize)
	head := make([]byte, size)
	if _, err := c.f.ReadAt(head, int64(id)*size); err != nil {
		return nil, 0, 0, c.bad(id, "reading it: %v", err)
	}
	flags, count = order.Uint16(head[8:]), int(order.Uint16(head[10:]))
	overflow := uint64(order.Uint32(head[12:]))
	if got := order.Uint64(head); got != id {
		return nil, 0, 0, c.bad(id, "it says that it is page %d", got)
	}
	if overflow >= c.meta.pages-id || overflow*uint64(size) > maxPageOverrun {
		return nil, 0, 0, c.bad(id, "its length of %d pages is out of range", overflow+1)
	}
	for p := id; p <= id+overflow; p++ {
		if c.seen[p] {
			return nil, 0, 0, c.bad(p, "it is used twice")
		}
		c.seen[p] = true
	}
	if overflow > 0 {
		b = make([]byte, size*int64(overflow+1))
		if _, err := c.f.ReadAt(b, int64(id)*size); err != nil {
			return nil, 0, 0, c.bad(id, "reading it: %v", err)
		}
		return b, flags, count, nil
	}
	return head, flags, count, nil
}

func (c *checker) freelist() error {
	b, flags, count, err := c.page(c.meta.freelist)
	if err != nil {
		return err
	}
	if flags != flagFreelist {
		return c.bad(c.meta.freelist, "it is not a free list")
	}
	from := pageHeader
	if count == 0xffff {
		n := order.Uint64(b[from:])
		if n > uint64(len(b)/8) {
			return c.bad(c.meta.freelist, "the free list has %d entries", n)
		}
		count, from = int(n), from+8
	}
	if from+8*count > len(b) {
		return c.bad(c.meta.freelist, "the free list has %d entries", count)
	}
	last := uint64(1)
	for i := range count {
		id := order.Uint64(b[from+8*i:])
		if id <= last || id >= c.meta.pages || c.seen[id] {
			return c.bad(c.meta.freelist, "entry %d of the free list, page %d, is wrong", i, id)
		}
		c.seen[id] = true
		last = id
	}
	return nil
}

// tree checks the pages from id down; their keys are at least lo and below hi, if not nil.
func (c *checker) tree(id uint64, lo, hi []byte, depth int) error {
	if depth > maxDepth {
		return c.bad(id, "the tree is deeper than %d", maxDepth)
	}
	b, flags, count, err := c.page(id)
	if err != nil {
		return err
	}
	return c.elements(id, b, flags, count, lo, hi, depth)
}

func (c *checker) elements(id uint64, b []byte, flags uint16, count int, lo, hi []byte, depth int) error {
	if flags != flagBranch && flags != flagLeaf {
		return c.bad(id, "its type is %#x", flags)
	}
	if pageHeader+count*elementLen > len(b) {
		return c.bad(id, "it says that it has %d elements", count)
	}
	if flags == flagBranch && count == 0 {
		return c.bad(id, "a branch has no elements")
	}
	keys := make([][]byte, count+1)
	for i := range count {
		at := pageHeader + i*elementLen
		el := b[at : at+elementLen]
		// A branch element is pos, ksize, pgid; a leaf element flags, pos, ksize, vsize.
		pos, ksize, vsize := uint64(order.Uint32(el)), uint64(order.Uint32(el[4:])), uint64(0)
		if flags == flagLeaf {
			pos, ksize, vsize = uint64(order.Uint32(el[4:])), uint64(order.Uint32(el[8:])), uint64(order.Uint32(el[12:]))
		}
		from := uint64(at) + pos
		if from < uint64(pageHeader+count*elementLen) || from+ksize+vsize > uint64(len(b)) {
			return c.bad(id, "element %d is outside of the page", i)
		}
		keys[i] = b[from : from+ksize]
		switch {
		case i > 0 && bytes.Compare(keys[i-1], keys[i]) >= 0:
			return c.bad(id, "the keys of elements %d and %d are not in order", i-1, i)
		case i == 0 && lo != nil && bytes.Compare(keys[i], lo) < 0, hi != nil && bytes.Compare(keys[i], hi) >= 0:
			return c.bad(id, "the key of element %d does not belong here", i)
		}
		if flags == flagBranch {
			continue
		}
		switch order.Uint32(el) {
		case 0:
		case leafIsBucket:
			if err := c.bucket(id, i, b[from+ksize:from+ksize+vsize], depth); err != nil {
				return err
			}
		default:
			return c.bad(id, "element %d has unknown flags", i)
		}
	}
	if flags == flagLeaf {
		return nil
	}
	keys[count] = hi
	for i := range count {
		kid := order.Uint64(b[pageHeader+i*elementLen+8:])
		if err := c.tree(kid, keys[i], keys[i+1], depth+1); err != nil {
			return err
		}
	}
	return nil
}

// bucket checks a bucket in a leaf: its root page is elsewhere or, for a small one, inside.
func (c *checker) bucket(id uint64, i int, v []byte, depth int) error {
	if len(v) < bucketHeader {
		return c.bad(id, "the bucket of element %d is too short", i)
	}
	if root := order.Uint64(v); root != 0 {
		return c.tree(root, nil, nil, depth+1)
	}
	page := v[bucketHeader:]
	if len(page) < pageHeader || order.Uint16(page[8:]) != flagLeaf {
		return c.bad(id, "the bucket of element %d has no page", i)
	}
	if depth > maxDepth {
		return c.bad(id, "the tree is deeper than %d", maxDepth)
	}
	return c.elements(id, page, flagLeaf, int(order.Uint16(page[10:])), nil, nil, depth+1)
}
