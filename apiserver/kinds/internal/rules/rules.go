package rules

import (
	"fmt"
	"strconv"
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// SetZero sets a field that has its zero value.
func SetZero[T comparable](target *T, value T) {
	var zero T
	if *target == zero {
		*target = value
	}
}

// SetNil sets a pointer that is nil to a new copy of value.
func SetNil[T any](target **T, value T) {
	if *target == nil {
		*target = &value
	}
}

// NonNegative refuses numbers below zero.
func NonNegative[N ~int | ~int32 | ~int64](value N, path *field.Path) field.ErrorList {
	return apivalidation.ValidateNonnegativeField(int64(value), path)
}

// NonNegativePointer is NonNegative for a number that may be unset.
func NonNegativePointer[N ~int | ~int32 | ~int64](value *N, path *field.Path) field.ErrorList {
	if value == nil {
		return nil
	}
	return apivalidation.ValidateNonnegativeField(int64(*value), path)
}

// Immutable refuses a change.
func Immutable(value, old any, path *field.Path) field.ErrorList {
	return apivalidation.ValidateImmutableField(value, old, path)
}

// IntOrPercent accepts a number that is not negative, or a percentage.
func IntOrPercent(value intstr.IntOrString, path *field.Path) field.ErrorList {
	switch value.Type {
	case intstr.String:
		var errs field.ErrorList
		for _, msg := range validation.IsValidPercent(value.StrVal) {
			errs = append(errs, field.Invalid(path, value, msg))
		}
		return errs
	case intstr.Int:
		return NonNegative(value.IntVal, path)
	default:
		return field.ErrorList{field.Invalid(path, value, "must be an integer or percentage (e.g '5%%')")}
	}
}

// AtMost100Percent refuses percentages above 100; numbers pass.
func AtMost100Percent(value intstr.IntOrString, path *field.Path) field.ErrorList {
	if percent, ok := percentOf(value); ok && percent > 100 {
		return field.ErrorList{field.Invalid(path, value, "must not be greater than 100%")}
	}
	return nil
}

// Amount is the number in an IntOrString: that of the percentage, if it is one.
func Amount(value intstr.IntOrString) int {
	if percent, ok := percentOf(value); ok {
		return percent
	}
	return value.IntValue()
}

func percentOf(value intstr.IntOrString) (int, bool) {
	if value.Type != intstr.String || len(validation.IsValidPercent(value.StrVal)) != 0 {
		return 0, false
	}
	percent, err := strconv.Atoi(strings.TrimSuffix(value.StrVal, "%"))
	return percent, err == nil
}

// LabelSelector returns the mistakes of a label selector; of a stored object (update) values that are no
// label values are let through.
func LabelSelector(selector *metav1.LabelSelector, path *field.Path) field.ErrorList {
	return metav1validation.ValidateLabelSelector(selector, metav1validation.LabelSelectorValidationOptions{}, path)
}

// NotAbove refuses a count above another.
func NotAbove[N ~int32](value, limit N, path *field.Path, message string) field.ErrorList {
	if value <= limit {
		return nil
	}
	return field.ErrorList{field.Invalid(path, value, message)}
}

// NotDecremented refuses a counter that goes down or is unset.
func NotDecremented(value, old *int32, path *field.Path) field.ErrorList {
	if old == nil || (value != nil && *value >= *old) {
		return nil
	}
	shown := int32(0)
	if value != nil {
		shown = *value
	}
	return field.ErrorList{field.Invalid(path, shown, "cannot be decremented")}
}

// OneOf refuses a value that is not among those supported.
func OneOf[T ~string](value T, path *field.Path, supported ...T) field.ErrorList {
	for _, s := range supported {
		if s == value {
			return nil
		}
	}
	return field.ErrorList{field.NotSupported(path, value, supported)}
}

// Messages turns the messages of k8s.io/apimachinery's string checks into errors.
func Messages(messages []string, value any, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(path, value, m))
	}
	return errs
}

// Conditions refuses conditions of one type twice, and malformed ones.
func Conditions(conditions []metav1.Condition, path *field.Path) field.ErrorList {
	return metav1validation.ValidateConditions(conditions, path)
}

// NameForPods warns of a name that is no DNS label, of an object whose pods take their names from it.
func NameForPods(name string) []string {
	msgs := validation.IsDNS1123Label(name)
	if len(msgs) == 0 || name == "" {
		return nil
	}
	return []string{fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", msgs)}
}
