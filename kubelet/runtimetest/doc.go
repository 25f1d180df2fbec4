// Package runtimetest is the suite that every implementation of kubelet.RuntimeService passes. An integrator runs it on
// their own:
//
//	func TestMyRuntime(t *testing.T) {
//		runtimetest.Run(t, runtimetest.Config{
//			New: func(t *testing.T) *runtimetest.Instance {
//				rt := …             // with an image that has the program of BuildWorkload as /workload
//				return &runtimetest.Instance{Runtime: rt, Images: rt, Image: "localhost/workload:1"}
//			},
//		})
//	}
//
// Each check is a subtest of its own with a sandbox of its own, bounded in time. What a runtime cannot do is named in Config.Without,
// and the checks that need it are skipped, saying so.
package runtimetest
