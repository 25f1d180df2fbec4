// Package fieldset computes what managed fields are made of, which fields of an object differ from another, straight from Go
// structs. It gives what structured-merge-diff's comparison gives, of which it is the special case of typed objects whose
// schema is known beforehand: a Plan is compiled once for a type and its schema.
//
// What a Plan cannot do (types of no fixed shape, duplicate list keys, unusual characters) it reports, and the caller
// uses structured-merge-diff.
package fieldset
