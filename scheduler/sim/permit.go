package sim

import (
	"fmt"

	"github.com/keelson/keelson/scheduler"
)

// A simulation binds pods itself, in virtual time.
const notAsked = scheduler.AtPreBind | scheduler.AtBind | scheduler.AtPostBind

// profilesOf are an engine's profiles, with the field that each was given in.
func profilesOf(opts scheduler.EngineOptions) (profiles []scheduler.NamedProfile, fields []string) {
	if len(opts.Profiles) == 0 {
		return []scheduler.NamedProfile{{Plugins: opts.Profile}}, []string{"Profile"}
	}
	for i := range opts.Profiles {
		fields = append(fields, fmt.Sprintf("Profiles[%d].Plugins", i))
	}
	return opts.Profiles, fields
}

// checkPlugins refuses plugins that would be asked where a simulation asks nobody.
func checkPlugins(opts scheduler.EngineOptions) error {
	profiles, fields := profilesOf(opts)
	for i := range profiles {
		for k, w := range profiles[i].Plugins {
			if w.Plugin == nil {
				continue // which the engine refuses
			}
			if at := scheduler.PointsOf(w.Plugin) &^ w.Except & notAsked; at != 0 {
				return fmt.Errorf("sim: Options.Engine.%s[%d]: plugin %s is asked at %s, but a simulation binds pods itself: want it left out there, by Except", fields[i], k, w.Plugin.Name(), at)
			}
		}
	}
	return nil
}

// permit asks the PermitPlugins of a pod's profile, and returns the rejection, nil if there is none.
func (s *Simulation) permit(p *pod, node string) (*scheduler.Rejection, error) {
	profiles, _ := profilesOf(s.opts.Engine)
	for i := range profiles {
		if name := profiles[i].Name; name != "" && name != p.spod.Object.Spec.SchedulerName {
			continue
		}
		for _, w := range profiles[i].At(scheduler.AtPermit) {
			answer := w.Plugin.(scheduler.PermitPlugin).Permit(p.spod, node)
			switch {
			case answer.Reject != nil:
				r := *answer.Reject
				if r.Plugin == "" {
					r.Plugin = w.Plugin.Name()
				}
				return &r, nil
			case answer.Wait > 0:
				return nil, fmt.Errorf("plugin %s has %s wait for its permission, which nobody can give in a simulation", w.Plugin.Name(), p.key)
			}
		}
		break
	}
	return nil, nil
}

// denied takes back the place of a pod that got no permission. Nothing was decided meanwhile, so that nobody is helped by that.
func (s *Simulation) denied(p *pod, node string, r *scheduler.Rejection) {
	s.engine.Unreserve(p.spod, node)
	s.engine.Remove(p.spod.Object.UID)
	d := scheduler.Decision{Nodes: 1, Reasons: map[string]int{}}
	for _, reason := range r.Reasons {
		d.Reasons[reason]++
	}
	s.log.waits(p, &d)
}
