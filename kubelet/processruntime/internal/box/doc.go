// Package box puts a process into its container: it is what the re-executed helpers of processruntime run. "init"
// builds the container's file system in fresh namespaces and becomes the workload; "exec" joins a running container and starts
// one more process in it; "pause" holds a PID namespace that several containers share; "probe" tries what this machine permits.
//
// Everything that is a property of a thread (namespaces, capabilities, seccomp, credentials) is set on one locked
// thread, which is then the one that executes or forks the workload.
package box
