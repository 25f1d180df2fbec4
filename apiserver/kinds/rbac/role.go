package rbac

import (
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

func roleColumns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		table.Name(),
		{Name: "Created At", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
	}
}

func role(g guard) *kind.Kind {
	return &kind.Kind{
		GVK:        rbacv1.SchemeGroupVersion.WithKind("Role"),
		Resource:   "roles",
		Singular:   "role",
		Namespaced: true,

		NameValidation: validName,
		Validate: typed.Validate(func(r *rbacv1.Role) field.ErrorList {
			return validatePolicyRules(r.Rules, true, field.NewPath("rules"))
		}),
		ValidateUpdate: typed.ValidateUpdate(func(r, _ *rbacv1.Role) field.ErrorList {
			return validatePolicyRules(r.Rules, true, field.NewPath("rules"))
		}),
		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,
		Begin:                    g.role,
		Columns:                  roleColumns(),
		Row:                      typed.Row(func(r *rbacv1.Role, now time.Time) []any { return []any{r.Name, createdAt(r.CreationTimestamp)} }),
	}
}

func clusterRole(g guard) *kind.Kind {
	return &kind.Kind{
		GVK:      rbacv1.SchemeGroupVersion.WithKind("ClusterRole"),
		Resource: "clusterroles",
		Singular: "clusterrole",

		NameValidation:           validName,
		Validate:                 typed.Validate(validateClusterRole),
		ValidateUpdate:           typed.ValidateUpdate(func(r, _ *rbacv1.ClusterRole) field.ErrorList { return validateClusterRole(r) }),
		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,
		Begin:                    g.clusterRole,
		Columns:                  roleColumns(),
		Row:                      typed.Row(func(r *rbacv1.ClusterRole, now time.Time) []any { return []any{r.Name, createdAt(r.CreationTimestamp)} }),
	}
}

func validateClusterRole(r *rbacv1.ClusterRole) field.ErrorList {
	errs := validatePolicyRules(r.Rules, false, field.NewPath("rules"))
	if r.AggregationRule == nil {
		return errs
	}
	path := field.NewPath("aggregationRule", "clusterRoleSelectors")
	if len(r.AggregationRule.ClusterRoleSelectors) == 0 {
		errs = append(errs, field.Required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
	}
	for i := range r.AggregationRule.ClusterRoleSelectors {
		errs = append(errs, rules.LabelSelector(&r.AggregationRule.ClusterRoleSelectors[i], path.Index(i))...)
	}
	return errs
}

func validatePolicyRules(list []rbacv1.PolicyRule, namespaced bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range list {
		errs = append(errs, validatePolicyRule(&list[i], namespaced, path.Index(i))...)
	}
	return errs
}

func validatePolicyRule(r *rbacv1.PolicyRule, namespaced bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(r.Verbs) == 0 {
		errs = append(errs, field.Required(path.Child("verbs"), ""))
	}
	if len(r.NonResourceURLs) > 0 {
		at := path.Child("nonResourceURLs")
		if namespaced {
			errs = append(errs, field.Invalid(at, r.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs"))
		}
		if len(r.APIGroups)+len(r.Resources)+len(r.ResourceNames) > 0 {
			errs = append(errs, field.Invalid(at, r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs"))
		}
		return errs
	}
	if len(r.APIGroups) == 0 {
		errs = append(errs, field.Required(path.Child("apiGroups"), "resource rules must supply at least one api group"))
	}
	if len(r.Resources) == 0 {
		errs = append(errs, field.Required(path.Child("resources"), "resource rules must supply at least one resource"))
	}
	return errs
}
