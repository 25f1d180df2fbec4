package node

import (
	"time"

	nodev1 "k8s.io/api/node/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

// Group returns the declarations of API group node.k8s.io.
func Group() kind.Group {
	return kind.Group{
		Name:        nodev1.GroupName,
		AddToScheme: nodev1.AddToScheme,
		Versions:    []string{"v1"},
		Kinds:       []*kind.Kind{runtimeClass()},
	}
}

func runtimeClass() *kind.Kind {
	return &kind.Kind{
		GVK:      nodev1.SchemeGroupVersion.WithKind("RuntimeClass"),
		Resource: "runtimeclasses",
		Singular: "runtimeclass",

		Default: typed.Default(func(c *nodev1.RuntimeClass) {
			if c.Overhead != nil {
				podspec.RoundResources(c.Overhead.PodFixed)
			}
		}),
		Validate: typed.Validate(validateRuntimeClass),
		ValidateUpdate: typed.ValidateUpdate(func(c, old *nodev1.RuntimeClass) field.ErrorList {
			return rules.Immutable(c.Handler, old.Handler, field.NewPath("handler"))
		}),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Handler", nodev1.RuntimeClass{}.SwaggerDoc()["handler"]),
			table.Age(),
		},
		Row: typed.Row(func(c *nodev1.RuntimeClass, now time.Time) []any {
			return []any{c.Name, c.Handler, table.Since(c.CreationTimestamp, now)}
		}),
	}
}

func validateRuntimeClass(c *nodev1.RuntimeClass) field.ErrorList {
	errs := rules.Messages(apivalidation.NameIsDNSLabel(c.Handler, false), c.Handler, field.NewPath("handler"))
	if c.Overhead != nil {
		path := field.NewPath("overhead", "limits") // as kube-apiserver names it
		for name, q := range c.Overhead.PodFixed {
			errs = append(errs, rules.Messages(validation.IsQualifiedName(string(name)), string(name), path.Key(string(name)))...)
			if q.Sign() < 0 {
				errs = append(errs, field.Invalid(path.Key(string(name)), q.String(), "must be greater than or equal to 0"))
			}
		}
	}
	if s := c.Scheduling; s != nil {
		path := field.NewPath("scheduling")
		errs = append(errs, metav1validation.ValidateLabels(s.NodeSelector, path.Child("nodeSelector"))...)
		errs = append(errs, podspec.ValidateTolerations(s.Tolerations, path.Child("tolerations"))...)
		for i := range s.Tolerations {
			for k := range i {
				if apiequality.Semantic.DeepEqual(s.Tolerations[i], s.Tolerations[k]) {
					errs = append(errs, field.Duplicate(path.Child("tolerations").Index(i), s.Tolerations[i]))
					break
				}
			}
		}
	}
	return errs
}
