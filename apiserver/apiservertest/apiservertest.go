package apiservertest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// Server is the one under test.
type Server struct {
	// URL is https://HOST:PORT, Client a client that trusts it.
	URL    string
	Client *http.Client
}

// Users are those that requests are made by, by bearer token.
func Users() map[string]user.Info {
	return map[string]user.Info{
		"admin":  &user.DefaultInfo{Name: "admin", UID: "admin", Groups: []string{user.SystemPrivilegedGroup}},
		"nobody": &user.DefaultInfo{Name: "nobody", UID: "nobody"},
		"viewer": &user.DefaultInfo{Name: "viewer", UID: "viewer", Groups: []string{"viewers"}},
		"node":   &user.DefaultInfo{Name: "system:node:n1", UID: "n1", Groups: []string{user.NodesGroup}},
	}
}

// Difference is a place where a server is known to answer unlike kube-apiserver.
type Difference struct {
	// Script and Title of the request, and Path in the answer (".spec.x", "code", "warnings"), as patterns of path.Match;
	// an empty one matches all.
	Script, Title, Path string
	// Reason says why.
	Reason string
}

// Options of Run.
type Options struct {
	// Differences that are known. One that isn't found is an error, too.
	Differences []Difference
	// Settle is how long to wait before the requests marked so: for a server whose caches lag behind what was written. Those of kube-apiserver
	// need a second.
	Settle time.Duration
	// Record, if not empty, is the folder into which the scripts are written with the answers that this server gives.
	Record string
}

// Run sends every request to s and compares the answers with those of kube-apiserver. It is to be called on a fresh server.
func Run(t *testing.T, s Server, o Options) {
	names, err := scripts()
	if err != nil {
		t.Fatal(err)
	}
	used := make([]bool, len(o.Differences))
	ran := 0
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			ran++
			src, err := testdata.ReadFile("testdata/" + name + ".txt")
			if o.Record != "" {
				src, err = os.ReadFile(filepath.Join(o.Record, name+".txt"))
			}
			if err != nil {
				t.Fatal(err)
			}
			steps, err := parseScript(string(src))
			if err != nil {
				t.Fatal(err)
			}
			r := runner{server: s, vars: map[string]string{"ns": name}}
			if err := r.prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
			answers := make([]answer, len(steps))
			for i, st := range steps {
				if st.header.Get("Settle") != "" {
					time.Sleep(o.Settle)
				}
				if answers[i], err = r.do(t.Context(), st); err != nil {
					t.Fatalf("%s: %v", st.title, err)
				}
				if o.Record == "" {
					check(t, name, st, answers[i], o.Differences, used)
				}
			}
			if o.Record != "" {
				if err := os.WriteFile(filepath.Join(o.Record, name+".txt"), format(steps, answers), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	if ran < len(names) || o.Record != "" {
		return // only some, by -run
	}
	for i, d := range o.Differences {
		if !used[i] {
			t.Errorf("a known difference was not found: %+v", d)
		}
	}
}

func check(t *testing.T, script string, st step, got answer, known []Difference, used []bool) {
	t.Helper()
	want, err := parseAnswer(st.want)
	if err != nil {
		t.Errorf("%s: %v", st.title, err)
		return
	}
	var unknown []string
next:
	for _, d := range compare(want, got) {
		for i, k := range known {
			if matches(k.Script, script) && matches(k.Title, st.title) && matches(k.Path, d.path) {
				used[i] = true
				continue next
			}
		}
		unknown = append(unknown, d.String())
	}
	if len(unknown) > 0 {
		t.Errorf("%s.txt:%d: %s: %s %s\n%s", script, st.line, st.title, st.method, st.path, strings.Join(unknown, "\n"))
	}
}

func matches(pattern, s string) bool {
	if pattern == "" {
		return true
	}
	ok, err := path.Match(pattern, s)
	return ok && err == nil || pattern == s
}

// runner sends the requests of one script.
type runner struct {
	server Server
	vars   map[string]string
}

// prepare makes the namespace and its service account, as the controllers would.
func (r *runner) prepare(ctx context.Context) error {
	for _, s := range []step{
		{method: "POST", path: "/api/v1/namespaces", body: "metadata: {name: '{ns}'}"},
		{method: "POST", path: "/api/v1/namespaces/{ns}/serviceaccounts", body: "metadata: {name: default}"},
	} {
		s.header = http.Header{}
		if a, err := r.do(ctx, s); err != nil || a.code != http.StatusCreated {
			return fmt.Errorf("%s: %v %v", s.path, a, err)
		}
	}
	return nil
}

const perRequest = 30 * time.Second

func (r *runner) do(ctx context.Context, s step) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, perRequest)
	defer cancel()
	body, target := expand(s.body, r.vars), expand(s.path, r.vars)
	if s.header.Get("Encode") == "protobuf" {
		var err error
		if body, err = toProtobuf(body); err != nil {
			return answer{}, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, s.method, r.server.URL, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	raw, query, _ := strings.Cut(target, "?")
	req.URL.Opaque = "//" + req.URL.Host + raw // as it is written, percent signs and dots included
	req.URL.RawQuery = query
	managed := false
	who := "admin"
	for name, values := range s.header {
		switch name {
		case "User":
			who = values[0]
		case "Managed":
			managed = true
		case "Encode", "Settle":
		default:
			req.Header[name] = values
		}
	}
	if who != "anonymous" {
		req.Header.Set("Authorization", "Bearer "+who)
	}
	if body == "" {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	if req.Header.Get("Content-Type") == "" && body != "" {
		req.Header.Set("Content-Type", "application/yaml")
		if strings.HasPrefix(body, "{") || strings.HasPrefix(body, "[") {
			req.Header.Set("Content-Type", "application/json")
		}
	}
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "application/json")
	}
	resp, err := r.server.Client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a, vars, err := read(resp, body+target, managed)
	for k, v := range vars {
		r.vars[k] = v
	}
	return a, err
}

// toProtobuf encodes an object as client-go would.
func toProtobuf(body string) (string, error) {
	raw, err := yaml.YAMLToJSON([]byte(body))
	if err != nil {
		return "", err
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(raw); err != nil {
		return "", err
	}
	var obj runtime.Object
	if gvk := u.GroupVersionKind(); gvk.Kind == "DeleteOptions" {
		obj = &metav1.DeleteOptions{}
	} else if obj, err = scheme.Scheme.New(gvk); err != nil {
		return "", err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, obj); err != nil {
		return "", err
	}
	obj.GetObjectKind().SetGroupVersionKind(u.GroupVersionKind())
	out, err := runtime.Encode(protobuf.NewSerializer(scheme.Scheme, scheme.Scheme), obj)
	return string(out), err
}
