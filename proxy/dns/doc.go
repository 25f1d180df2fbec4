// Package dns serves the names of Services and pods by the Kubernetes DNS-Based Service Discovery specification, version 1.1.0, and
// forwards other names.
//
// Zone is the pure part: objects in, answers out. Server is the runner: it feeds a Zone from informers and answers over UDP and TCP.
//
// Pod records (1-2-3-4.NAMESPACE.pod.ZONE) are answered for every address, without looking whether there is such a pod, as CoreDNS does by default.
package dns
