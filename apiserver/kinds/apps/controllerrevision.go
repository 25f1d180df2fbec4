package apps

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

func controllerRevision() *kind.Kind {
	return &kind.Kind{
		GVK:        appsv1.SchemeGroupVersion.WithKind("ControllerRevision"),
		Resource:   "controllerrevisions",
		Singular:   "controllerrevision",
		Namespaced: true,

		Validate: typed.Validate(validateControllerRevision),
		ValidateUpdate: typed.ValidateUpdate(func(r, old *appsv1.ControllerRevision) field.ErrorList {
			errs := validateControllerRevision(r)
			return append(errs, rules.Immutable(r.Data, old.Data, field.NewPath("data"))...)
		}),
		AllowUnconditionalUpdate: true,
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Controller", "Controller of the object"),
			table.Text("Revision", appsv1.ControllerRevision{}.SwaggerDoc()["revision"]),
			table.Age(),
		},
		Row: typed.Row(func(r *appsv1.ControllerRevision, now time.Time) []any {
			controller := "<none>"
			if ref := metav1.GetControllerOf(r); ref != nil {
				gk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).GroupKind()
				controller = strings.ToLower(gk.String()) + "/" + ref.Name
			}
			return []any{r.Name, controller, r.Revision, table.Since(r.CreationTimestamp, now)}
		}),
	}
}

func validateControllerRevision(r *appsv1.ControllerRevision) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("data")
	switch raw := bytes.TrimSpace(r.Data.Raw); {
	case len(raw) == 0 && r.Data.Object == nil, bytes.Equal(raw, []byte("null")):
		errs = append(errs, field.Required(path, "data is mandatory"))
	case len(raw) > 0:
		var object map[string]any
		if err := json.Unmarshal(raw, &object); err != nil {
			errs = append(errs, field.Invalid(path, "<value omitted>", "must be a valid JSON object"))
		}
	}
	return append(errs, rules.NonNegative(r.Revision, field.NewPath("revision"))...)
}
