// Package serviceaccount gives every namespace its "default" ServiceAccount.
//
//	ctl, err := serviceaccount.New(c, cache, serviceaccount.Options{})
//	...
//	err = ctl.Run(ctx)
package serviceaccount
