package scheduler_test

import (
	"fmt"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/config"
)

// configure starts anew with a profile.
func (s *scenario) configure(profile string) {
	s.Helper()
	cfg, err := config.Read(fmt.Appendf(nil, "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles: [%s]\n", profile), config.Options{})
	if err != nil {
		s.Fatal(err)
	}
	next := newScenario(s.T)
	if next.engine, err = scheduler.NewEngine(scheduler.EngineOptions{Profiles: cfg.Scheduler.Profiles}); err != nil {
		s.Fatal(err)
	}
	*s = *next
}
