package sim_test

import (
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/sim"
)

// TestReport: every plot is well-formed, the page has them all and needs no other file, and the table marks what is better.
func TestReport(t *testing.T) {
	var results []*sim.Result
	for i, name := range []string{"<one>", "two & a half"} {
		r, err := run(t, random(uint64(i), 200), sim.Options{Policy: name, Engine: scheduler.EngineOptions{Seed: 1}})
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, r)
	}
	var page bytes.Buffer
	if err := sim.WriteHTML(&page, results...); err != nil {
		t.Fatal(err)
	}
	metrics := sim.Metrics(results...)
	if n := strings.Count(page.String(), "<svg "); n != len(metrics)+1 || n < 12 {
		t.Errorf("%d plots, %d metrics", n, len(metrics))
	}
	for _, bad := range []string{"<one>", "src=", "href=", "@import", "ZgotmplZ", "NaN"} {
		if strings.Contains(page.String(), bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	for _, m := range metrics {
		var b bytes.Buffer
		if err := sim.WriteSVG(&b, m, results...); err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(&b)
		for {
			if _, err := d.Token(); err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("%s: %v", m.Name, err)
				}
				break
			}
		}
	}
	legendFits(t, metrics[0], results)
	best := 0
	for _, f := range sim.Compare(results...) {
		if len(f.Values) != 2 {
			t.Errorf("%+v", f)
		}
		if f.Best >= 0 {
			best++
		}
	}
	if best < 3 {
		t.Errorf("%d figures are better in one", best)
	}
	var table bytes.Buffer
	if err := sim.WriteCSV(&table, results...); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&table).ReadAll()
	if err != nil || len(rows) != 1+len(results[0].Samples)+len(results[1].Samples) || len(rows[0]) < 15 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
}

// legendFits: names of policies don't run over the edge, nor into one another, however long they are.
func legendFits(t *testing.T, m sim.Metric, results []*sim.Result) {
	t.Helper()
	var many []*sim.Result
	for _, name := range []string{"default", "most allocated, with fragmentation", "least allocated without preemption", strings.Repeat("long ", 40), "ünï"} {
		r := *results[0]
		r.Policy = name
		many = append(many, &r)
	}
	var b bytes.Buffer
	if err := sim.WriteSVG(&b, m, many...); err != nil {
		t.Fatal(err)
	}
	ends := map[string]float64{} // by row
	entries := regexp.MustCompile(`rx="1.5" fill="[^"]*"/><text x="([0-9.]+)" y="([0-9]+)" fill="#64748b">([^<]*)<`).FindAllStringSubmatch(b.String(), -1)
	for _, e := range entries {
		x, err := strconv.ParseFloat(e[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		end := x + 6.4*float64(utf8.RuneCountInString(e[3]))
		if x <= ends[e[2]] || end > 560 {
			t.Errorf("%q from %v to %v, after %v", e[3], x, end, ends[e[2]])
		}
		ends[e[2]] = end
	}
	if len(entries) != 5 || len(ends) < 3 {
		t.Errorf("%d names in %d rows", len(entries), len(ends))
	}
}
