// Package core declares the kinds of Kubernetes' legacy group, "" (v1): Pod, Service, Node, Namespace, ConfigMap, Secret
// and the rest, with the virtual resources pods/binding, bindings and pods/eviction.
//
//	ips, _ := ipalloc.NewAddresses(netip.MustParsePrefix("10.96.0.0/12"))
//	ports, _ := ipalloc.NewPorts(30000, 32767)
//	group := core.Group(core.Options{ServiceIPs: []core.AddressAllocator{ips}, NodePorts: ports})
//
// Services get their addresses and node ports in Kind.Begin from the allocators and give them back when the commit
// fails or the Service goes. What makes them unique among servers on one store are the Kind's Claims, which are
// committed with the Service; allocators are only the server's view of them, and are filled from
// the list of Services when first used and whenever a claim was found taken.
//
// Not declared here: ComponentStatus, which is not served, and subresources that are no part of the object (log,
// exec, attach, portforward, proxy, token), which belong to the HTTP adapter.
package core
