// Package decisions compares Keelson's scheduling engine with kube-scheduler's own code: both are told of the same random clusters and asked of the same
// pods.
package decisions
