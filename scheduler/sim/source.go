package sim

import "iter"

// source is a workload being read.
type source struct {
	pull func() (Event, error, bool)
	stop func()
	head Event
	ok   bool
	err  error
}

func newSource(w Workload) *source {
	s := &source{}
	s.pull, s.stop = iter.Pull2(w.Events())
	s.advance()
	return s
}

func (s *source) advance() {
	s.head, s.err, s.ok = s.pull()
	if s.err != nil {
		s.ok = false
	}
}
