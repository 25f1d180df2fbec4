// Package config reads KubeSchedulerConfiguration files (kubescheduler.config.k8s.io/v1) as kube-scheduler 1.37 reads them: strictly, with its
// defaults, its validation and its messages.
//
//	data, err := os.ReadFile("scheduler.yaml")
//	...
//	cfg, err := config.Read(data, config.Options{Plugins: map[string]config.Factory{
//		"SameRack": func([]byte) (scheduler.Plugin, error) { return SameRack{}, nil },
//	}})
//	...
//	for _, w := range cfg.Warnings {
//		log.Print(w)
//	}
//	s, err := scheduler.New(client, cache, cfg.Scheduler)
//
// What a file asks for and can't be had is an error that names the field; what has no effect here, such as percentageOfNodesToScore (all nodes
// are considered), is a warning. A plugin is asked in one order at all points: where a file orders them differently, that of filter counts, and a
// warning says so.
//
// The package reads no file but the certificates that extenders name.
package config
