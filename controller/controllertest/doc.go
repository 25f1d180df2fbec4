// Package controllertest helps to test reconcilers and controllers.
//
// Cluster is an API in memory: it assigns uids, resource versions and
// generations, keeps status apart, checks preconditions, honours finalizers,
// propagation policies and graceful deletion, and can be told to fail. It is
// no API server: it neither defaults nor validates, and authorizes everything.
//
// Run runs a test in virtual time against such a cluster:
//
//	controllertest.Run(t, func(e *controllertest.Env) {
//		ctl, err := widgets.New(e.Client, e.Cache, widgets.Options{})
//		e.Check(err)
//		e.Start(ctl.Run)
//		e.Create(&examplev1.Widget{...})
//		e.Settle()
//		...
//	})
//
// The test fails if a started function returns an error, does not return when
// the test ends, or leaves a goroutine behind.
package controllertest
