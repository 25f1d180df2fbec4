package sim_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson/keelson/scheduler/sim"
	"github.com/keelson/keelson/scheduler/sim/trace"
)

var rewrite = flag.Bool("rewrite", false, "write what happens into testdata as what is expected")

// TestScenarios plays the workloads in testdata, each a CSV and below it the log that is expected.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			given, want, _ := strings.Cut(string(data), "----\n")
			_, table, _ := strings.Cut(given, "\n") // below the title
			w, err := trace.ReadCSV(trace.CSVFile{Source: trace.Bytes([]byte(table))})
			if err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			if _, err := run(t, w, sim.Options{Log: &log, Check: true}); err != nil {
				t.Fatal(err)
			}
			if *rewrite {
				if err := os.WriteFile(name, []byte(given+"----\n"+log.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, log.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
