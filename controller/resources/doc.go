// Package resources lists what an API serves, for the controllers that act on
// every kind: the garbage collector and the namespace controller.
package resources
