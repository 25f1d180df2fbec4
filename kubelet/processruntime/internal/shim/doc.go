// Package shim is the small process that stays beside each pod sandbox when the program that made it ends. It holds the
// pod's namespaces, is the parent of its containers, owns their standard streams and logs, records how they ended, and
// serves a unix socket on which whoever runs the runtime next finds all of it again.
package shim
