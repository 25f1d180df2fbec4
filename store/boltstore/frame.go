package boltstore

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// The log in front of the bbolt file has two segments, files that are written in turn. A segment
// starts with a header in a block of its own:
//
//	magic   8 bytes
//	crc32c  uint32 of all that follows
//	version uint32
//	epoch   int64, which the bbolt file has too, so that logs of other files are told apart
//	number  int64 of the segment, one more than that of the one before
//	base    int64, the revision before its first frame
//	tail    int64, where the frames of the segment before end: what is behind has never been acknowledged
//	reserved int64, as in a frame
//
// and has frames behind it, each at a multiple of the sector size so that a write that a power
// cut interrupts garbles no other frame. A frame is what one sync makes durable:
//
//	crc32c   uint32 of epoch and number of the segment, and all that follows
//	length   uint32 of the records
//	kind     uint32
//	base     int64, the revision before the frame
//	last     int64, the revision after it
//	floor    int64, the compacted revision
//	reserved int64: relaxed commits may have used revisions up to this
//	records  of the revisions from base+1 to last in order, each a uint32 length and what record.go says
//	zeros, and at the end of the last sector the crc32c once more: a frame is not whole before its last byte is written
//
// The numbers are big-endian. A segment is used again by overwriting it; what is left behind its last frame is of
// another segment number, so it is not taken for a frame.
//
// When a frame has been synced, and before anybody hears of it, a mark is written behind it, in whose place the next frame comes.
// Nobody waits for the mark to be durable; but where one is, a frame before it that is not whole is no unfinished write.
const (
	segmentMagic   = "keelslog"
	segmentVersion = 1
	segmentHead    = 8 + 4 + 4 + 5*8
	segmentStart   = 4096 // where frames begin
	sectorLen      = 512
	frameHead      = 4 + 4 + 4 + 4*8
	frameTail      = 4

	frameRecords = 0
	frameSeal    = 1 // the next segment exists
	frameMark    = 2 // all before it is durable

	// maxFrame bounds what is in one frame, and so what one commit can have.
	maxFrame = 1 << 30
)

// segment is what a segment's header says.
type segment struct {
	epoch, number        int64
	base, tail, reserved int64
}

func (g segment) encode() []byte {
	b := make([]byte, 0, segmentStart)
	b = append(b, segmentMagic...)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, segmentVersion)
	for _, n := range []int64{g.epoch, g.number, g.base, g.tail, g.reserved} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	binary.BigEndian.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	return b[:segmentStart]
}

func decodeSegment(b []byte) (segment, error) {
	if len(b) < segmentHead || string(b[:8]) != segmentMagic {
		return segment{}, errors.New("it is not a log segment")
	}
	if binary.BigEndian.Uint32(b[8:]) != crc32.Checksum(b[12:segmentHead], castagnoli) {
		return segment{}, errors.New("the checksum of its header is wrong")
	}
	if binary.BigEndian.Uint32(b[12:]) != segmentVersion {
		return segment{}, errors.New("another version of this program may have written it")
	}
	n := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[16+8*i:])) }
	g := segment{epoch: n(0), number: n(1), base: n(2), tail: n(3), reserved: n(4)}
	if g.epoch < 1 || g.number < 1 || g.base < 1 || g.tail < 0 || g.reserved < 0 {
		return segment{}, errors.New("the numbers in its header are out of range")
	}
	return g, nil
}

// seed is what the checksums of the segment's frames begin with.
func (g segment) seed() uint32 {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(g.epoch))
	binary.BigEndian.PutUint64(b[8:], uint64(g.number))
	return crc32.Checksum(b[:], castagnoli)
}

// frame is a decoded frame; records aliases what it was decoded from.
type frame struct {
	kind            uint32
	base, last      int64
	floor, reserved int64
	records         []byte
}

// begin appends room for the head of a frame.
func (f *frame) begin(b []byte) []byte { return append(b, make([]byte, frameHead)...) }

// end completes the frame that all of b is, with records behind its head, and pads it to whole sectors.
func (f *frame) end(b []byte, seed uint32) []byte {
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)-frameHead))
	binary.BigEndian.PutUint32(b[8:], f.kind)
	for i, n := range []int64{f.base, f.last, f.floor, f.reserved} {
		binary.BigEndian.PutUint64(b[12+8*i:], uint64(n))
	}
	sum := crc32.Update(seed, castagnoli, b[4:])
	binary.BigEndian.PutUint32(b, sum)
	b = append(b, make([]byte, frameLen(len(b)-frameHead)-len(b))...)
	binary.BigEndian.PutUint32(b[len(b)-frameTail:], sum)
	return b
}

