package ipalloc

import (
	"fmt"
	"math/rand/v2"
)

// Ports allocates the ports of one range.
type Ports struct {
	first, last int32
	o           *offsets
}

// NewPorts returns an allocator of the ports first..last.
func NewPorts(first, last int32) (*Ports, error) {
	if first < 1 || last > 65535 || last < first {
		return nil, fmt.Errorf("ipalloc: ports %d-%d: expected a range within 1-65535", first, last)
	}
	size := uint64(last-first) + 1
	return &Ports{first: first, last: last, o: newOffsets(size, staticPart(size, 16, 128, 32), rand.Uint64())}, nil
}

// Range returns the bounds, both inclusive.
func (p *Ports) Range() (first, last int32) { return p.first, p.last }

// Allocate takes one port. Errors: ErrRange, ErrAllocated.
func (p *Ports) Allocate(port int32) error {
	if port < p.first || port > p.last {
		return ErrRange
	}
	return p.o.allocate(uint64(port - p.first))
}

// AllocateNext takes a free port. Error: ErrFull.
func (p *Ports) AllocateNext() (int32, error) {
	n, err := p.o.allocateNext()
	if err != nil {
		return 0, err
	}
	return p.first + int32(n), nil
}

// Release frees a port; one that is free or of another range is ignored.
func (p *Ports) Release(port int32) {
	if port >= p.first && port <= p.last {
		p.o.release(uint64(port - p.first))
	}
}

// Has reports whether a port is taken.
func (p *Ports) Has(port int32) bool {
	return port >= p.first && port <= p.last && p.o.has(uint64(port-p.first))
}

// Len returns how many ports are taken.
func (p *Ports) Len() int { return p.o.count() }

// Reset makes taken exactly those of ports that are of the range.
func (p *Ports) Reset(ports []int32) {
	values := make([]uint64, 0, len(ports))
	for _, port := range ports {
		if port >= p.first && port <= p.last {
			values = append(values, uint64(port-p.first))
		}
	}
	p.o.reset(values)
}
