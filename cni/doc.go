// Package cni gives pods their network.
//
// Network is the contract: a runtime calls Setup for each pod sandbox it makes and Teardown
// when it stops it. The implementations are
//
//   - bridge: a veth pair per pod on a Linux bridge, addresses from the node's pod range (needs CAP_NET_ADMIN);
//   - loopback: an address of its own out of 127/8 and nothing else (needs no privilege);
//   - plugin: any plugin of the CNI specification, by exec.
//
// routes connects the nodes: it keeps one node's routes to the pod ranges of the others, directly or through VXLAN.
// cnitest is the suite that an implementation runs on itself.
//
// NetworkPolicy objects are not enforced by these networks.
package cni
