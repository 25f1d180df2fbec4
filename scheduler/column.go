package scheduler

import (
	"encoding/binary"
	"math"
)

// column is a list of numbers by slot. It takes as many bytes for each as the widest one needs, and none while all are 0: of each node there is much to be kept, for each kind of pods,
// and nearly all of it are small numbers. The zero value is empty.
type column struct {
	n     int
	width int // bytes of each number: 0, 1, 2, 4 or 8
	b     []byte
}

// grow appends zeros up to a length of n.
func (c *column) grow(n int) {
	if n <= c.n {
		return
	}
	c.n = n
	size := n * c.width
	if size <= cap(c.b) {
		c.b = c.b[:size]
		return
	}
	b := make([]byte, size, size+size/8) // one node more is often followed by others
	copy(b, c.b)
	c.b = b
}

func (c *column) at(i int32) int64 {
	switch c.width {
	case 0:
		return 0
	case 1:
		return int64(int8(c.b[i]))
	case 2:
		return int64(int16(binary.LittleEndian.Uint16(c.b[2*int(i):])))
	case 4:
		return int64(int32(binary.LittleEndian.Uint32(c.b[4*int(i):])))
	}
	return int64(binary.LittleEndian.Uint64(c.b[8*int(i):]))
}

func (c *column) set(i int32, v int64) {
	switch {
	case c.width == 1 && v == int64(int8(v)):
		c.b[i] = byte(v)
	case c.width == 2 && v == int64(int16(v)):
		binary.LittleEndian.PutUint16(c.b[2*int(i):], uint16(v))
	case c.width == 4 && v == int64(int32(v)):
		binary.LittleEndian.PutUint32(c.b[4*int(i):], uint32(v))
	case c.width == 8:
		binary.LittleEndian.PutUint64(c.b[8*int(i):], uint64(v))
	case c.width == 0 && v == 0:
	default:
		c.widen(v)
		c.set(i, v)
	}
}

// widen makes room for a number that is too wide.
func (c *column) widen(v int64) {
	old := *c
	switch {
	case v >= math.MinInt8 && v <= math.MaxInt8:
		c.width = 1
	case v >= math.MinInt16 && v <= math.MaxInt16:
		c.width = 2
	case v >= math.MinInt32 && v <= math.MaxInt32:
		c.width = 4
	default:
		c.width = 8
	}
	c.b = make([]byte, c.n*c.width)
	for i := range int32(old.n) {
		if v := old.at(i); v != 0 {
			c.set(i, v)
		}
	}
}
