// Package sim plays a workload on a scheduling engine in virtual time.
package sim
