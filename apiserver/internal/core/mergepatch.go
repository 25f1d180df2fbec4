package core

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	kjson "sigs.k8s.io/json"
)

// A merge patch of a typed object is applied to a copy of the Go struct, so that its cost is that of the patch and not that of the object. The
// result is the same as of merging documents and decoding; whatever could end in an error is left to that way, which
// words it.

// mergeTyped applies a decoded merge patch to obj. It reports false, leaving obj in an undefined state, if that is not possible. unknown
// are the errors of a strict decoder.
func (n *fieldNames) mergeTyped(obj client.Object, patch map[string]any, strict bool) (unknown []error, ok bool) {
	m := merger{names: n, strict: strict}
	v := reflect.ValueOf(obj).Elem()
	if v.Kind() != reflect.Struct || special(patch, false) || !m.structure(v, patch, "") {
		return nil, false
	}
	return m.unknown, true
}

// special reports whether a patch has something that documents treat in a way of their own: a number whose spelling is lost by
// decoding (3.0 is not accepted for an integer), or a null as item of a list.
func special(v any, inList bool) bool {
	switch v := v.(type) {
	case nil:
		return inList
	case float64:
		return true
	case map[string]any:
		for _, x := range v {
			if special(x, false) {
				return true
			}
		}
	case []any:
		for _, x := range v {
			if special(x, true) {
				return true
			}
		}
	}
	return false
}

type merger struct {
	names   *fieldNames
	strict  bool
	unknown []error
}

// jsonFields maps JSON names to field indexes.
type jsonFields map[string][]int

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// fieldNames remembers jsonFields by type.
type fieldNames struct{ made sync.Map }

func (n *fieldNames) of(t reflect.Type) jsonFields {
	if f, ok := n.made.Load(t); ok {
		return f.(jsonFields)
	}
	f := jsonFields{}
	collectFields(t, nil, f)
	n.made.Store(t, f)
	return f
}

func collectFields(t reflect.Type, at []int, into jsonFields) {
	for i := range t.NumField() {
		sf := t.Field(i)
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		index := append(append([]int{}, at...), i)
		switch {
		case name == "-":
		case sf.Anonymous && name == "":
			if sf.Type.Kind() == reflect.Struct {
				collectFields(sf.Type, index, into)
			}
		case !sf.IsExported():
		case name == "":
			into[sf.Name] = index
		default:
			into[name] = index
		}
	}
}

func (m *merger) structure(v reflect.Value, patch map[string]any, path string) bool {
	fields := m.names.of(v.Type())
	for _, name := range slices.Sorted(maps.Keys(patch)) { // the order in which a decoder would complain
		value := patch[name]
		index, ok := fields[name]
		if !ok {
			if m.strict && value != nil {
				m.unknown = append(m.unknown, unknownField(path+name))
			}
			continue
		}
		if !m.value(v.FieldByIndex(index), value, path+name) {
			return false
		}
	}
	return true
}

// value applies a patch to a settable value.
func (m *merger) value(v reflect.Value, patch any, path string) bool {
	if patch == nil {
		v.SetZero()
		return true
	}
	t := v.Type()
	elem := t
	if t.Kind() == reflect.Pointer {
		elem = t.Elem()
	}
	own := t.Implements(unmarshaler) || reflect.PointerTo(elem).Implements(unmarshaler)
	object, isObject := patch.(map[string]any)
	switch {
	case own && isObject:
		return false
	case own || !isObject:
		return m.replace(v, patch, path)
	case elem.Kind() == reflect.Struct:
		if t.Kind() == reflect.Pointer {
			fresh := reflect.New(elem)
			if !v.IsNil() {
				fresh.Elem().Set(v.Elem())
			}
			v.Set(fresh)
			v = fresh.Elem()
		}
		return m.structure(v, object, path+".")
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		return m.mapping(v, object, path+".")
	}
	return false
}

func (m *merger) mapping(v reflect.Value, patch map[string]any, path string) bool {
	t := v.Type()
	// The map is the copy's own, but may be shared with nothing else only if it was not nil.
	if v.IsNil() {
		v.Set(reflect.MakeMap(t))
	}
	for name, value := range patch {
		k := reflect.ValueOf(name).Convert(t.Key())
		if value == nil {
			v.SetMapIndex(k, reflect.Value{})
			continue
		}
		e := reflect.New(t.Elem()).Elem()
		if old := v.MapIndex(k); old.IsValid() {
			e.Set(old)
		}
		if !m.value(e, value, path+name) {
			return false
		}
		v.SetMapIndex(k, e)
	}
	return true
}

// replace decodes a value into a fresh one.
func (m *merger) replace(v reflect.Value, patch any, path string) bool {
	switch p := patch.(type) {
	case string:
		if v.Kind() == reflect.String && !v.Type().Implements(unmarshaler) {
			v.SetString(p)
			return true
		}
	case bool:
		if v.Kind() == reflect.Bool {
			v.SetBool(p)
			return true
		}
	}
	data, err := json.Marshal(patch)
	if err != nil {
		return false
	}
	fresh := reflect.New(v.Type())
	strict, err := kjson.UnmarshalStrict(data, fresh.Interface())
	if err != nil || len(strict) > 0 {
		return false
	}
	v.Set(fresh.Elem())
	return true
}

type unknownField string

func (u unknownField) Error() string { return `unknown field "` + string(u) + `"` }

// strategicTyped applies a decoded strategic merge patch to obj, converting only the top-level fields that it touches. It reports
// false, obj being undefined, if that is not possible; a failure of the patch itself is an error.
func (n *fieldNames) strategicTyped(obj client.Object, patch map[string]any, strict bool) (unknown []error, ok bool, err error) {
	v := reflect.ValueOf(obj).Elem()
	if v.Kind() != reflect.Struct {
		return nil, false, nil
	}
	fields := n.of(v.Type())
	for name, value := range patch {
		if _, known := fields[name]; !known || strings.HasPrefix(name, "$") || name == "kind" || name == "apiVersion" {
			return nil, false, nil
		}
		if md, isMap := value.(map[string]any); name == "metadata" && isMap {
			if _, touched := md["managedFields"]; touched {
				return nil, false, nil
			}
		}
	}
	// A copy that has nothing but what is touched.
	part := reflect.New(v.Type())
	for name := range patch {
		part.Elem().FieldByIndex(fields[name]).Set(v.FieldByIndex(fields[name]))
	}
	partial, isObject := part.Interface().(client.Object)
	if !isObject {
		return nil, false, nil
	}
	entries := obj.GetManagedFields()
	if _, touched := patch["metadata"]; touched {
		partial.SetManagedFields(nil)
	}
	original, err := runtime.DefaultUnstructuredConverter.ToUnstructured(partial)
	if err != nil {
		return nil, false, nil
	}
	for name := range original {
		if _, touched := patch[name]; !touched {
			delete(original, name)
		}
	}
	merged, err := strategicpatch.StrategicMergeMapPatch(original, patch, obj)
	if err != nil {
		return nil, false, err
	}
	out := reflect.New(v.Type())
	err = runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(merged, out.Interface(), strict)
	if s, isStrict := runtime.AsStrictDecodingError(err); isStrict {
		unknown, err = s.Errors(), nil
	}
	if err != nil {
		return nil, false, nil
	}
	for name := range patch {
		v.FieldByIndex(fields[name]).Set(out.Elem().FieldByIndex(fields[name]))
	}
	obj.SetManagedFields(entries)
	return unknown, true, nil
}
