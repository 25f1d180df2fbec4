// Package view reads objects out of a cache through indexes, without copying.
//
// The objects it returns are those the informers share: never modify them.
package view
