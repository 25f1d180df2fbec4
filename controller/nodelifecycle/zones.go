package nodelifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// zones counts ready and other nodes by zone, and limits evictions by it.
type zones struct {
	opts  Options
	nodes map[string]member
	byKey map[string]*zone
}

type member struct {
	zone  string
	ready bool
}

type zone struct {
	ready, notReady int
	next            time.Time // when the next node may be tainted
}

func newZones(o Options) *zones {
	return &zones{opts: o, nodes: map[string]member{}, byKey: map[string]*zone{}}
}

func zoneOf(n *corev1.Node) string {
	return n.Labels[corev1.LabelTopologyRegion] + ":" + n.Labels[corev1.LabelTopologyZone]
}

func (z *zones) set(name, key string, ready bool) {
	z.remove(name)
	if z.byKey[key] == nil {
		z.byKey[key] = &zone{}
	}
	z.nodes[name] = member{key, ready}
	if ready {
		z.byKey[key].ready++
	} else {
		z.byKey[key].notReady++
	}
}

func (z *zones) remove(name string) {
	m, ok := z.nodes[name]
	if !ok {
		return
	}
	delete(z.nodes, name)
	if m.ready {
		z.byKey[m.zone].ready--
	} else {
		z.byKey[m.zone].notReady--
	}
}

// blackout says whether no node at all is ready.
func (z *zones) blackout() bool {
	any := false
	for _, zn := range z.byKey {
		if zn.ready > 0 {
			return false
		}
		any = any || zn.notReady > 0
	}
	return any
}

// rate is how many nodes of a zone may be tainted a second.
func (z *zones) rate(zn *zone) float64 {
	total := zn.ready + zn.notReady
	switch {
	case zn.ready == 0:
		return z.opts.EvictionRate
	case zn.notReady > 2 && float64(zn.notReady)/float64(total) >= z.opts.UnhealthyZoneThreshold:
		if total > z.opts.LargeClusterSize {
			return z.opts.SecondaryEvictionRate
		}
		return 0
	}
	return z.opts.EvictionRate
}

// recheck is when to ask again for what is not allowed at all now.
const recheck = 5 * time.Second

// take asks to taint a node of a zone now; if that may not be, it says when to
// ask again.
func (z *zones) take(key string, now time.Time) (bool, time.Duration) {
	zn := z.byKey[key]
	if zn == nil {
		return false, recheck
	}
	rate := z.rate(zn)
	if rate <= 0 {
		return false, recheck
	}
	if now.Before(zn.next) {
		return false, zn.next.Sub(now)
	}
	zn.next = now.Add(time.Duration(float64(time.Second) / rate))
	return true, 0
}
