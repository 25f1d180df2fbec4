package resource

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	dracel "k8s.io/dynamic-resource-allocation/cel"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

// check collects mistakes.
type check struct{ validate.Errors }

func (c *check) label(value string, p *field.Path) {
	c.InvalidEach(p, value, validation.IsDNS1123Label(value))
}

func (c *check) subdomain(value string, p *field.Path) {
	c.InvalidEach(p, value, validation.IsDNS1123Subdomain(value))
}

// driver is the rule of drivers' names. Of opaque parameters and allocation results the generated rules have it.
func (c *check) driver(name string, p *field.Path) {
	if name == "" {
		c.Required(p, "")
		return
	}
	if len(name) > resourcev1.DriverNameMaxLength {
		c.TooLong(p, "", resourcev1.DriverNameMaxLength)
	}
	c.InvalidEach(p, name, validation.IsDNS1123Subdomain(strings.ToLower(name)))
}

func (c *check) pool(name string, p *field.Path) {
	if name == "" {
		c.Required(p, "")
		return
	}
	if len(name) > resourcev1.PoolNameMaxLength {
		c.TooLong(p, "", resourcev1.PoolNameMaxLength)
	}
	for part := range strings.SplitSeq(name, "/") {
		c.subdomain(part, p)
	}
}

// selectors are CEL expressions about a device. Those that are stored have been checked by whoever stored them.
func (c *check) selectors(selectors []resourcev1.DeviceSelector, stored bool, p *field.Path) {
	if len(selectors) > resourcev1.DeviceSelectorsMaxSize {
		return // the generated rules say so
	}
	for i, s := range selectors {
		at := p.Index(i).Child("cel")
		if s.CEL == nil {
			c.Required(at, "")
		} else if !stored {
			c.expression(s.CEL.Expression, at.Child("expression"))
		}
	}
}

func (c *check) expression(text string, p *field.Path) {
	if len(text) > resourcev1.CELSelectorExpressionMaxLength {
		c.TooLong(p, "", resourcev1.CELSelectorExpressionMaxLength)
		return
	}
	env := environment.NewExpressions
	res := dracel.GetCompiler(dracel.Features{EnableConsumableCapacity: true}).CompileCELExpression(text, dracel.Options{EnvType: &env})
	if res.Error == nil {
		if res.MaxCost > resourcev1.CELSelectorExpressionMaxCost {
			c.Forbidden(p, "too complex, exceeds cost limit")
		}
		return
	}
	err := error(res.Error)
	var wrong *cel.Error
	if errors.As(err, &wrong) {
		switch wrong.Type {
		case cel.ErrorTypeRequired:
			c.Required(p, wrong.Detail)
			return
		case cel.ErrorTypeInvalid:
			c.Invalid(p, text, wrong.Detail)
			return
		}
	}
	c.List = append(c.List, field.InternalError(p, err))
}

// opaque is the configuration of a driver.
func (c *check) opaque(o *resourcev1.OpaqueDeviceConfiguration, stored bool, p *field.Path) {
	p = p.Child("opaque")
	if o == nil {
		c.Required(p, "")
		return
	}
	limit := resourcev1.OpaqueParametersMaxLength
	if stored {
		limit = len(o.Parameters.Raw)
	}
	c.object(o.Parameters, limit, p.Child("parameters"))
}

// object is a JSON object of limited length.
func (c *check) object(raw runtime.RawExtension, limit int, p *field.Path) {
	var v any
	switch {
	case len(raw.Raw) == 0:
		c.Required(p, "")
		return
	case len(raw.Raw) > limit:
		c.TooLong(p, "", limit)
		return
	}
	if err := json.Unmarshal(raw.Raw, &v); err != nil {
		c.Invalid(p, "<value omitted>", fmt.Sprintf("error parsing data as JSON: %v", err))
		return
	}
	if v == nil {
		c.Required(p, "")
	} else if _, ok := v.(map[string]any); !ok {
		c.Invalid(p, "<value omitted>", "must be a valid JSON object")
	}
}

func (c *check) labelValue(value string, p *field.Path) {
	c.InvalidEach(p, value, validation.IsValidLabelValue(value))
}

func (c *check) tolerations(list []resourcev1.DeviceToleration, p *field.Path) {
	for i, t := range list {
		at := p.Index(i).Child("value")
		switch t.Operator {
		case resourcev1.DeviceTolerationOpExists:
			if t.Value != "" {
				c.Invalid(at, t.Value, "must be empty for operator `Exists`")
			}
		case resourcev1.DeviceTolerationOpEqual:
			c.labelValue(t.Value, at)
		case "":
			c.Required(p.Index(i).Child("operator"), "")
		}
	}
}

func (c *check) taint(t *resourcev1.DeviceTaint, p *field.Path) {
	c.Add(metav1validation.ValidateLabelName(t.Key, p.Child("key")))
	if t.Value != "" {
		c.labelValue(t.Value, p.Child("value"))
	}
}

// bindingConditions are conditions to be waited for before a pod is bound.
func (c *check) bindingConditions(conditions, failures []string, p *field.Path) {
	good, bad := p.Child("bindingConditions"), p.Child("bindingFailureConditions")
	names := func(list []string, limit int, p *field.Path) map[string]bool {
		seen := map[string]bool{}
		for i, name := range list {
			if len(list) <= limit {
				c.Add(metav1validation.ValidateLabelName(name, p.Index(i)))
			}
			if seen[name] {
				c.Duplicate(p.Index(i), name)
			}
			seen[name] = true
		}
		return seen
	}
	seen := names(conditions, resourcev1.BindingConditionsMaxSize, good)
	names(failures, resourcev1.BindingFailureConditionsMaxSize, bad)
	for i, name := range failures {
		if seen[name] {
			c.Invalid(bad.Index(i), name, "bindingFailureConditions must not overlap with bindingConditions")
		}
	}
	if len(conditions) == 0 && len(failures) > 0 {
		c.Invalid(good, conditions, "bindingConditions are required to use bindingFailureConditions")
	}
	if len(failures) == 0 && len(conditions) > 0 {
		c.Invalid(bad, failures, "bindingFailureConditions are required to use bindingConditions")
	}
}

func (c *check) identifier(id string, p *field.Path) {
	if len(id) > resourcev1.DeviceMaxIDLength {
		c.TooLong(p, "", resourcev1.DeviceMaxIDLength)
	}
	c.InvalidEach(p, id, content.IsCIdentifier(id))
}

// qualifiedName is an identifier, in a driver's domain if it has one. As in Kubernetes, one with more slashes is not looked at.
func (c *check) qualifiedName(name string, p *field.Path) {
	domain, id, qualified := strings.Cut(name, "/")
	switch {
	case !qualified:
		c.identifier(name, p)
		return
	case strings.Contains(id, "/"):
		return
	}
	if domain == "" {
		c.Invalid(p, "", "the domain must not be empty")
	} else {
		c.driver(domain, p)
	}
	if id == "" {
		c.Invalid(p, "", "the name must not be empty")
	} else {
		c.identifier(id, p)
	}
}

// keyed is a key of a map as it is told in paths.
func keyed(p *field.Path, key string, longest int) *field.Path {
	longest = max(longest, 16)
	if len(key) > longest {
		rest := longest - 3
		key = key[:(rest+1)/2] + "..." + key[len(key)-rest/2:]
	}
	return p.Key(key)
}
