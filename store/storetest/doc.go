// Package storetest is the suite that every implementation of store.Store passes, and the way
// to find out whether yours does:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, storetest.Factory{
//			New: func(ctx context.Context) (store.Store, error) { return mystore.Open(t.TempDir()) },
//		})
//	}
//
// Each subtest has a name that says which promise of the contract it is about, makes a store of
// its own, and is bounded in time. Check runs the same without a *testing.T and returns the
// errors; the package's own tests run it on deliberately broken stores.
//
// The suite does not cut the power: durability under kill -9 is for the implementation to test.
package storetest
