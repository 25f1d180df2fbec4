package config

import (
	corev1 "k8s.io/api/core/v1"
	componentv1 "k8s.io/component-base/config/v1alpha1"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"k8s.io/utils/ptr"
)

func setDefault[T any](p **T, value T) {
	if *p == nil {
		*p = ptr.To(value)
	}
}

func setDefaults(c *configv1.KubeSchedulerConfiguration) {
	setDefault(&c.Parallelism, 16)
	setDefault(&c.PodInitialBackoffSeconds, 1)
	setDefault(&c.PodMaxBackoffSeconds, 10)
	if len(c.Profiles) == 0 {
		c.Profiles = []configv1.KubeSchedulerProfile{{}}
	}
	if len(c.Profiles) == 1 {
		setDefault(&c.Profiles[0].SchedulerName, corev1.DefaultSchedulerName)
	}
	for i := range c.Profiles {
		p := &c.Profiles[i]
		setDefault(&p.SchedulerName, "") // which validation refuses
		if p.Plugins == nil {
			p.Plugins = &configv1.Plugins{}
		}
		for j := range p.PluginConfig {
			setDefaultArgs(p.PluginConfig[j].Args.Object)
		}
	}
	le := &c.LeaderElection
	if le.ResourceLock == "" {
		le.ResourceLock = "leases"
	}
	if le.ResourceNamespace == "" {
		le.ResourceNamespace = configv1.SchedulerDefaultLockObjectNamespace
	}
	if le.ResourceName == "" {
		le.ResourceName = configv1.SchedulerDefaultLockObjectName
	}
	componentv1.RecommendedDefaultLeaderElectionConfiguration(le)
	componentv1.RecommendedDefaultClientConnectionConfiguration(&c.ClientConnection)
}

// setDefaultArgs sets those defaults that the plugins' own options don't have.
func setDefaultArgs(args any) {
	switch a := args.(type) {
	case *configv1.DefaultPreemptionArgs:
		setDefault(&a.MinCandidateNodesPercentage, 10)
		setDefault(&a.MinCandidateNodesAbsolute, 100)
	case *configv1.NodeResourcesFitArgs:
		if a.ScoringStrategy == nil {
			a.ScoringStrategy = &configv1.ScoringStrategy{Type: configv1.LeastAllocated}
		}
	case *configv1.PodTopologySpreadArgs:
		if a.DefaultingType == "" {
			a.DefaultingType = configv1.SystemDefaulting
		}
	}
}
