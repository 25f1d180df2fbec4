package validate

import (
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Messages that many fields share.
const (
	NotNegative   = "must be greater than or equal to 0"
	NotPositive   = "must be greater than zero"
	NotInteger    = "must be an integer"
	ImmutableText = "field is immutable"
	FileMode      = "must be a number between 0 and 0777 (octal), both inclusive"
)

// Errors collects mistakes in the order in which they are found. The zero value is ready for use.
type Errors struct{ List field.ErrorList }

// Required adds that a value is missing.
func (e *Errors) Required(path *field.Path, detail string) {
	e.List = append(e.List, field.Required(path, detail))
}

// Invalid adds that a value is malformed.
func (e *Errors) Invalid(path *field.Path, value any, detail string) {
	e.List = append(e.List, field.Invalid(path, value, detail))
}

// InvalidEach adds one error for every message of one of apimachinery's checks.
func (e *Errors) InvalidEach(path *field.Path, value any, messages []string) {
	for _, message := range messages {
		e.Invalid(path, value, message)
	}
}

// Forbidden adds that a value may not be given here.
func (e *Errors) Forbidden(path *field.Path, detail string) {
	e.List = append(e.List, field.Forbidden(path, detail))
}

// Duplicate adds that a value occurs twice.
func (e *Errors) Duplicate(path *field.Path, value any) {
	e.List = append(e.List, field.Duplicate(path, value))
}

// NotFound adds that a value refers to nothing.
func (e *Errors) NotFound(path *field.Path, value any) {
	e.List = append(e.List, field.NotFound(path, value))
}

// TooMany adds that a list is too long.
func (e *Errors) TooMany(path *field.Path, actual, limit int) {
	e.List = append(e.List, field.TooMany(path, actual, limit))
}

// TooLong adds that a text is too long.
func (e *Errors) TooLong(path *field.Path, value any, limit int) {
	e.List = append(e.List, field.TooLong(path, value, limit))
}

// Add appends errors found elsewhere.
func (e *Errors) Add(list field.ErrorList) { e.List = append(e.List, list...) }

// NotSupported adds that a value is not one of those allowed.
func NotSupported[T ~string](e *Errors, path *field.Path, value T, allowed ...T) {
	e.List = append(e.List, field.NotSupported(path, value, allowed))
}

// OneOf checks that a value is set and is one of those allowed.
func OneOf[T ~string](e *Errors, path *field.Path, value T, allowed ...T) {
	if value == "" {
		e.Required(path, "")
		return
	}
	OneOfOrEmptyRefused(e, path, value, allowed...)
}

// OneOfOrEmptyRefused checks that a value is one of those allowed; an empty one is "not supported" like any other.
func OneOfOrEmptyRefused[T ~string](e *Errors, path *field.Path, value T, allowed ...T) {
	for _, a := range allowed {
		if value == a {
			return
		}
	}
	NotSupported(e, path, value, allowed...)
}
