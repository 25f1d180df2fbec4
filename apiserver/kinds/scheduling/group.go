package scheduling

import (
	"errors"

	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/keelson/keelson/apiserver/kind"
)

// Group returns the declarations of API group scheduling.k8s.io.
func Group() kind.Group {
	return kind.Group{
		Name: schedulingv1.GroupName,
		AddToScheme: func(s *runtime.Scheme) error {
			return errors.Join(schedulingv1.AddToScheme(s), schedulingv1beta1.AddToScheme(s))
		},
		Versions: []string{"v1", "v1beta1"},
		Kinds:    []*kind.Kind{priorityClass(), podGroup(), workload()},
	}
}
