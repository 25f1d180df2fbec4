// Package cni gives pods their network.
//
// Network is the contract a runtime calls for each pod sandbox.
package cni
