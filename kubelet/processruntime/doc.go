// Package processruntime is the embedded container runtime: pods as processes of this machine, without a daemon. It pulls and
// unpacks OCI images itself and separates containers as far as the machine permits, which it finds out when it is made:
//
//   - "namespaces": as root, with mount, PID, IPC, UTS and network namespaces, an overlay file system, capabilities, a
//     seccomp filter, users, and cgroups where they can be written;
//   - "userns": without root, the same in a user namespace that maps one user, on the node's network and without limits;
//   - "none": where nothing is permitted, plain processes, each pod in sessions of its own. A container's program is
//     the one of the image, but files that it opens by absolute path are the node's; $KEELSON_ROOTFS names the
//     directory of its own, in which mounts are links.
//
// [Runtime.Isolation] says in one line which it is.
//
// # The helpers
//
// A process can't enter namespaces while it runs many threads, and a pod must outlive the program that made it. So the runtime
// executes its own program again, as shim, init and exec helper. A program that uses this package begins with
//
//	func main() {
//		if processruntime.Init() {
//			return
//		}
//		…
//	}
//
// or names a binary that does so in Options.InitPath. Tests do it in TestMain.
//
// # Networks
//
// With a Network that needs network namespaces, and as root, each pod has one. A Network without (cni/loopback) gives each pod
// an address of the node's, such as 127.1.0.7: what the pod's processes bind to all addresses is bound to that one, and what
// they connect to on localhost reaches it, so replicas can listen on one port without any privilege. A supervisor in the shim
// does so by seccomp's user notification, where kernel and architecture (amd64, arm64) have it; Options.KeepWildcardBinds turns it off.
// Without a Network all pods share the node's, and their status has no address.
//
// # State
//
// Everything is below Options.Root: images, and for each sandbox a directory with its configuration, its containers and
// the socket of its shim. A Runtime made again on the same directory finds what runs, and how what ended meanwhile
// ended. One Runtime at a time may use a directory.
//
// # Not supported
//
// CRI requests that ask for what the runtime can't do fail with InvalidArgument and say so: Localhost seccomp and AppArmor
// profiles, SELinux options on a machine with SELinux, bidirectional mount propagation, pod user namespaces, CDI devices,
// ID-mapped mounts, huge page limits, runtime handlers other than the default one. What the level of isolation can't do, such as
// limits without root, [Runtime.Unenforced] names, and the kubelet records as an event of the pod.
package processruntime
