// Package nftproxy is a proxy backend on nftables: Service addresses are elements of verdict maps, each Service port a
// chain that picks an endpoint. A change touches only the elements and chains of the ports that changed; the kernel's
// tables are never listed.
//
// It needs Linux, CAP_NET_ADMIN and the nft program (1.0.1 or later). Node ports answer on the node's addresses except
// loopback. What it set up goes on forwarding when the process ends; Cleanup removes it.
package nftproxy
