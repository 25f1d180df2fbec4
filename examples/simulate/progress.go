package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/keelson/keelson/scheduler/sim"
)

// progress shows a line for each policy: in place on a terminal, else now and then.
type progress struct {
	out      io.Writer
	live     bool
	pods     int
	policies []policy
	began    time.Time

	mu    sync.Mutex
	now   map[string]sim.Progress
	drawn time.Time
	lines int
	tenth map[string]int
}

func newProgress(f *os.File, pods int, policies []policy) *progress {
	return &progress{out: f, live: term.IsTerminal(int(f.Fd())), pods: max(pods, 1), policies: policies, began: time.Now(), now: map[string]sim.Progress{}, tenth: map[string]int{}}
}

// show is called by the simulations, from time to time.
func (p *progress) show(policy string, now sim.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now[policy] = now
	if !p.live {
		if tenth := 10 * now.Submitted / p.pods; tenth > p.tenth[policy] {
			p.tenth[policy] = tenth
			fmt.Fprintf(p.out, "%6.1fs  %s\n", time.Since(p.began).Seconds(), p.line(policy, &now))
		}
		return
	}
	if time.Since(p.drawn) > 100*time.Millisecond {
		p.draw()
	}
}

func (p *progress) draw() {
	p.drawn = time.Now()
	if p.lines > 0 {
		fmt.Fprintf(p.out, "\x1b[%dA\x1b[J", p.lines)
	}
	p.lines = len(p.policies)
	for _, policy := range p.policies {
		now := p.now[policy.name]
		const width = 24
		full := min(width*now.Submitted/p.pods, width)
		fmt.Fprintf(p.out, "%s%s %s\n", strings.Repeat("█", full), strings.Repeat("░", width-full), p.line(policy.name, &now))
	}
}

func (p *progress) line(policy string, now *sim.Progress) string {
	hours := int(now.Now.Hours())
	return fmt.Sprintf("%-16s day %d %02d:%02d  %3d%% of the pods came: %d wait, %d run, %d ended", policy, hours/24+1, hours%24, int(now.Now.Minutes())%60, min(100*now.Submitted/p.pods, 100), now.Pending, now.Running, now.Finished)
}

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live {
		p.draw()
	}
}

// table compares the results in figures; a star marks what is better.
func table(out io.Writer, results []*sim.Result) {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, r := range results {
		fmt.Fprint(w, "\t", strings.ToUpper(r.Policy))
	}
	fmt.Fprintln(w)
	for _, f := range sim.Compare(results...) {
		fmt.Fprint(w, f.Name)
		for i, v := range f.Values {
			if i == f.Best {
				v += " *"
			}
			fmt.Fprint(w, "\t", v)
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
}
