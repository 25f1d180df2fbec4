package resource

import (
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/clock"

	"github.com/keelson/keelson/apiserver/kind"
)

// Options of the group.
type Options struct {
	// Authorizer decides who may allocate claims (resourceclaims/binding) and who may report on devices (resourceclaims/driver). Default: whoever may
	// write a claim's status.
	Authorizer authorizer.UnconditionalAuthorizer
	// Clock tells when a taint was added of which that isn't said. Default: the real one.
	Clock clock.PassiveClock
}

// Group returns the declarations of API group resource.k8s.io.
func Group(o Options) kind.Group {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	return kind.Group{
		Name:        resourcev1.GroupName,
		AddToScheme: resourcev1.AddToScheme,
		Versions:    []string{"v1"},
		Kinds:       []*kind.Kind{deviceClass(), deviceTaintRule(o.Clock), resourceClaim(o), resourceClaimTemplate(), resourceSlice(o.Clock)},
	}
}
