package apiservertest

import (
	"strings"
	"testing"
)

// What format writes, parseScript reads, and differences are found.
func TestScripts(t *testing.T) {
	names, err := scripts()
	if err != nil || len(names) < 8 {
		t.Fatalf("%v, %v", names, err)
	}
	for _, name := range names {
		src, err := testdata.ReadFile("testdata/" + name + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		steps, err := parseScript(string(src))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		titles := map[string]bool{}
		answers := make([]answer, len(steps))
		for i, s := range steps {
			if titles[s.title] {
				t.Errorf("%s: %s: two requests have this title", name, s.title)
			}
			titles[s.title] = true
			if answers[i], err = parseAnswer(s.want); err != nil {
				t.Errorf("%s: %s: %v", name, s.title, err)
			}
			if d := compare(answers[i], answers[i]); len(d) > 0 {
				t.Errorf("%s: %s differs from itself: %v", name, s.title, d)
			}
		}
		if again := string(format(steps, answers)); again != string(src) {
			t.Errorf("%s is written otherwise than it was read", name)
		}
	}
	if _, err := parseScript("GET /\n"); err == nil {
		t.Error("a request without a title is accepted")
	}
}

func TestCompare(t *testing.T) {
	body := func(message string) answer {
		return answer{code: 422, body: map[string]any{"message": message, "items": []any{map[string]any{"name": "a"}}}}
	}
	want := body("is invalid: [a: Required value, b: Required value]")
	for name, tc := range map[string]struct {
		change func(*answer)
		path   string
	}{
		"same":         {func(*answer) {}, ""},
		"order":        {func(a *answer) { a.body = body("is invalid: [b: Required value, a: Required value]").body }, ""},
		"code":         {func(a *answer) { a.code = 400 }, "code"},
		"warning":      {func(a *answer) { a.warnings = []string{"w"} }, "warnings"},
		"message":      {func(a *answer) { a.body = body("is invalid: [a: Required value]").body }, ".message"},
		"missing item": {func(a *answer) { a.body.(map[string]any)["items"] = []any{} }, ".items.[a]"},
		"another item": {func(a *answer) {
			a.body.(map[string]any)["items"] = []any{map[string]any{"name": "b"}, map[string]any{"name": "a"}}
		}, ".items.[b]"},
		"no body at all": {func(a *answer) { a.body = nil }, ""},
	} {
		got := body("is invalid: [a: Required value, b: Required value]")
		tc.change(&got)
		d := compare(want, got)
		switch {
		case name == "no body at all":
			if len(d) == 0 {
				t.Errorf("%s: no difference", name)
			}
		case tc.path == "" && len(d) > 0, tc.path != "" && (len(d) != 1 || d[0].path != tc.path):
			t.Errorf("%s: %v, want %q", name, d, tc.path)
		}
	}
}

func TestExpand(t *testing.T) {
	if got := expand("{ns}/{ab*3}/{\"a\":1}", map[string]string{"ns": "x"}); got != `x/ababab/{"a":1}` {
		t.Error(got)
	}
	if got := expand("{[*2}1{]*2}", nil); got != "[[1]]" || strings.Contains(got, "*") {
		t.Error(got)
	}
}
