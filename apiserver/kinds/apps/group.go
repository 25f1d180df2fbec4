package apps

import (
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
)

// Group returns the declarations of API group apps.
func Group() kind.Group {
	return kind.Group{
		Name:        appsv1.GroupName,
		AddToScheme: appsv1.AddToScheme,
		Versions:    []string{"v1"},
		Kinds:       []*kind.Kind{controllerRevision(), daemonSet(), deployment(), replicaSet(), statefulSet()},
	}
}

// selectorText is what status.selector of a Scale shows.
func selectorText(selector *metav1.LabelSelector) string {
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return ""
	}
	return s.String()
}

// validateSelector returns the mistakes of a required selector and whether it can be used to match labels.
func validateSelector(selector *metav1.LabelSelector, path *field.Path, emptyMessage string) field.ErrorList {
	if selector == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	errs := rules.LabelSelector(selector, path)
	if len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
		errs = append(errs, field.Invalid(path, selector, emptyMessage))
	}
	return errs
}
