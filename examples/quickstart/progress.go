package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/term"
)

// progress shows steps: in place on a terminal, as plain lines elsewhere.
type progress struct {
	out   io.Writer
	live  bool
	began time.Time
	shown []string
}

func newProgress(f *os.File) *progress {
	return &progress{out: f, live: term.IsTerminal(int(f.Fd())), began: time.Now()}
}

func (p *progress) step(what string) {
	p.shown = nil
	fmt.Fprintf(p.out, "%6.1fs  … %s\n", time.Since(p.began).Seconds(), what)
}

// show replaces the lines below the step, or prints those that are new.
func (p *progress) show(lines []string) {
	if slices.Equal(lines, p.shown) {
		return
	}
	if p.live && len(p.shown) > 0 {
		fmt.Fprintf(p.out, "\x1b[%dA\x1b[J", len(p.shown))
	}
	for _, l := range lines {
		if p.live || !slices.Contains(p.shown, l) {
			fmt.Fprintf(p.out, "             %s\n", l)
		}
	}
	p.shown = slices.Clone(lines)
}

func (p *progress) done(what string) {
	p.shown = nil
	fmt.Fprintf(p.out, "%6.1fs  ✓ %s\n", time.Since(p.began).Seconds(), what)
}
