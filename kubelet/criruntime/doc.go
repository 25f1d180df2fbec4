// Package criruntime runs pods by any runtime that serves the Container Runtime Interface over gRPC: containerd, CRI-O and their
// like, found by the endpoint of their socket. It adds nothing to what the runtime does; it is k8s.io/cri-client under
// kubelet's contract.
//
//	rt, err := criruntime.New(ctx, "unix:///run/containerd/containerd.sock", criruntime.Options{})
//	if err != nil {
//		return err
//	}
//	defer rt.Close(ctx)
//
// Events are there if the runtime has them: otherwise GetContainerEvents returns at once with gRPC's code Unimplemented, and the
// caller lists instead.
package criruntime
