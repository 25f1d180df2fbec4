package sim

import (
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Result is what a simulation found out.
type Result struct {
	Policy, Workload string
	// Resources names the columns of all slices by resource.
	Resources []corev1.ResourceName
	// Measures are those of Options.Measures, as in each Sample.
	Measures []Measure
	Samples  []Sample
	Summary  Summary
}

// Summary is the whole run in figures. Slices are by resource, as Result.Resources.
type Summary struct {
	// End is when the last thing happened, or Options.Until.
	End time.Duration
	// Submitted pods came; each is Finished, has failed for good or was cancelled (Ended in all), or is still Pending or Running at the end. Failures counts all
	// ends in failure, those that were tried again included.
	Submitted, Ended, Finished, Failures, Cancelled, Pending, Running int
	// Placed counts placements, Evicted losses with nodes and by drains, Preempted those to others' advantage; a pod may count several times.
	Placed, Evicted, Preempted int
	// Decisions is how often the engine was asked.
	Decisions int
	// Utilization is the time-weighted mean of the requested part of what the nodes had; Fragmentation the mean of the samples'.
	Utilization, Fragmentation []float64
	// Measures are the means of the samples'.
	Measures []float64
	// Waits of all pods that were placed, from each submission to the placement; ByPriority has the greatest priority first.
	Waits      Waits
	ByPriority []PriorityWaits
}

// Waits is a distribution of waiting times.
type Waits struct {
	Count                     int
	Mean, P50, P90, P99, Most time.Duration
	// Percentiles are 101: from the shortest to the longest.
	Percentiles []time.Duration
}

// PriorityWaits are the waiting times of the pods of one priority.
type PriorityWaits struct {
	Priority int32
	Waits
}

func (m *metrics) result() *Result {
	r := &Result{Policy: m.sim.opts.Policy, Workload: m.sim.workload.Name, Resources: m.sim.resources, Measures: m.sim.opts.Measures, Samples: m.samples}
	for i := range r.Samples {
		r.Samples[i].widen(len(r.Resources))
	}
	s := &r.Summary
	*s = Summary{
		End: m.sim.now, Submitted: m.submitted, Ended: m.ended, Finished: m.finished, Failures: m.failed, Cancelled: m.cancelled,
		Pending: m.pending + m.delayed, Running: m.running, Placed: m.placements, Evicted: m.evicted, Preempted: m.preempted, Decisions: m.decisions,
	}
	s.Utilization, s.Fragmentation = make([]float64, len(r.Resources)), make([]float64, len(r.Resources))
	for i := range m.usedTime {
		s.Utilization[i] = part(m.usedTime[i], m.allocTime[i])
	}
	for i, sum := range m.fragSum {
		s.Fragmentation[i] = sum / float64(len(m.samples))
	}
	s.Measures = make([]float64, len(r.Measures))
	for i := range s.Measures {
		for k := range m.samples {
			s.Measures[i] += m.samples[k].Measures[i] / float64(len(m.samples))
		}
	}
	var all []time.Duration
	for _, priority := range slices.Backward(slices.Sorted(maps.Keys(m.waits))) {
		w := m.waits[priority]
		s.ByPriority = append(s.ByPriority, PriorityWaits{priority, waitsOf(w)})
		all = append(all, w...)
	}
	s.Waits = waitsOf(all)
	return r
}

// widen gives a sample that was taken before a resource was first seen a zero for it.
func (s *Sample) widen(n int) {
	for _, f := range []*[]float64{&s.Utilization, &s.Fragmentation, &s.Skew, &s.ZoneSkew} {
		for len(*f) < n {
			*f = append(*f, 0)
		}
	}
}

// waitsOf sorts what it is given.
func waitsOf(all []time.Duration) (w Waits) {
	if w.Count = len(all); w.Count == 0 {
		return w
	}
	slices.Sort(all)
	sum := 0.0
	for _, v := range all {
		sum += float64(v)
	}
	at := func(q float64) time.Duration { return all[int(q*float64(w.Count-1))] }
	w.Mean, w.P50, w.P90, w.P99, w.Most = time.Duration(sum/float64(w.Count)), at(0.5), at(0.9), at(0.99), at(1)
	for i := range 101 {
		w.Percentiles = append(w.Percentiles, at(float64(i)/100))
	}
	return w
}

// WriteCSV writes the samples of one or more runs, one line each, times in seconds.
func WriteCSV(w io.Writer, results ...*Result) error {
	out := csv.NewWriter(w)
	resources := resourcesOf(results)
	head := []string{"policy", "time", "nodes", "pending", "running", "placed", "mean_wait", "max_wait", "finished", "evicted", "preempted"}
	for _, kind := range []string{"utilization", "fragmentation", "skew", "zone_skew"} {
		for _, name := range resources {
			head = append(head, fmt.Sprintf("%s_%s", kind, name))
		}
	}
	measures := measuresOf(results)
	for _, m := range measures {
		head = append(head, strings.ReplaceAll(m.Name, " ", "_"))
	}
	if err := out.Write(head); err != nil {
		return err
	}
	seconds := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }
	for _, r := range results {
		for i := range r.Samples {
			s := &r.Samples[i]
			line := []string{
				r.Policy, seconds(s.At), strconv.Itoa(s.Nodes), strconv.Itoa(s.Pending), strconv.Itoa(s.Running), strconv.Itoa(s.Placed),
				seconds(s.MeanWait), seconds(s.MaxWait), strconv.Itoa(s.Finished), strconv.Itoa(s.Evicted), strconv.Itoa(s.Preempted),
			}
			for _, values := range [][]float64{s.Utilization, s.Fragmentation, s.Skew, s.ZoneSkew} {
				for _, name := range resources {
					v := 0.0
					if k := slices.Index(r.Resources, name); k >= 0 {
						v = values[k]
					}
					line = append(line, strconv.FormatFloat(v, 'f', 6, 64))
				}
			}
			for _, m := range measures {
				line = append(line, strconv.FormatFloat(r.measured(s.Measures, m.Name), 'f', 6, 64))
			}
			if err := out.Write(line); err != nil {
				return err
			}
		}
	}
	out.Flush()
	return out.Error()
}

// measuresOf are the results' measures, each once.
func measuresOf(results []*Result) (out []Measure) {
	for _, r := range results {
		for _, m := range r.Measures {
			if !slices.ContainsFunc(out, func(o Measure) bool { return o.Name == m.Name }) {
				out = append(out, m)
			}
		}
	}
	return out
}

// measured finds a measure by its name in values as of r.Measures; 0 if it was not measured.
func (r *Result) measured(values []float64, name string) float64 {
	if i := slices.IndexFunc(r.Measures, func(m Measure) bool { return m.Name == name }); i >= 0 {
		return values[i]
	}
	return 0
}
