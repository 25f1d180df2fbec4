package extender_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/extender"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service answers each verb with a function of its arguments.
type service map[string]func(args map[string]any) any

func (s service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	verb := strings.TrimPrefix(r.URL.Path, "/x/")
	answer := s[verb]
	var args map[string]any
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || answer == nil || json.NewDecoder(r.Body).Decode(&args) != nil {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	switch a := answer(args).(type) {
	case int:
		w.WriteHeader(a)
	case string:
		_, _ = w.Write([]byte(a))
	default:
		_ = json.NewEncoder(w).Encode(a)
	}
}

var allVerbs = extender.Options{FilterVerb: "filter", PrioritizeVerb: "prioritize", PreemptVerb: "preempt", BindVerb: "bind", Weight: 2}

func start(t *testing.T, h http.Handler, opts extender.Options) *extender.Extender {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	x, err := extender.New(srv.URL+"/x/", opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.CloseIdleConnections)
	return x
}

func nodes(names ...string) (out []*corev1.Node) {
	for _, n := range names {
		out = append(out, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}})
	}
	return out
}

var pod = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "p", UID: "u"}}

func reasons(rejected map[string]*scheduler.Rejection) map[string]string {
	out := map[string]string{}
	for name, r := range rejected {
		out[name] = strings.Join(r.Reasons, ",")
		if r.Unresolvable {
			out[name] += "!"
		}
	}
	return out
}

func TestFilter(t *testing.T) {
	names := func(n ...string) *[]string { return &n }
	list := func(n ...string) *corev1.NodeList {
		l := &corev1.NodeList{}
		for _, n := range nodes(n...) {
			l.Items = append(l.Items, *n)
		}
		return l
	}
	for _, c := range []struct {
		name   string
		cached bool
		answer any
		want   map[string]string
		err    string
	}{
		{name: "all", answer: extenderv1.ExtenderFilterResult{Nodes: list("a", "b", "c")}, want: map[string]string{}},
		{
			name: "some", answer: extenderv1.ExtenderFilterResult{
				Nodes: list("a"), FailedNodes: extenderv1.FailedNodesMap{"b": "no gpu", "c": "full"}, FailedAndUnresolvableNodes: extenderv1.FailedNodesMap{"c": "never"},
			},
			want: map[string]string{"b": "no gpu", "c": "never!"},
		},
		{name: "by name", cached: true, answer: extenderv1.ExtenderFilterResult{NodeNames: names("a", "c"), FailedNodes: extenderv1.FailedNodesMap{"b": "no"}}, want: map[string]string{"b": "no"}},
		{name: "a node nobody asked about", cached: true, answer: extenderv1.ExtenderFilterResult{NodeNames: names("z")}, err: `claims a filtered node "z" which is not found in the input node list`},
		{name: "an error in the answer", answer: extenderv1.ExtenderFilterResult{Error: "out of order"}, err: "out of order"},
		{name: "an error in place of the answer", answer: http.StatusInternalServerError, err: "/x/filter, code 500"},
		{name: "rubbish", answer: "<html>", err: "/x/filter: invalid character"},
		{name: "nothing", answer: "", err: "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			opts := allVerbs
			opts.NodeCacheCapable = c.cached
			x := start(t, service{"filter": func(args map[string]any) any {
				if (args["NodeNames"] != nil) != c.cached || (args["Nodes"] != nil) == c.cached {
					t.Errorf("arguments %v", args)
				}
				return c.answer
			}}, opts)
			got, err := x.Filter(t.Context(), pod, nodes("a", "b", "c"))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %s", err, c.err)
				}
				return
			}
			if d := cmp.Diff(c.want, reasons(got)); err != nil || d != "" {
				t.Error(err, d)
			}
		})
	}
}

func TestPrioritizeAndBind(t *testing.T) {
	bound := ""
	x := start(t, service{
		"prioritize": func(map[string]any) any {
			return extenderv1.HostPriorityList{{Host: "a", Score: 10}, {Host: "b", Score: 1}}
		},
		"bind": func(args map[string]any) any {
			if args["Node"] == "bad" {
				return extenderv1.ExtenderBindingResult{Error: "not there"}
			}
			bound, _ = args["PodUID"].(string)
			return extenderv1.ExtenderBindingResult{}
		},
	}, allVerbs)
	scores, err := x.Prioritize(t.Context(), pod, nodes("a", "b"))
	if d := cmp.Diff(map[string]int64{"a": 200, "b": 20}, scores); err != nil || d != "" {
		t.Error(err, d)
	}
	if handled, err := x.Bind(t.Context(), pod, "a"); !handled || err != nil || bound != "u" {
		t.Error(handled, err, bound)
	}
	if handled, err := x.Bind(t.Context(), pod, "bad"); !handled || err == nil || err.Error() != "not there" {
		t.Error(handled, err)
	}
}

