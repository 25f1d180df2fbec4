// Package resource declares kinds of API group resource.k8s.io, version v1, dynamic resource allocation: ResourceClaim, ResourceClaimTemplate,
// DeviceClass, ResourceSlice and DeviceTaintRule.
//
// What the markers of k8s.io/api say is checked by the rules generated from them, the rest here. Fields of features that Kubernetes has off by default
// are dropped with a warning. The server stores and checks these objects; a scheduler such as kube-scheduler and drivers act on them.
package resource
