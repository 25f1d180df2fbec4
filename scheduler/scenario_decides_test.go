package scheduler_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// decidesNothing are plugins of the default profile that are asked at a point, where they never have the last word.
var decidesNothing = map[string]string{
	"PodTopologySpread preFilter": "rejects nodes, never a pod as a whole",
	"NodeVolumeLimits preFilter":  "what is wrong with a pod's claims is said of each node",
	"InterPodAffinity preFilter":  "rejects nodes, never a pod as a whole",
}

// TestDecides: for each plugin of the default profile, and each point at which it is asked, a scenario begins with the command decides. It is played again
// without the plugin at that point, and something else must come out.
func TestDecides(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, section := range sections(string(text)) {
			what, _, _ := strings.Cut(strings.TrimPrefix(section, "decides "), "\n")
			shown[what] = true
			t.Run(what, func(t *testing.T) {
				s := newScenario(t)
				s.without = true
				if s.run(section) == section {
					t.Errorf("%s: without it the same comes out:\n%s", file, section)
				}
			})
		}
	}
	for _, w := range plugins.Default() {
		name := w.Plugin.Name()
		points := strings.Fields(scheduler.PointsOf(w.Plugin).String())
		if _, groups := w.Plugin.(scheduler.GroupPlugin); groups {
			points = append(points, "group")
		}
		for _, point := range points {
			what := name + " " + point
			if _, nothing := decidesNothing[what]; shown[what] == nothing {
				t.Errorf("%s: a scenario that shows it: %v; %q", what, shown[what], decidesNothing[what])
			}
			delete(shown, what)
		}
	}
	for what := range shown {
		t.Errorf("%s: not in the default profile", what)
	}
}

var start = regexp.MustCompile(`(?m)^(decides|config)\b`)

// sections are the parts of a file from one command decides up to what starts anew.
func sections(text string) (out []string) {
	at := start.FindAllStringIndex(text, -1)
	for i, from := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		if part := text[from[0]:end]; strings.HasPrefix(part, "decides") {
			out = append(out, part)
		}
	}
	return out
}
