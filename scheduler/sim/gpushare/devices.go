package gpushare

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
)

// whole is a device, in thousandths.
const whole = 1000

// valid reports whether an amount is a part of one device, or of whole ones.
func valid(milli int64) bool { return milli < whole || milli%whole == 0 }

// choose finds devices for an amount, given what is free on each: the fullest device that has room for a part, and the first ones that are free for whole ones. Nil if there
// are none.
func choose(free []int64, milli int64) []int {
	if milli < whole {
		best := -1
		for i, f := range free {
			if f >= milli && (best < 0 || f < free[best]) {
				best = i
			}
		}
		if best < 0 {
			return nil
		}
		return []int{best}
	}
	var out []int
	for i, f := range free {
		if f == whole && int64(len(out)) < milli/whole {
			out = append(out, i)
		}
	}
	if int64(len(out)) < milli/whole {
		return nil
	}
	return out
}

func take(free []int64, devices []int, milli int64) {
	for _, d := range devices {
		free[d] -= min(milli, whole)
	}
}

// placement is a pod's devices.
type placement struct {
	uid     types.UID
	milli   int64
	devices []int
}

// look returns what is free on each of a node's devices. Pods of which nobody was told, such as those of a what-if, are taken to be where
// they would be put, the largest first; ok is false if there isn't room for one of them, or for more.
func (p *Plugin) look(node *scheduler.Node, more *placement) (free []int64, unbooked []placement, ok bool) {
	n := p.devices(node)
	if cap(p.free) < n {
		p.free = make([]int64, n)
	}
	free = p.free[:n]
	for i := range free {
		free[i] = whole
	}
	unbooked = p.unbooked[:0]
	node.Pods(func(pod *scheduler.Pod) bool {
		milli := p.asks(pod)
		if milli == 0 {
			return true
		}
		if devices, known := p.book[pod.Object.UID]; known && devices.node == node.Object.Name && devices.fit(n) {
			take(free, devices.devices, milli)
		} else {
			unbooked = append(unbooked, placement{uid: pod.Object.UID, milli: milli})
		}
		return true
	})
	if more != nil {
		unbooked = append(unbooked, *more)
	}
	p.unbooked = unbooked
	slices.SortFunc(unbooked, func(a, b placement) int { return cmp.Or(cmp.Compare(b.milli, a.milli), cmp.Compare(a.uid, b.uid)) })
	ok = true
	for i := range unbooked {
		u := &unbooked[i]
		if u.devices = choose(free, u.milli); u.devices == nil {
			ok = false
			continue
		}
		take(free, u.devices, u.milli)
	}
	return free, unbooked, ok
}

// devices is how many a node has.
func (p *Plugin) devices(node *scheduler.Node) int {
	return int(min(node.Allocatable.Of(p.opts.Resource)/whole, maxDevices))
}

func (p *Plugin) asks(pod *scheduler.Pod) int64 { return pod.Requests.Of(p.opts.Resource) }
