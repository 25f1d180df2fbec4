// Package kubelet runs the pods bound to one node over a [RuntimeService], and tells the API how they and the node are. It speaks to any
// Kubernetes API server, and to any runtime that speaks CRI's messages: processruntime, criruntime and fakeruntime are in its
// subpackages.
//
//	k, err := kubelet.New(client, cache, runtime, images, kubelet.Options{NodeName: "node-1", RootDir: dir})
//	if err != nil {
//		return err
//	}
//	return k.Run(ctx)
//
// What a pod needs is decided by a pure state machine (internal/podstate); this package carries it out. An idle pod costs no goroutine and no
// polling, so thousands of kubelets with hundreds of thousands of simulated pods fit in one process: give them one [Dispatcher],
// so that each sees only its own pods.
//
// A kubelet keeps no state of its own: one that comes back finds its pods in the API and its containers in the runtime, by
// their labels, and goes on without touching what runs.
//
// It does not evict pods under pressure, resize them in place, run static pods, or attach volumes: see COMPATIBILITY.md.
package kubelet
