package decisions

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/extender"
)

// extenderServer is asked by both schedulers: /SIDE/NUMBER/VERB. It knows nothing of who asks but whom it has bound for.
type extenderServer struct {
	*httptest.Server
	mu    sync.Mutex
	cases []extenderCase
	seed  uint64
	bound map[string]map[string]string // by side and pod
}

func newExtenderServer(t *testing.T) *extenderServer {
	s := &extenderServer{}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *extenderServer) begin(c *groupCase) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cases, s.seed, s.bound = c.extenders, c.seed, map[string]map[string]string{"theirs": {}, "ours": {}}
}

func (s *extenderServer) boundBy(side string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]string{}
	for pod, node := range s.bound[side] {
		out[pod] = node
	}
	return out
}

// sameFor leaves out of a message who asked, and what kube-scheduler's DynamicResources says of any group, with claims or without.
func (s *extenderServer) sameFor(message string) string {
	return strings.NewReplacer(s.URL+"/theirs/", "http://x/", s.URL+"/ours/", "http://x/", "deallocation and deletion of ResourceClaims completed, ", "").Replace(message)
}

func chance(parts ...any) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, parts...)
	return h.Sum64() >> 7
}

func (s *extenderServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var side, verb string
	var number int
	if _, err := fmt.Sscanf(strings.ReplaceAll(r.URL.Path, "/", " "), "%s %d %s", &side, &number, &verb); err != nil || number >= len(s.cases) {
		http.Error(w, r.URL.Path, http.StatusNotFound)
		return
	}
	x := s.cases[number]
	if verb == "bind" {
		var args extenderv1.ExtenderBindingArgs
		if err := json.NewDecoder(r.Body).Decode(&args); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.bound[side][args.PodName] = args.Node
		_ = json.NewEncoder(w).Encode(extenderv1.ExtenderBindingResult{})
		return
	}
	var args extenderv1.ExtenderArgs
	if err := json.NewDecoder(r.Body).Decode(&args); err != nil || (args.Nodes == nil) != x.Cache || (args.NodeNames == nil) == x.Cache {
		http.Error(w, fmt.Sprintf("%+v: %v", args, err), http.StatusBadRequest)
		return
	}
	var names []string
	if x.Cache {
		names = *args.NodeNames
	} else {
		for i := range args.Nodes.Items {
			names = append(names, args.Nodes.Items[i].Name)
		}
	}
	about := func(what string, of uint64, of2 ...any) bool {
		return chance(append([]any{s.seed, number, what, args.Pod.Name}, of2...)...)%of == 0
	}
	if about("fails", x.Fails) {
		http.Error(w, "out of order", http.StatusServiceUnavailable)
		return
	}
	if verb == "prioritize" {
		out := extenderv1.HostPriorityList{}
		for _, n := range names {
			out = append(out, extenderv1.HostPriority{Host: n, Score: int64(chance(s.seed, number, "score", args.Pod.Name, n) % 10)})
		}
		_ = json.NewEncoder(w).Encode(out)
		return
	}
	out := extenderv1.ExtenderFilterResult{FailedNodes: extenderv1.FailedNodesMap{}, FailedAndUnresolvableNodes: extenderv1.FailedNodesMap{}}
	if about("complains", x.Fails) {
		out.Error = "no answer"
	}
	var left []string
	for _, n := range names {
		switch {
		case about("rejects", x.Rejects, n):
			out.FailedNodes[n] = fmt.Sprint("not for extender ", number)
		case about("resents", 2*x.Rejects, n):
			out.FailedAndUnresolvableNodes[n] = fmt.Sprint("never for extender ", number)
		default:
			left = append(left, n)
		}
	}
	if x.Cache {
		out.NodeNames = &left
	} else {
		out.Nodes = &corev1.NodeList{}
		for i := range args.Nodes.Items {
			for _, n := range left {
				if args.Nodes.Items[i].Name == n {
					out.Nodes.Items = append(out.Nodes.Items, args.Nodes.Items[i])
				}
			}
		}
	}
	_ = json.NewEncoder(w).Encode(out)
}

const managed = "example.com/gpu"

// prioritizeWeight times the score never makes up for a difference that the group's pods make between nodes.
const prioritizeWeight = 37

func (s *extenderServer) theirs(c *groupCase) (out []schedulerconfig.Extender) {
	for i, x := range c.extenders {
		e := schedulerconfig.Extender{URLPrefix: fmt.Sprintf("%s/theirs/%d", s.URL, i), Ignorable: x.Ignorable, NodeCacheCapable: x.Cache, HTTPTimeout: metav1.Duration{Duration: time.Minute}}
		if x.Filter {
			e.FilterVerb = "filter"
		}
		if x.Prioritize {
			e.PrioritizeVerb, e.Weight = "prioritize", prioritizeWeight
		}
		if x.Bind {
			e.BindVerb = "bind"
		}
		if x.Managed {
			e.ManagedResources = []schedulerconfig.ExtenderManagedResource{{Name: managed}}
		}
		out = append(out, e)
	}
	return out
}

func (s *extenderServer) ours(t *testing.T, c *groupCase) (out []scheduler.Extender) {
	for i, x := range c.extenders {
		opts := extender.Options{Ignorable: x.Ignorable, NodeCacheCapable: x.Cache, Timeout: time.Minute}
		if x.Filter {
			opts.FilterVerb = "filter"
		}
		if x.Prioritize {
			opts.PrioritizeVerb, opts.Weight = "prioritize", prioritizeWeight
		}
		if x.Bind {
			opts.BindVerb = "bind"
		}
		if x.Managed {
			opts.ManagedResources = []corev1.ResourceName{managed}
		}
		e, err := extender.New(fmt.Sprintf("%s/ours/%d", s.URL, i), opts)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}
