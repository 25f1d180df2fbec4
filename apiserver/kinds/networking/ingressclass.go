package networking

import (
	"context"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

const maxControllerLength = 250

func ingressClass() *kind.Kind {
	return &kind.Kind{
		GVK:      networkingv1.SchemeGroupVersion.WithKind("IngressClass"),
		Resource: "ingressclasses",
		Singular: "ingressclass",

		Default: typed.Default(func(c *networkingv1.IngressClass) {
			if c.Spec.Parameters != nil {
				rules.SetNil(&c.Spec.Parameters.Scope, networkingv1.IngressClassParametersReferenceScopeCluster)
			}
		}),
		PrepareForCreate: typed.Prepare(func(_ context.Context, c *networkingv1.IngressClass) { c.Generation = 1 }),
		PrepareForUpdate: typed.PrepareUpdate(func(_ context.Context, c, old *networkingv1.IngressClass) {
			c.Generation = old.Generation
			if !apiequality.Semantic.DeepEqual(c.Spec, old.Spec) {
				c.Generation++
			}
		}),
		Validate: typed.Validate(validateIngressClass),
		ValidateUpdate: typed.ValidateUpdate(func(c, old *networkingv1.IngressClass) field.ErrorList {
			errs := rules.Immutable(c.Spec.Controller, old.Spec.Controller, field.NewPath("spec", "controller"))
			return append(errs, validateIngressClass(c)...)
		}),
		AllowUnconditionalUpdate: true,
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Controller", "Controller that is responsible for handling this class"),
			table.Text("Parameters", "A reference to a resource with additional parameters"),
			table.Age(),
		},
		Row: typed.Row(func(c *networkingv1.IngressClass, now time.Time) []any {
			parameters := "<none>"
			if p := c.Spec.Parameters; p != nil {
				parameters = p.Kind
				if p.APIGroup != nil {
					parameters += "." + *p.APIGroup
				}
				parameters += "/" + p.Name
			}
			return []any{c.Name, c.Spec.Controller, parameters, table.Since(c.CreationTimestamp, now)}
		}),
	}
}

func validateIngressClass(c *networkingv1.IngressClass) field.ErrorList {
	at := field.NewPath("spec", "controller")
	var errs field.ErrorList
	if len(c.Spec.Controller) > maxControllerLength {
		errs = append(errs, field.TooLong(at, c.Spec.Controller, maxControllerLength))
	}
	errs = append(errs, validation.IsDomainPrefixedPath(at, c.Spec.Controller)...)
	return append(errs, validateClassParameters(c.Spec.Parameters, field.NewPath("spec", "parameters"))...)
}

func validateClassParameters(p *networkingv1.IngressClassParametersReference, at *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	errs := validateReference(p.APIGroup, p.Kind, p.Name, at)
	const cluster, namespace = networkingv1.IngressClassParametersReferenceScopeCluster, networkingv1.IngressClassParametersReferenceScopeNamespace
	if p.Scope == nil {
		errs = append(errs, field.Required(at.Child("scope"), ""))
		return errs
	}
	errs = append(errs, rules.OneOf(*p.Scope, at.Child("scope"), cluster, namespace)...)
	switch *p.Scope {
	case namespace:
		if p.Namespace == nil || *p.Namespace == "" {
			errs = append(errs, field.Required(at.Child("namespace"), "`parameters.scope` is set to 'Namespace'"))
		} else {
			errs = append(errs, rules.Messages(apivalidation.ValidateNamespaceName(*p.Namespace, false), *p.Namespace, at.Child("namespace"))...)
		}
	case cluster:
		if p.Namespace != nil {
			errs = append(errs, field.Forbidden(at.Child("namespace"), "`parameters.scope` is set to 'Cluster'"))
		}
	}
	return errs
}

// validateReference returns the mistakes of a reference to an object of any kind.
func validateReference(group *string, kind, name string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if group != nil {
		errs = append(errs, rules.Messages(validation.IsDNS1123Subdomain(*group), *group, at.Child("apiGroup"))...)
	}
	if kind == "" {
		errs = append(errs, field.Required(at.Child("kind"), "kind is required"))
	} else {
		errs = append(errs, rules.Messages(path.IsValidPathSegmentName(kind), kind, at.Child("kind"))...)
	}
	if name == "" {
		errs = append(errs, field.Required(at.Child("name"), "name is required"))
	} else {
		errs = append(errs, rules.Messages(path.IsValidPathSegmentName(name), name, at.Child("name"))...)
	}
	return errs
}
