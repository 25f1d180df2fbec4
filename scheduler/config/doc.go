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
// are considered), is a warning. Each extension point has its own plugins in its own order. Where a file leaves out half of what a plugin needs, with
// which kube-scheduler would fail every pod, such as filter without preFilter, the plugin does both, and a warning says so.
//
// The package reads no file but the certificates that extenders name.
package config
