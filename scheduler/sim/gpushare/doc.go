// Package gpushare lets pods share GPUs in simulations, as in the trace of Alibaba's GPU cluster of 2023: a pod asks for thousandths of one device, or for whole
// devices.
//
// A node has Resource in thousandths, 1000 for each device. A pod that asks for less than 1000 gets a part of one device, beside others; one that asks for a
// multiple gets that many devices that nobody else uses. Which model of GPU it must be is said by node affinity, to which the default profile sees.
// The profile's own rule for resources sees only sums: 500 free on each of two devices are 1000 for it, and a pod of 1000 would be put where it can't run.
//
//	gpus, err := gpushare.New(gpushare.Options{})
//	profile := append(plugins.Default(), scheduler.Weighted{Plugin: gpus, Weight: 5})
//	s, err := sim.New(workload, sim.Options{Engine: scheduler.EngineOptions{Profile: profile}, Measures: gpus.Measures()})
//
// Plugin is a filter, a score and a book of which pod has which device, which it keeps as the scheduler reserves places; it uses nothing but
// package scheduler's interfaces for plugins. It is for one engine: each simulation wants a Plugin of its own. Nothing tells a node's
// runtime of the devices that were chosen, so that it is no scheduler of GPUs for live clusters.
package gpushare
