package sim

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Metric is something to plot over time.
type Metric struct {
	// Name is what the metric is called in titles and file names: "utilization cpu".
	Name string
	// About explains it in a line.
	About string
	// Of is the metric's value in a sample of a result.
	Of func(r *Result, s *Sample) float64

	format func(float64) string
	most   float64   // of the axis, if it is fixed
	steps  []float64 // of the axis, if they are not decimal
}

// Metrics are all there are for some results. Those that are 0 throughout are left out.
func Metrics(results ...*Result) []Metric {
	count := func(v float64) string { return short(v) }
	percent := func(v float64) string { return strconv.FormatFloat(100*v, 'g', 4, 64) + "%" }
	span := func(v float64) string { return roughly(time.Duration(v * float64(time.Second))) }
	spans := []float64{1, 5, 15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 24 * 3600, 2 * 24 * 3600, 7 * 24 * 3600}
	all := []Metric{
		{Name: "pending pods", About: "Pods that wait for a node", Of: func(_ *Result, s *Sample) float64 { return float64(s.Pending) }, format: count},
		{Name: "running pods", About: "Pods on nodes", Of: func(_ *Result, s *Sample) float64 { return float64(s.Running) }, format: count},
		{Name: "mean wait", About: "How long pods had waited that were placed since the sample before", Of: func(_ *Result, s *Sample) float64 { return s.MeanWait.Seconds() }, format: span, steps: spans},
		{Name: "longest wait", About: "The longest of those waits", Of: func(_ *Result, s *Sample) float64 { return s.MaxWait.Seconds() }, format: span, steps: spans},
		{Name: "placed pods", About: "Pods placed since the sample before", Of: func(_ *Result, s *Sample) float64 { return float64(s.Placed) }, format: count},
		{Name: "preempted pods", About: "Pods preempted since the sample before", Of: func(_ *Result, s *Sample) float64 { return float64(s.Preempted) }, format: count},
		{Name: "evicted pods", About: "Pods lost with their node, or drained, since the sample before", Of: func(_ *Result, s *Sample) float64 { return float64(s.Evicted) }, format: count},
		{Name: "nodes", About: "Nodes that are up", Of: func(_ *Result, s *Sample) float64 { return float64(s.Nodes) }, format: count},
	}
	for _, k := range []struct {
		name, about string
		of          func(*Sample) []float64
		most        float64
	}{
		{"utilization", "The requested part of what nodes have of %s", func(s *Sample) []float64 { return s.Utilization }, 1},
		{"fragmentation", "The part of free %s on nodes where the workload's common pods don't fit", func(s *Sample) []float64 { return s.Fragmentation }, 0},
		{"skew", "The standard deviation of nodes' utilization of %s", func(s *Sample) []float64 { return s.Skew }, 0},
		{"zone skew", "The difference between the most and the least utilized zone in %s", func(s *Sample) []float64 { return s.ZoneSkew }, 0},
	} {
		for _, name := range resourcesOf(results) {
			all = append(all, Metric{Name: k.name + " " + string(name), About: fmt.Sprintf(k.about, name), format: percent, most: k.most, Of: func(r *Result, s *Sample) float64 {
				if i := slices.Index(r.Resources, name); i >= 0 {
					return k.of(s)[i]
				}
				return 0
			}})
		}
	}
	for _, m := range measuresOf(results) {
		metric := Metric{Name: m.Name, About: m.About, Of: func(r *Result, s *Sample) float64 { return r.measured(s.Measures, m.Name) }, format: count}
		if m.Percent {
			metric.format = percent
		}
		all = append(all, metric)
	}
	return slices.DeleteFunc(all, func(m Metric) bool {
		for _, r := range results {
			for i := range r.Samples {
				if m.Of(r, &r.Samples[i]) != 0 {
					return false
				}
			}
		}
		return true
	})
}

func resourcesOf(results []*Result) (names []corev1.ResourceName) {
	for _, r := range results {
		for _, name := range r.Resources {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// WriteSVG plots a metric of one or more results over time.
func WriteSVG(w io.Writer, m Metric, results ...*Result) error {
	c := chart{about: m.About, format: m.format, most: m.most, steps: m.steps, x: timeAxis(results)}
	if c.format == nil {
		c.format = short
	}
	for _, r := range results {
		l := line{name: r.Policy}
		for i := range r.Samples {
			l.points = append(l.points, point{r.Samples[i].At.Hours(), m.Of(r, &r.Samples[i])})
		}
		l.points = thin(l.points)
		c.lines = append(c.lines, l)
	}
	_, err := io.WriteString(w, c.svg())
	return err
}

// WriteWaitsSVG plots the distribution of waiting times, on a logarithmic scale.
func WriteWaitsSVG(w io.Writer, results ...*Result) error {
	level := func(d time.Duration) float64 { return math.Log10(1 + d.Seconds()) }
	c := chart{
		about: "Waiting time by percentile of pods", format: func(v float64) string { return roughly(time.Duration((math.Pow(10, v) - 1) * float64(time.Second))) },
		x: axis{least: 0, most: 100, step: 10, format: func(v float64) string { return "p" + short(v) }},
	}
	for _, s := range []time.Duration{0, time.Second, 10 * time.Second, time.Minute, 10 * time.Minute, time.Hour, 10 * time.Hour, 100 * time.Hour} {
		c.ticks = append(c.ticks, level(s))
	}
	for _, r := range results {
		l := line{name: r.Policy}
		for i, d := range r.Summary.Waits.Percentiles {
			l.points = append(l.points, point{float64(i), level(d)})
		}
		c.lines = append(c.lines, l)
	}
	_, err := io.WriteString(w, c.svg())
	return err
}

// axis of x.
type axis struct {
	least, most, step float64
	format            func(float64) string
}

func timeAxis(results []*Result) axis {
	a := axis{most: 1.0 / 3600, format: func(v float64) string { return roughly(time.Duration(v * float64(time.Hour))) }}
	for _, r := range results {
		if n := len(r.Samples); n > 0 {
			a.most = max(a.most, r.Samples[n-1].At.Hours())
		}
	}
	for _, step := range []float64{1.0 / 3600, 5.0 / 3600, 0.25 / 60, 1.0 / 60, 5.0 / 60, 0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 96, 168, 336, 720} {
		if a.step = step; a.most/step <= 9 {
			break
		}
	}
	return a
}

// short is a number in few letters.
func short(v float64) string {
	switch a := math.Abs(v); {
	case a >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 3, 64) + "M"
	case a >= 1e3:
		return strconv.FormatFloat(v/1e3, 'g', 3, 64) + "k"
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// roughly is a duration in few letters: its two greatest units.
func roughly(d time.Duration) string {
	switch {
	case d <= 0:
		return "0"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Minute:
		return d.Round(time.Second).String()
	}
	d = d.Round(time.Second)
	days, hours, minutes, seconds := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60, int(d.Seconds())%60
	var parts []string
	for _, p := range []struct {
		n    int
		unit string
	}{{days, "d"}, {hours, "h"}, {minutes, "m"}, {seconds, "s"}} {
		if p.n > 0 || len(parts) > 0 {
			parts = append(parts, fmt.Sprint(p.n, p.unit))
		}
	}
	parts = parts[:min(len(parts), 2)]
	if len(parts) == 2 && parts[1][0] == '0' {
		parts = parts[:1]
	}
	return strings.Join(parts, "")
}
