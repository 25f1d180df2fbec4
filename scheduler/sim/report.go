package sim

import (
	"bytes"
	_ "embed" // of the page
	"fmt"
	"html/template"
	"io"
	"math"
	"time"
)

//go:embed report.html
var page string

// Figure is one figure of a run's summary, for one or more runs.
type Figure struct {
	Name string
	// Values in the order of the results, as text.
	Values []string
	// Best is the index of the best value, -1 if none is better than the others, or none is good or bad.
	Best int
}

// Compare makes a table of results' summaries.
func Compare(results ...*Result) []Figure {
	var out []Figure
	add := func(name string, good int, of func(*Result) float64, format func(float64) string) {
		f := Figure{Name: name, Best: -1}
		best := math.Inf(-1)
		for i, r := range results {
			v := of(r)
			f.Values = append(f.Values, format(v))
			if w := v * float64(good); good != 0 && w > best {
				best, f.Best = w, i
			}
		}
		same := true
		for _, v := range f.Values {
			same = same && v == f.Values[0]
		}
		if same {
			f.Best = -1
		}
		out = append(out, f)
	}
	whole := func(v float64) string { return thousands(int(v)) }
	wait := func(v float64) string { return roughly(time.Duration(v)) }
	percent := func(v float64) string { return fmt.Sprintf("%.1f%%", 100*v) }
	sum := func(f func(*Summary) float64) func(*Result) float64 {
		return func(r *Result) float64 { return f(&r.Summary) }
	}
	add("pods submitted", 0, sum(func(s *Summary) float64 { return float64(s.Submitted) }), whole)
	add("finished", 1, sum(func(s *Summary) float64 { return float64(s.Finished) }), whole)
	add("waiting at the end", -1, sum(func(s *Summary) float64 { return float64(s.Pending) }), whole)
	add("preempted", -1, sum(func(s *Summary) float64 { return float64(s.Preempted) }), whole)
	add("evicted with nodes", -1, sum(func(s *Summary) float64 { return float64(s.Evicted) }), whole)
	add("mean wait", -1, sum(func(s *Summary) float64 { return float64(s.Waits.Mean) }), wait)
	add("median wait", -1, sum(func(s *Summary) float64 { return float64(s.Waits.P50) }), wait)
	add("99th percentile wait", -1, sum(func(s *Summary) float64 { return float64(s.Waits.P99) }), wait)
	for _, p := range priorities(results) {
		add(fmt.Sprintf("99th percentile wait, priority %d", p), -1, func(r *Result) float64 {
			for _, w := range r.Summary.ByPriority {
				if w.Priority == p {
					return float64(w.P99)
				}
			}
			return 0
		}, wait)
	}
	for _, name := range resourcesOf(results) {
		column := func(of func(*Summary) []float64) func(*Result) float64 {
			return func(r *Result) float64 {
				for i, n := range r.Resources {
					if n == name {
						return of(&r.Summary)[i]
					}
				}
				return 0
			}
		}
		add("utilization of "+string(name), 1, column(func(s *Summary) []float64 { return s.Utilization }), percent)
		add("fragmentation of "+string(name), -1, column(func(s *Summary) []float64 { return s.Fragmentation }), percent)
	}
	for _, m := range measuresOf(results) {
		format := percent
		if !m.Percent {
			format = func(v float64) string { return short(v) }
		}
		add(m.Name, m.Better, func(r *Result) float64 { return r.measured(r.Summary.Measures, m.Name) }, format)
	}
	add("decisions of the engine", 0, sum(func(s *Summary) float64 { return float64(s.Decisions) }), whole)
	add("end of the last pod", -1, sum(func(s *Summary) float64 { return float64(s.End) }), wait)
	return out
}

// priorities of the results' pods, the greatest first, if there are several but not too many.
func priorities(results []*Result) (out []int32) {
	for _, r := range results {
		if len(r.Summary.ByPriority) > len(out) {
			out = out[:0]
			for _, w := range r.Summary.ByPriority {
				out = append(out, w.Priority)
			}
		}
	}
	if len(out) < 2 || len(out) > 8 {
		return nil
	}
	return out
}

func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// WriteHTML writes a report of one or more results, side by side, as one file that needs no other.
func WriteHTML(w io.Writer, results ...*Result) error {
	type plot struct {
		Name, About string
		SVG         template.HTML
	}
	data := struct {
		Workload string
		Policies []string
		Figures  []Figure
		Plots    []plot
	}{Figures: Compare(results...)}
	for _, r := range results {
		data.Workload = r.Workload
		data.Policies = append(data.Policies, r.Policy)
	}
	var svg bytes.Buffer
	if err := WriteWaitsSVG(&svg, results...); err != nil {
		return err
	}
	data.Plots = append(data.Plots, plot{"waiting time", "By percentile of all placements, on a logarithmic scale", template.HTML(svg.String())})
	for _, m := range Metrics(results...) {
		svg.Reset()
		if err := WriteSVG(&svg, m, results...); err != nil {
			return err
		}
		data.Plots = append(data.Plots, plot{m.Name, m.About, template.HTML(svg.String())})
	}
	t, err := template.New("report").Funcs(template.FuncMap{"color": func(i int) string { return colors[i%len(colors)] }}).Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, data)
}
