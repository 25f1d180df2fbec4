package schedulertest_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/schedulertest"
)

// SameRack is a rule in ten lines: pods go to the rack they name, and there to the node that is marked cheapest.
type SameRack struct{}

func (SameRack) Name() string { return "SameRack" }

func (SameRack) Filter(pod *scheduler.Pod, node *scheduler.Node) *scheduler.Rejection {
	if pod.Object.Labels["rack"] == node.Object.Labels["rack"] {
		return nil
	}
	return scheduler.Reject("node(s) were in another rack")
}

func (SameRack) Score(_ *scheduler.Pod, node *scheduler.Node) int64 {
	price, _ := strconv.ParseInt(node.Object.Labels["price"], 10, 64)
	return max(0, scheduler.MaxScore-price)
}

func ExampleCheck() {
	err := schedulertest.Check(func() scheduler.Plugin { return SameRack{} }, schedulertest.Options{
		Pod: func(r *rand.Rand, p *corev1.Pod) { p.Labels["rack"] = strconv.Itoa(r.IntN(3)) },
		Node: func(r *rand.Rand, n *corev1.Node) {
			n.Labels["rack"], n.Labels["price"] = strconv.Itoa(r.IntN(3)), strconv.Itoa(r.IntN(200))
		},
	})
	fmt.Println(err)
	// Output: <nil>
}
