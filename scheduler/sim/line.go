package sim

// Pods of one template are alike: where the first of them fits nowhere, no other does. So only that one is in the scheduler's queue, with its hints and
// back-off, and the others wait in line behind it, which keeps full clusters cheap to simulate. When it is placed, or room is being made for it, the next one is tried.

// enqueue brings a pod before the scheduler, or to the end of its line.
func (s *Simulation) enqueue(p *pod) {
	p.life++
	p.arrived = s.now
	s.metrics.pending++
	s.log.pod("submit", p)
	switch {
	case p.gang != nil:
		p.gang.join(s, p)
	case s.lines(p) && p.shape.first != nil:
		s.park(p)
	default:
		s.admit(p)
	}
}

// lines reports whether a pod stands in line with those that are alike: those with volumes are not.
func (s *Simulation) lines(p *pod) bool { return !s.opts.NoLines && p.gang == nil && !p.shape.claims }

func (s *Simulation) park(p *pod) {
	p.parked = true
	p.shape.line = append(p.shape.line, p)
	s.parked++
}

// admit puts a pod into the scheduler's queue.
func (s *Simulation) admit(p *pod) {
	if p.spod == nil {
		s.instantiate(p)
	}
	s.waiting[p.spod] = p
	s.queue.Add(p.spod, instant(s.now))
}

// unpark takes a pod out of its line, which forgets it later.
func (s *Simulation) unpark(p *pod) {
	p.parked = false
	s.parked--
}

// failed is told of a pod that fits nowhere, after it was tried to make room for it.
func (s *Simulation) failed(p *pod) {
	if !s.lines(p) {
		return
	}
	if s.engine.Nominated(p.spod.Object.UID) != "" {
		s.passed(p)
		return
	}
	if p.shape.first == nil {
		p.shape.first = p
	}
}

// passed is told that a pod no longer keeps others waiting. It lets the next one of the line be tried.
func (s *Simulation) passed(p *pod) {
	if p.gang != nil {
		p.gang.left(s, p)
		return
	}
	sh := p.shape
	if sh.first == p {
		sh.first = nil
	}
	if sh.first != nil {
		return
	}
	for sh.head < len(sh.line) {
		next := sh.line[sh.head]
		sh.line[sh.head] = nil
		if sh.head++; sh.head > 1024 && sh.head > len(sh.line)/2 {
			sh.line = append(sh.line[:0], sh.line[sh.head:]...)
			sh.head = 0
		}
		if next.parked && next.shape == sh {
			s.unpark(next)
			s.admit(next)
			return
		}
	}
	sh.line, sh.head = nil, 0
}

// overtaken puts a pod whose turn it is in line, if one that is alike has failed meanwhile.
func (s *Simulation) overtaken(p *pod) bool {
	first := p.shape.first
	if first == nil || first == p || !s.lines(p) || s.engine.Nominated(p.spod.Object.UID) != "" {
		return false
	}
	s.unqueue(p)
	p.spod = nil
	s.park(p)
	return true
}
