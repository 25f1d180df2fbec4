package apiservertest

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

//go:embed testdata/*.txt
var testdata embed.FS

// step is one request of a script and the answer that is expected.
type step struct {
	title        string
	line         int
	method, path string
	header       http.Header
	body         string
	want         string
}

// scripts are the names of the files, without their extension, in order.
func scripts() ([]string, error) {
	entries, err := fs.ReadDir(testdata, "testdata")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".txt"))
	}
	return names, nil
}

// parseScript reads a script.
func parseScript(src string) ([]step, error) {
	var steps []step
	lines := strings.SplitAfter(src, "\n")
	for i := 0; i < len(lines); {
		title, ok := strings.CutPrefix(strings.TrimRight(lines[i], "\n"), "=== ")
		if !ok {
			if strings.TrimSpace(lines[i]) != "" {
				return nil, fmt.Errorf("line %d: expected a line that begins with ===", i+1)
			}
			i++
			continue
		}
		s := step{title: title, line: i + 1, header: http.Header{}}
		i++
		next := func(until ...string) string {
			var b strings.Builder
			for ; i < len(lines); i++ {
				for _, u := range until {
					if strings.HasPrefix(lines[i], u) {
						return b.String()
					}
				}
				b.WriteString(lines[i])
			}
			return b.String()
		}
		head, body, _ := strings.Cut(next("=== ", "--- ")+"\n", "\n\n")
		s.body = strings.TrimRight(body, "\n")
		first, headers, _ := strings.Cut(head, "\n")
		if s.method, s.path, ok = strings.Cut(first, " "); !ok {
			return nil, fmt.Errorf("line %d: expected a method and a path", s.line+1)
		}
		for h := range strings.SplitSeq(strings.TrimSpace(headers), "\n") {
			if h == "" {
				continue
			}
			name, value, ok := strings.Cut(h, ": ")
			if !ok {
				return nil, fmt.Errorf("%s: %q: expected a header", title, h)
			}
			s.header.Add(name, value)
		}
		s.want = next("=== ")
		steps = append(steps, s)
	}
	return steps, nil
}

// format writes a script with the answers that its requests got.
func format(steps []step, answers []answer) []byte {
	var b bytes.Buffer
	for i, s := range steps {
		fmt.Fprintf(&b, "=== %s\n%s %s\n", s.title, s.method, s.path)
		for _, name := range []string{"User", "Accept", "Content-Type", "Encode", "Managed", "Settle", "Impersonate-User", "Impersonate-Group"} {
			for _, v := range s.header.Values(name) {
				fmt.Fprintf(&b, "%s: %s\n", name, v)
			}
		}
		if s.body != "" {
			fmt.Fprintf(&b, "\n%s\n", s.body)
		}
		b.WriteString(answers[i].String())
	}
	return b.Bytes()
}

var repeated = regexp.MustCompile(`\{([^{}*]+)\*(\d+)\}`)

// expand replaces {NAME} and {x*N}.
func expand(s string, vars map[string]string) string {
	for name, v := range vars {
		s = strings.ReplaceAll(s, "{"+name+"}", v)
	}
	return repeated.ReplaceAllStringFunc(s, func(m string) string {
		parts := repeated.FindStringSubmatch(m)
		n, err := strconv.Atoi(parts[2])
		if err != nil {
			return m
		}
		return strings.Repeat(parts[1], n)
	})
}
