package apiservertest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// answer is what a server answered, in the form that is compared.
type answer struct {
	code     int
	warnings []string
	body     any // decoded JSON; a string if it is no JSON
}

// String is the answer as it is written in scripts.
func (a answer) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "--- %d\n", a.code)
	for _, w := range a.warnings {
		fmt.Fprintf(&b, "> Warning: %s\n", w)
	}
	if a.body != nil {
		raw, err := yaml.Marshal(a.body)
		if err != nil {
			return err.Error()
		}
		b.Write(raw)
	}
	b.WriteString("\n")
	return b.String()
}

// parseAnswer reads what String has written.
func parseAnswer(s string) (a answer, err error) {
	first, rest, _ := strings.Cut(s, "\n")
	if a.code, err = strconv.Atoi(strings.TrimPrefix(first, "--- ")); err != nil {
		return a, fmt.Errorf("%q: expected --- and a status code", first)
	}
	for {
		w, ok := strings.CutPrefix(rest, "> Warning: ")
		if !ok {
			break
		}
		w, rest, _ = strings.Cut(w, "\n")
		a.warnings = append(a.warnings, w)
	}
	if strings.TrimSpace(rest) == "" {
		return a, nil
	}
	return a, yaml.Unmarshal([]byte(rest), &a.body)
}

// read takes an answer apart. keep are texts of the request, which stay as they are although they look random.
func read(resp *http.Response, keep string, managed bool) (a answer, vars map[string]string, err error) {
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, nil, err
	}
	a = answer{code: resp.StatusCode, warnings: resp.Header.Values("Warning")}
	if t := resp.Header.Get("Content-Type"); strings.Contains(t, "yaml") {
		if raw, err = yaml.YAMLToJSON(raw); err != nil {
			return a, nil, err
		}
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	var docs []any
	for {
		var v any
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			docs = []any{string(raw)}
			break
		}
		docs = append(docs, v)
	}
	switch len(docs) {
	case 0:
	case 1:
		a.body = docs[0]
	default:
		a.body = docs
	}
	vars = variables(a.body)
	n := normalizer{keep: keep, now: time.Now(), managed: managed}
	a.body = n.value("", a.body)
	for i, w := range a.warnings {
		a.warnings[i] = n.text(w)
	}
	slices.Sort(a.warnings)
	return a, vars, nil
}

// variables are what later requests may refer to.
func variables(body any) map[string]string {
	out := map[string]string{}
	m, _ := body.(map[string]any)
	md, _ := m["metadata"].(map[string]any)
	for name, key := range map[string]string{"rv": "resourceVersion", "uid": "uid", "continue": "continue"} {
		if v, ok := md[key].(string); ok && v != "" {
			out[name] = v
		}
	}
	return out
}

// normalizer replaces what differs from run to run.
type normalizer struct {
	keep    string
	now     time.Time
	managed bool
}

var (
	uids      = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	times     = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	service   = regexp.MustCompile(`\b10\.(9[6-9]|10\d|11[01])\.\d+\.\d+\b`) // in 10.96.0.0/12
	access    = regexp.MustCompile(`\bkube-api-access-[a-z0-9]{5}\b`)
	ports     = regexp.MustCompile(`\b3[0-2]\d{3}\b`)
	portCells = regexp.MustCompile(`:3[0-2]\d{3}/`)
	age       = regexp.MustCompile(`^\d+s$`)
	tokens    = regexp.MustCompile(`ey[\w-]+\.ey[\w-]+\.[\w-]+`)
	// versions are resource versions in texts.
	versions = regexp.MustCompile(`(\brecord \(|, current: |\\?"resourceVersion\\?":\\?")\d+`)
	memory   = regexp.MustCompile(`0xc[0-9a-f]{6,}`)
)

func (n normalizer) text(s string) string {
	unless := func(word string) func(string) string {
		return func(m string) string {
			if strings.Contains(n.keep, m) {
				return m
			}
			return word
		}
	}
	s = tokens.ReplaceAllString(s, "TOKEN")
	s = uids.ReplaceAllStringFunc(s, unless("UID"))
	s = versions.ReplaceAllString(s, "${1}RV")
	s = access.ReplaceAllString(s, "kube-api-access-SUFFIX")
	s = memory.ReplaceAllString(s, "POINTER")
	s = times.ReplaceAllStringFunc(s, func(m string) string {
		t, err := time.Parse(time.RFC3339, m)
		if err != nil || math.Abs(n.now.Sub(t).Hours()) > 30 {
			return m
		}
		return "TIME"
	})
	s = portCells.ReplaceAllString(s, ":NODE-PORT/")
	return service.ReplaceAllStringFunc(s, unless("SERVICE-IP"))
}

