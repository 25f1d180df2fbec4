// Package scheduling declares the kinds of API group scheduling.k8s.io: PriorityClass, version v1, with the classes that Kubernetes has from the
// start, and Workload and PodGroup, version v1beta1, whose pods are placed together. (In kube-apiserver those two need the feature gate
// GenericWorkload; here they are always there. What needs further gates is dropped with a warning.)
package scheduling
