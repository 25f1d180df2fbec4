// Package cowtree is a persistent ordered map from strings: a B+tree whose nodes are never
// modified once they have been handed out. A Tree is a value; copying it is a snapshot in
// O(1), and any number of goroutines may read it while an Editor makes the next one:
//
//	e := t.Edit()
//	e.Set("a", 1)
//	e.Delete("b")
//	t2 := e.Tree() // t is unchanged
//
// One who makes a series of trees may also change values in nodes that only this series has (see Tree.Find and
// EditAs); its readers then have to know a value's version.
//
// Every node knows how many pairs are below it, so that counting a range does not walk it.
package cowtree
