package sim

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
)

// pod is a pod that has not ended.
type pod struct {
	Pod
	key   string // namespace/name
	spod  *scheduler.Pod
	shape *shape
	gang  *gang
	// node it is on, nil while it waits; at is its index in node.pods.
	node *node
	at   int
	// arrived is when it came last.
	arrived time.Duration
	// life counts its submissions, from 1: what was planned for an earlier one is void.
	life     uint32
	failures int
	// ending: it was preempted, and is given time to end.
	ending  bool
	parked  bool   // in line
	message string // why it waits, as logged last
}

// shape is what pods of a template have in common.
type shape struct {
	key      shapeKey
	proto    *scheduler.Pod
	requests []int64 // by resource column
	live     int
	seen     int
	claims   bool // pods have volumes of their own, or wait for one that they share
	// first fits nowhere at the moment; those that came after it stand in line, from head on.
	first *pod
	line  []*pod
	head  int
}

// node is a node of the cluster, failed ones included.
type node struct {
	obj   *corev1.Node
	zone  string
	alloc []int64 // by resource column
	used  []int64
	pods  []*pod
	down  bool // failed
}

func (n *node) put(p *pod) {
	p.node, p.at = n, len(n.pods)
	n.pods = append(n.pods, p)
	for r, v := range p.shape.requests {
		n.used = set(n.used, r, at(n.used, r)+v)
	}
}

func (n *node) take(p *pod) {
	last := len(n.pods) - 1
	n.pods[p.at] = n.pods[last]
	n.pods[p.at].at = p.at
	n.pods[last] = nil
	n.pods = n.pods[:last]
	p.node = nil
	for r, v := range p.shape.requests {
		n.used[r] -= v
	}
}

// shapeKey: terms of affinity depend on the pod's namespace.
type shapeKey struct {
	template  *corev1.Pod
	namespace string
}

// shapeOf finds or makes what is common to the pods of a template.
func (s *Simulation) shapeOf(p *Pod) *shape {
	key := shapeKey{p.Template, p.Namespace}
	sh := s.shapes[key]
	if sh == nil {
		obj := *p.Template
		obj.Namespace = p.Namespace
		sh = &shape{key: key, proto: scheduler.NewPod(&obj)}
		for name, v := range sh.proto.Requests.All() {
			sh.requests = set(sh.requests, s.column(name), v)
		}
		sh.proto.EachClaim(func(string, bool) bool {
			sh.claims = true
			return false
		})
		s.namespace(p.Namespace)
		s.shapes[key] = sh
		if len(s.common) < maxShapes {
			s.common = append(s.common, sh)
		}
	}
	return sh
}

// instantiate makes a pod of its template. Only the parts that differ are its own.
func (s *Simulation) instantiate(p *pod) {
	obj := *p.Template
	obj.Namespace, obj.Name = p.Namespace, p.Name
	s.uids++
	obj.UID = types.UID(strconv.FormatUint(s.uids, 36))
	spod := *p.shape.proto
	spod.Object = &obj
	p.spod = &spod
	if p.shape.claims {
		s.makeClaims(p)
	}
}

// column is a resource's index in all slices by resource, given in the order in which resources are first seen.
func (s *Simulation) column(name corev1.ResourceName) int {
	c, ok := s.columns[name]
	if !ok {
		c = len(s.resources)
		s.columns[name] = c
		s.resources = append(s.resources, name)
	}
	return c
}

func at(s []int64, i int) int64 {
	if i < len(s) {
		return s[i]
	}
	return 0
}

// set sets s[i], which may be beyond its end.
func set(s []int64, i int, v int64) []int64 {
	for len(s) <= i {
		s = append(s, 0)
	}
	s[i] = v
	return s
}

// timer is something planned.
type timer struct {
	at   time.Duration
	seq  uint64
	pod  *pod
	life uint32
	kind timerKind
	// Of provisioned: the claim and its UID.
	claim string
	uid   types.UID
}

type timerKind uint8

const (
	finish      timerKind = iota // a pod's run time is over
	gone                         // a preempted pod has ended
	resubmit                     // a pod comes again
	provisioned                  // a volume was made
)

// timers is a heap by time, then by order of planning.
type timers []timer

func (h timers) less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}

func (h *timers) push(t timer) {
	*h = append(*h, t)
	s := *h
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if !s.less(i, up) {
			return
		}
		s[i], s[up] = s[up], s[i]
		i = up
	}
}

func (h *timers) pop() timer {
	s := *h
	first, last := s[0], len(s)-1
	s[0] = s[last]
	s[last] = timer{}
	s = s[:last]
	*h = s
	for i := 0; ; {
		down := 2*i + 1
		if down >= last {
			return first
		}
		if down+1 < last && s.less(down+1, down) {
			down++
		}
		if !s.less(down, i) {
			return first
		}
		s[i], s[down] = s[down], s[i]
		i = down
	}
}
