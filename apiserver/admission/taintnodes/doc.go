// Package taintnodes is the admission plugin TaintNodesByCondition: new nodes start as not ready, so that nothing is scheduled to them before the
// node controller has seen them.
package taintnodes