func (n normalizer) value(key string, v any) any {
	switch v := v.(type) {
	case string:
		switch {
		case key == "resourceVersion" && v != "" && v != "0":
			return "RV"
		case key == "serverAddress":
			return "ADDRESS"
		case key == "continue" && v != "":
			return "CONTINUE"
		case age.MatchString(v) && key == "cells":
			return "AGE"
		case len(v) > 8000:
			return fmt.Sprintf("%s… (%d bytes)", n.text(v[:300]), len(v))
		}
		return n.text(v)
	case float64:
		if s := strconv.FormatFloat(v, 'f', -1, 64); (key == "nodePort" || key == "healthCheckNodePort") && ports.MatchString(s) && !strings.Contains(n.keep, s) {
			return "NODE-PORT"
		}
		return v
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = n.value(key, v[i])
		}
		if key == "causes" {
			sort.SliceStable(out, func(i, j int) bool { return fmt.Sprint(out[i]) < fmt.Sprint(out[j]) })
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			if k == "managedFields" && !n.managed || k == "storageVersionHash" {
				continue
			}
			out[k] = n.value(k, e)
		}
		if p, ok := v["generateName"].(string); ok && p != "" {
			if name, ok := v["name"].(string); ok && strings.HasPrefix(name, p) && len(name) == len(p)+5 {
				out["name"] = p + "SUFFIX"
			}
		}
		return out
	}
	return v
}

// difference is a place at which two answers differ.
type difference struct{ path, want, got string }

func (d difference) String() string {
	return fmt.Sprintf("%s:\n\twant %s\n\tgot  %s", d.path, d.want, d.got)
}

func compare(want, got answer) []difference {
	var out []difference
	add := func(path string, w, g any) {
		out = append(out, difference{path, show(w), show(g)})
	}
	if want.code != got.code {
		add("code", want.code, got.code)
	}
	if !slices.Equal(want.warnings, got.warnings) {
		add("warnings", want.warnings, got.warnings)
	}
	var walk func(path string, w, g any)
	walk = func(path string, w, g any) {
		wm, ok1 := w.(map[string]any)
		gm, ok2 := g.(map[string]any)
		if ok1 && ok2 {
			keys := map[string]bool{}
			for k := range wm {
				keys[k] = true
			}
			for k := range gm {
				keys[k] = true
			}
			for k := range keys {
				walk(path+"."+k, wm[k], gm[k])
			}
			return
		}
		wl, ok1 := w.([]any)
		gl, ok2 := g.([]any)
		if ok1 && ok2 && len(wl) == len(gl) {
			for i := range wl {
				walk(fmt.Sprintf("%s[%d]", path, i), wl[i], gl[i])
			}
			return
		}
		if ok1 && ok2 && byName(wl) != nil && byName(gl) != nil {
			walk(path, byName(wl), byName(gl))
			return
		}
		if emptyList(w) && emptyList(g) || sameMistakes(w, g) {
			return
		}
		if !reflect.DeepEqual(w, g) {
			add(path, w, g)
		}
	}
	walk("", want.body, got.body)
	sort.Slice(out, func(i, j int) bool { return out[i].path < out[j].path })
	return out
}

// byName makes a map of a list of things with names; nil if it is none.
func byName(list []any) map[string]any {
	out := map[string]any{}
	for i, e := range list {
		m, _ := e.(map[string]any)
		name, _ := m["name"].(string)
		if md, ok := m["metadata"].(map[string]any); ok {
			name, _ = md["name"].(string)
		}
		if r, ok := m["resource"].(string); ok {
			name = r
		}
		if cells, ok := m["cells"].([]any); ok && len(cells) > 0 {
			name, _ = cells[0].(string)
		}
		if name == "" || out["["+name+"]"] != nil {
			return nil
		}
		out["["+name+"]"] = list[i]
	}
	return out
}

// emptyList is true of null and of a list of nothing, which clients don't tell apart.
func emptyList(v any) bool {
	l, ok := v.([]any)
	return v == nil || ok && len(l) == 0
}

// sameMistakes compares messages that list mistakes; kube-apiserver's own order is that of a map in places.
func sameMistakes(w, g any) bool {
	a, ok1 := w.(string)
	b, ok2 := g.(string)
	if !ok1 || !ok2 || !strings.Contains(a, "[") {
		return false
	}
	parts := func(s string) []string {
		l := strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune("[], ", r) })
		slices.Sort(l)
		return l
	}
	return slices.Equal(parts(a), parts(b))
}

func show(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	if s, ok := v.(string); ok {
		return s
	}
	return string(raw)
}