// frameLen is how long a frame is that has n bytes of records.
func frameLen(n int) int {
	return (frameHead + n + frameTail + sectorLen - 1) / sectorLen * sectorLen
}

// decodeFrame decodes the frame that b begins with, which comes after revision after, and
// returns its length with padding. It reports false for anything but a whole and right one.
func decodeFrame(b []byte, seed uint32, after int64) (f frame, length int, ok bool) {
	if len(b) < frameHead {
		return f, 0, false
	}
	n := int(binary.BigEndian.Uint32(b[4:]))
	if n > maxFrame || frameLen(n) > len(b) {
		return f, 0, false
	}
	num := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[12+8*i:])) }
	f = frame{kind: binary.BigEndian.Uint32(b[8:]), base: num(0), last: num(1), floor: num(2), reserved: num(3)}
	// These are cheaper to see than the checksum, where there is no frame.
	if f.kind > frameMark || f.base < after || f.last < f.base || f.last-f.base > int64(n)/recordMinLen || f.floor < 1 || f.floor > f.last || f.reserved < 0 {
		return f, 0, false
	}
	sum, length := binary.BigEndian.Uint32(b), frameLen(n)
	if binary.BigEndian.Uint32(b[length-frameTail:]) != sum || crc32.Update(seed, castagnoli, b[4:frameHead+n]) != sum {
		return f, 0, false
	}
	f.records = b[frameHead : frameHead+n : frameHead+n]
	return f, length, true
}

// eachFrame calls visit for the frames of a segment, b being all of its file, and returns where
// the next one belongs. What is behind the last frame may be anything, such as part of one that
// a power cut has interrupted; but if there is another frame or a mark behind it, then something that had been
// synced is damaged, and where is what does not begin a frame.
func (g segment) eachFrame(b []byte, visit func(at int, f frame) error) (tail int, damaged bool, err error) {
	seed, after := g.seed(), g.base
	tail = segmentStart
	for tail < len(b) {
		f, n, ok := decodeFrame(b[tail:], seed, after)
		if !ok || f.kind == frameMark {
			break
		}
		if err := visit(tail, f); err != nil {
			return tail, false, err
		}
		after = f.last
		tail += n
	}
	for at := tail + sectorLen; at < len(b); at += sectorLen {
		if _, _, ok := decodeFrame(b[at:], seed, after); ok {
			return tail, true, nil
		}
	}
	return tail, false, nil
}

// appendLogged appends a record to the records of a frame.
func appendLogged(b []byte, r *encoded) []byte {
	at := len(b)
	b = appendRecord(append(b, 0, 0, 0, 0), &r.record, r.key, r.val)
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

// split calls visit for each record of a frame: its revision and number and what record.go says, aliasing the frame.
func (f *frame) split(visit func(rev int64, index uint32, v []byte) error) error {
	rev, index, count := f.base, uint32(0), uint32(0)
	for b := f.records; len(b) > 0; {
		if len(b) < 4 || binary.BigEndian.Uint32(b) > uint32(len(b)-4) {
			return errors.New("the length of a record is out of range")
		}
		v := b[4 : 4+binary.BigEndian.Uint32(b)]
		v = v[:len(v):len(v)]
		b = b[4+len(v):]
		n, err := recordCount(v)
		if err != nil {
			return err
		}
		if index == count {
			rev, index, count = rev+1, 0, n
		}
		if n != count {
			return errors.New("the records of a revision do not agree how many they are")
		}
		if err := visit(rev, index, v); err != nil {
			return err
		}
		index++
	}
	if rev != f.last || index != count {
		return errors.New("its records are not those of its revisions")
	}
	return nil
}

// eachRecord calls visit for the records of a frame. What visit gets aliases the frame.
func (f *frame) eachRecord(visit func(record) error) error {
	var k [recordKeyLen]byte
	return f.split(func(rev int64, index uint32, v []byte) error {
		r, err := decodeRecord(appendRecordKey(k[:0], rev, index), v)
		if err != nil {
			return err
		}
		return visit(r)
	})
}
