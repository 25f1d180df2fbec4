// Package ipalloc gives out addresses of a Service range and node ports: two small allocators in memory, with the
// same contract.
//
// An allocator is a view of what the stored Services have, not a record of its own: it is filled from their
// list (Reset) and kept up by what the server commits. Uniqueness among servers on one store does not rest on it but on the
// claims that are committed with each Service; a server that meets a foreign claim resets its
// allocators from the store and tries again.
//
//	r, err := ipalloc.NewAddresses(netip.MustParsePrefix("10.96.0.0/12"))
//	ip, err := r.AllocateNext()
//	defer r.Release(ip)
//
// Of each range a lower part is kept for values that users ask for by name, and automatic allocation
// begins above it, by the rule of Kubernetes (ServiceIPStaticSubrange, ServiceNodePortStaticSubrange).
// All methods may be called from any number of goroutines.
package ipalloc
