// Package aggregation fills ClusterRoles that have an aggregation rule with the rules of those that it selects. It needs nothing of a
// server but a client.
package aggregation
