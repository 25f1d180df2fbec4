// Package schedulertest checks scheduling plugins: on random small clusters and random orders of events it looks whether a plugin keeps what
// its interfaces promise. Run it on your own:
//
//	func TestSameRack(t *testing.T) {
//		schedulertest.Run(t, func() scheduler.Plugin { return SameRack{} }, schedulertest.Options{
//			Pod:  func(r *rand.Rand, p *corev1.Pod) { p.Labels["rack"] = pick(r, "a", "b") },
//			Node: func(r *rand.Rand, n *corev1.Node) { n.Labels["rack"] = pick(r, "a", "b") },
//		})
//	}
//
// The clusters have what Kubernetes' own rules look at: labels, taints, resources, ports, images, affinity, spread, claims and volumes. What
// your rule looks at beside that is for Options to add.
//
// Of Reserve it looks whether Unreserve undoes it. The suite does not look at PostFilter, Permit and what comes after.
package schedulertest
