// Package ttlafterfinished deletes Jobs their ttlSecondsAfterFinished after
// they have finished, with all they own.
//
//	ctl, err := ttlafterfinished.New(c, cache, ttlafterfinished.Options{})
//	...
//	err = ctl.Run(ctx)
package ttlafterfinished