func TestPreempt(t *testing.T) {
	victim := func(uid string) *scheduler.Pod {
		return scheduler.NewPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: uid, UID: types.UID(uid)}})
	}
	proposal := &scheduler.Preemption{Node: "a", Victims: []*scheduler.Pod{victim("1"), victim("2")}, PDBViolations: 1}
	for _, cached := range []bool{true, false} {
		opts := allVerbs
		opts.NodeCacheCapable = cached
		var keep map[string]*extenderv1.MetaVictims
		x := start(t, service{"preempt": func(args map[string]any) any {
			if (args["NodeNameToMetaVictims"] != nil) != cached || (args["NodeNameToVictims"] != nil) == cached {
				t.Errorf("arguments %v", args)
			}
			return extenderv1.ExtenderPreemptionResult{NodeNameToMetaVictims: keep}
		}}, opts)
		keep = map[string]*extenderv1.MetaVictims{"a": {Pods: []*extenderv1.MetaPod{{UID: "2"}}}}
		p, err := x.Preempt(t.Context(), pod, proposal)
		if err != nil || p.Node != "a" || len(p.Victims) != 1 || p.Victims[0].Object.UID != "2" || p.PDBViolations != 0 {
			t.Error(p, err)
		}
		keep = map[string]*extenderv1.MetaVictims{"b": {}}
		if p, err := x.Preempt(t.Context(), pod, proposal); p != nil || err != nil {
			t.Error(p, err)
		}
		keep = map[string]*extenderv1.MetaVictims{"a": {Pods: []*extenderv1.MetaPod{{UID: "3"}}}}
		if _, err := x.Preempt(t.Context(), pod, proposal); err == nil || !strings.Contains(err.Error(), "claims to preempt pod") {
			t.Error(err)
		}
	}
}

func TestInterested(t *testing.T) {
	opts := allVerbs
	opts.ManagedResources = []corev1.ResourceName{"example.com/gpu"}
	x, err := extender.New("http://127.0.0.1:1", opts)
	if err != nil {
		t.Fatal(err)
	}
	asking := func(name corev1.ResourceName) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{name: resource.MustParse("1")}}}}}}
	}
	if x.Interested(asking("cpu")) || !x.Interested(asking("example.com/gpu")) {
		t.Error("wants those that ask for what it manages, and no others")
	}
	if handled, err := x.Bind(t.Context(), asking("cpu"), "n"); handled || err != nil {
		t.Error(handled, err)
	}
}

func TestSlow(t *testing.T) {
	done := make(chan struct{})
	opts := allVerbs
	opts.Timeout = 50 * time.Millisecond
	x := start(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-done }), opts)
	t.Cleanup(func() { close(done) }) // before the server is closed
	if _, err := x.Filter(t.Context(), pod, nodes("a")); err == nil || !strings.Contains(err.Error(), "Timeout") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := x.Prioritize(ctx, pod, nodes("a")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTLS(t *testing.T) {
	srv := httptest.NewTLSServer(service{"filter": func(map[string]any) any {
		return extenderv1.ExtenderFilterResult{Nodes: &corev1.NodeList{Items: []corev1.Node{*nodes("a")[0]}}}
	}})
	t.Cleanup(srv.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	for _, c := range []struct {
		name string
		opts extender.Options
		ok   bool
	}{
		{"known CA", extender.Options{HTTPS: true, TLS: extender.TLSOptions{CAData: ca}}, true},
		{"another name", extender.Options{HTTPS: true, TLS: extender.TLSOptions{CAData: ca, ServerName: "elsewhere"}}, false},
		{"unknown CA", extender.Options{}, false},
		{"not verified", extender.Options{HTTPS: true}, true},
		{"insecure", extender.Options{TLS: extender.TLSOptions{Insecure: true}}, true},
	} {
		c.opts.FilterVerb = "filter"
		x, err := extender.New(srv.URL+"/x", c.opts)
		if err != nil {
			t.Fatal(err)
		}
		_, err = x.Filter(t.Context(), pod, nodes("a"))
		x.CloseIdleConnections()
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestOptions(t *testing.T) {
	for want, opts := range map[string]extender.Options{
		"Options.Weight":  {PrioritizeVerb: "p"},
		"Options.Timeout": {Timeout: -1},
		"Options.TLS":     {TLS: extender.TLSOptions{CAFile: "/nowhere"}},
	} {
		if _, err := extender.New("http://127.0.0.1:1", opts); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := extender.New("127.0.0.1", extender.Options{}); err == nil {
		t.Error("no URL, no error")
	}
}
