// Package podgc deletes pods that nobody else will: those on Nodes that are
// gone, those being deleted that no Node ever got, those stuck on Nodes declared
// out of service, and the oldest finished ones beyond a number.
//
//	ctl, err := podgc.New(c, cache, podgc.Options{})
//	...
//	err = ctl.Run(ctx)
package podgc
