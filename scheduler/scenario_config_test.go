package scheduler_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/config"
)

// configure starts anew with a profile. Of one for what a plugin decides at a point, the plugin is left out there if s.without says so.
func (s *scenario) configure(profile, decides string) {
	s.Helper()
	cfg, err := config.Read(fmt.Appendf(nil, "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles: [%s]\n", profile), config.Options{})
	if err != nil {
		s.Fatal(err)
	}
	next := newScenario(s.T)
	next.without = s.without
	profiles := cfg.Scheduler.Profiles
	if decides != "" && s.without {
		s.leaveOut(&profiles[0], decides)
	}
	if next.engine, err = scheduler.NewEngine(scheduler.EngineOptions{Profiles: profiles}); err != nil {
		s.Fatal(err)
	}
	next.queue = scheduler.NewQueue(next.engine)
	*s = *next
}

// leaveOut is for "PLUGIN POINT"; with the point group the plugin is left out altogether.
func (s *scenario) leaveOut(p *scheduler.NamedProfile, decides string) {
	s.Helper()
	name, point, _ := strings.Cut(decides, " ")
	i := slices.IndexFunc(p.Plugins, func(w scheduler.Weighted) bool { return w.Plugin.Name() == name })
	switch at, ok := pointNamed(point); {
	case i < 0:
		s.Fatalf("decides %s: the profile has no such plugin", decides)
	case point == "group":
		p.Plugins = slices.Delete(slices.Clone(p.Plugins), i, i+1)
	case !ok || !scheduler.PointsOf(p.Plugins[i].Plugin).Has(at) || p.Plugins[i].Except.Has(at):
		s.Fatalf("decides %s: the plugin isn't asked there", decides)
	default:
		p.Plugins = slices.Clone(p.Plugins)
		p.Plugins[i].Except |= at
	}
}

func pointNamed(name string) (scheduler.Points, bool) {
	for at := scheduler.AtPreEnqueue; at <= scheduler.AtPostBind; at <<= 1 {
		if at.String() == name {
			return at, true
		}
	}
	return 0, false
}
