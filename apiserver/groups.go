package apiserver

import (
	"time"

	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/clock"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/apps"
	"github.com/keelson/keelson/apiserver/kinds/batch"
	"github.com/keelson/keelson/apiserver/kinds/coordination"
	"github.com/keelson/keelson/apiserver/kinds/discovery"
	"github.com/keelson/keelson/apiserver/kinds/networking"
	"github.com/keelson/keelson/apiserver/kinds/policy"
	"github.com/keelson/keelson/apiserver/kinds/rbac"
)

// GroupOptions are what declarations of kinds depend on.
type GroupOptions struct {
	// AllowLoopback lets endpoints have loopback addresses.
	AllowLoopback bool
	// EventTTL is how long Events are kept.
	EventTTL time.Duration
	Clock    clock.PassiveClock
	// Authorizer is asked whether a user may give permissions that it does not have.
	Authorizer authorizer.Authorizer
}

// DefaultGroups returns the API groups of Kubernetes that a Server serves.
func DefaultGroups(o GroupOptions) []kind.Group {
	return []kind.Group{
		apps.Group(),
		batch.Group(),
		coordination.Group(),
		discovery.Group(discovery.Options{AllowLoopback: o.AllowLoopback}),
		networking.Group(),
		policy.Group(),
		rbac.Group(rbac.Options{Authorizer: o.Authorizer}),
	}
}

// mergeGroups adds own to defaults; a group of the same name is replaced.
func mergeGroups(defaults, own []kind.Group) []kind.Group {
	out := append([]kind.Group(nil), defaults...)
next:
	for _, g := range own {
		for i := range out {
			if out[i].Name == g.Name {
				out[i] = g
				continue next
			}
		}
		out = append(out, g)
	}
	return out
}
