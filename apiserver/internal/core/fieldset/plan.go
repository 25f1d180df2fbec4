package fieldset

import (
	"fmt"
	"reflect"
	"sort"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
)

// Plan knows how to walk objects of one type.
type Plan struct{ root *node }

type shape uint8

const (
	leaf shape = iota
	structure
	mapping
	keyedList
	setList
)

// node is a type in its place in the schema.
type node struct {
	shape  shape
	fields []fieldNode // of a structure, by JSON name
	elem   *node
	keys   []keyField // of a keyed list, by name
	zero   func(reflect.Value) bool
	equal  func(a, b reflect.Value) bool // of a leaf; neither is null
}

type fieldNode struct {
	name      string
	index     []int
	omitEmpty bool
	omitZero  func(reflect.Value) bool
	node      *node
}

type keyField struct {
	name  string
	index []int
	omit  func(reflect.Value) bool
	def   any
}

// New compiles a plan for objects of struct type t with a schema. Top-level fields in skip, and the metadata that nobody owns,
// are left out. The error says why there can be no plan.
func New(t reflect.Type, s *schema.Schema, ref schema.TypeRef, skip ...string) (*Plan, error) {
	c := &compiler{schema: s, made: map[typeKey]*node{}}
	root, err := c.compile(t, ref)
	if err != nil {
		return nil, err
	}
	if root.shape != structure {
		return nil, fmt.Errorf("fieldset: %s is not a granular structure", t)
	}
	top := without(root, append([]string{"apiVersion", "kind"}, skip...)...)
	for i := range top.fields {
		if f := &top.fields[i]; f.name == "metadata" && f.node.shape == structure {
			f.node = without(f.node, "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields", "resourceVersion")
		}
	}
	return &Plan{root: top}, nil
}

func without(n *node, names ...string) *node {
	c := *n
	c.fields = nil
	for _, f := range n.fields {
		drop := false
		for _, x := range names {
			drop = drop || f.name == x
		}
		if !drop {
			c.fields = append(c.fields, f)
		}
	}
	return &c
}

type typeKey struct {
	t        reflect.Type
	name     string
	relation schema.ElementRelationship
}

type compiler struct {
	schema *schema.Schema
	made   map[typeKey]*node
}

func (c *compiler) compile(t reflect.Type, ref schema.TypeRef) (*node, error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var key typeKey
	if ref.NamedType != nil {
		key = typeKey{t: t, name: *ref.NamedType}
		if ref.ElementRelationship != nil {
			key.relation = *ref.ElementRelationship
		}
		if n := c.made[key]; n != nil {
			return n, nil
		}
	}
	atom, ok := c.schema.Resolve(ref)
	if !ok {
		return nil, fmt.Errorf("fieldset: no schema for %s", t)
	}
	n := &node{}
	if ref.NamedType != nil {
		c.made[key] = n
	}
	return n, c.fill(n, t, atom)
}

var (
	timeType      = reflect.TypeFor[metav1.Time]()
	microTimeType = reflect.TypeFor[metav1.MicroTime]()
	quantityType  = reflect.TypeFor[resource.Quantity]()
	intOrStrType  = reflect.TypeFor[intstr.IntOrString]()
	durationType  = reflect.TypeFor[metav1.Duration]()
	marshaler     = reflect.TypeFor[interface{ MarshalJSON() ([]byte, error) }]()
)

func (c *compiler) fill(n *node, t reflect.Type, atom schema.Atom) error {
	n.zero = func(reflect.Value) bool { return false }
	switch t {
	case timeType:
		n.zero = func(v reflect.Value) bool { return v.Interface().(metav1.Time).Time.IsZero() }
		n.equal = func(a, b reflect.Value) bool {
			return a.Interface().(metav1.Time).Unix() == b.Interface().(metav1.Time).Unix()
		}
		return nil
	case microTimeType:
		n.zero = func(v reflect.Value) bool { return v.Interface().(metav1.MicroTime).Time.IsZero() }
		n.equal = func(a, b reflect.Value) bool {
			return a.Interface().(metav1.MicroTime).Truncate(time.Microsecond).Equal(b.Interface().(metav1.MicroTime).Truncate(time.Microsecond))
		}
		return nil
	case quantityType:
		n.equal = func(a, b reflect.Value) bool {
			x, y := a.Interface().(resource.Quantity), b.Interface().(resource.Quantity)
			return x.String() == y.String()
		}
		return nil
	case intOrStrType, durationType:
		n.equal = func(a, b reflect.Value) bool { return a.Interface() == b.Interface() }
		return nil
	}
	if t.Implements(marshaler) || reflect.PointerTo(t).Implements(marshaler) {
		return fmt.Errorf("fieldset: %s has a form of its own", t)
	}
	switch t.Kind() {
	case reflect.String:
		n.equal = func(a, b reflect.Value) bool { return a.String() == b.String() }
	case reflect.Bool:
		n.equal = func(a, b reflect.Value) bool { return a.Bool() == b.Bool() }
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n.equal = func(a, b reflect.Value) bool { return a.Int() == b.Int() }
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n.equal = func(a, b reflect.Value) bool { return a.Uint() == b.Uint() }
	case reflect.Float32, reflect.Float64:
		n.equal = func(a, b reflect.Value) bool { return a.Float() == b.Float() }
	case reflect.Struct:
		return c.fillStruct(n, t, atom)
	case reflect.Map:
		return c.fillMap(n, t, atom)
	case reflect.Slice:
		return c.fillList(n, t, atom)
	default:
		return fmt.Errorf("fieldset: %s has no fixed shape", t)
	}
	if atom.Scalar == nil {
		return fmt.Errorf("fieldset: %s is not a scalar in the schema", t)
	}
	return nil
}

// deepEqual compares atomic values.
func deepEqual(a, b reflect.Value) bool {
	return equality.Semantic.DeepEqual(a.Interface(), b.Interface())
}

func (c *compiler) fillStruct(n *node, t reflect.Type, atom schema.Atom) error {
	if atom.Map == nil {
		return fmt.Errorf("fieldset: %s is not a map in the schema", t)
	}
	fields, err := fieldsOf(t, nil)
	if err != nil {
		return err
	}
	if atom.Map.ElementRelationship == schema.Atomic {
		n.equal = deepEqual
		// Whether it is empty matters as little as what is in it.
		return nil
	}
	n.shape = structure
	for _, f := range fields {
		ref := atom.Map.ElementType
		if sf, ok := atom.Map.FindField(f.name); ok {
			ref = sf.Type
		}
		if f.name == "managedFields" {
			f.node = &node{equal: deepEqual, zero: func(reflect.Value) bool { return false }}
		} else if f.node, err = c.compile(t.FieldByIndex(f.index).Type, ref); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		n.fields = append(n.fields, f)
	}
	sort.Slice(n.fields, func(i, j int) bool { return n.fields[i].name < n.fields[j].name })
	return nil
}

// fieldsOf lists the JSON fields of a struct, those of inlined ones included.
func fieldsOf(t reflect.Type, at []int) ([]fieldNode, error) {
	var out []fieldNode
	for i := range t.NumField() {
		sf := t.Field(i)
		if !sf.IsExported() && !sf.Anonymous {
			continue
		}
		tag := sf.Tag.Get("json")
		if tag == "-" {
			continue
		}
		name, opts, _ := strings.Cut(tag, ",")
		index := append(append([]int{}, at...), i)
		if sf.Anonymous && name == "" {
			if sf.Type.Kind() != reflect.Struct {
				return nil, fmt.Errorf("fieldset: %s inlines %s", t, sf.Type)
			}
			inner, err := fieldsOf(sf.Type, index)
			if err != nil {
				return nil, err
			}
			out = append(out, inner...)
			continue
		}
		f := fieldNode{name: name, index: index}
		if name == "" {
			f.name = sf.Name
		}
		for _, o := range strings.Split(opts, ",") {
			switch o {
			case "omitempty":
				f.omitEmpty = true
			case "omitzero":
				f.omitZero = zeroFunc(sf.Type)
			}
		}
		out = append(out, f)
	}
	return out, nil
}

func zeroFunc(t reflect.Type) func(reflect.Value) bool {
	type isZeroer interface{ IsZero() bool }
	switch {
	case t.Implements(reflect.TypeFor[isZeroer]()):
		return func(v reflect.Value) bool {
			return v.Kind() == reflect.Pointer && v.IsNil() || v.Interface().(isZeroer).IsZero()
		}
	case reflect.PointerTo(t).Implements(reflect.TypeFor[isZeroer]()):
		return func(v reflect.Value) bool {
			p := reflect.New(t)
			p.Elem().Set(v)
			return p.Interface().(isZeroer).IsZero()
		}
	}
	return reflect.Value.IsZero
}

func (c *compiler) fillMap(n *node, t reflect.Type, atom schema.Atom) error {
	if atom.Map == nil || t.Key().Kind() != reflect.String {
		return fmt.Errorf("fieldset: %s is not a map in the schema", t)
	}
	if atom.Map.ElementRelationship == schema.Atomic {
		n.equal = deepEqual
		return nil
	}
	n.shape = mapping
	var err error
	n.elem, err = c.compile(t.Elem(), atom.Map.ElementType)
	return err
}

func (c *compiler) fillList(n *node, t reflect.Type, atom schema.Atom) error {
	if t.Elem().Kind() == reflect.Uint8 && atom.Scalar != nil {
		n.equal = func(a, b reflect.Value) bool { return string(a.Bytes()) == string(b.Bytes()) }
		return nil
	}
	if atom.List == nil {
		return fmt.Errorf("fieldset: %s is not a list in the schema", t)
	}
	if atom.List.ElementRelationship != schema.Associative {
		n.equal = deepEqual
		return nil
	}
	var err error
	if n.elem, err = c.compile(t.Elem(), atom.List.ElementType); err != nil {
		return err
	}
	if len(atom.List.Keys) == 0 {
		if n.shape = setList; t.Elem().Kind() != reflect.String {
			return fmt.Errorf("fieldset: a set of %s", t.Elem())
		}
		return nil
	}
	n.shape = keyedList
	return c.fillKeys(n, t, atom.List)
}

func (c *compiler) fillKeys(n *node, t reflect.Type, l *schema.List) error {
	et := t.Elem()
	if et.Kind() != reflect.Struct {
		return fmt.Errorf("fieldset: a keyed list of %s", et)
	}
	fields, err := fieldsOf(et, nil)
	if err != nil {
		return err
	}
	atom, ok := c.schema.Resolve(l.ElementType)
	if !ok || atom.Map == nil {
		return fmt.Errorf("fieldset: a keyed list of no maps, %s", et)
	}
	names := append([]string{}, l.Keys...)
	sort.Strings(names)
	for _, name := range names {
		found := false
		for _, f := range fields {
			if f.name != name {
				continue
			}
			found = true
			switch et.FieldByIndex(f.index).Type.Kind() {
			case reflect.String, reflect.Int32, reflect.Int64, reflect.Int:
			default:
				return fmt.Errorf("fieldset: key %s of %s is neither string nor integer", name, et)
			}
			sf, _ := atom.Map.FindField(name)
			n.keys = append(n.keys, keyField{name: name, index: f.index, omit: f.omit, def: sf.Default})
		}
		if !found {
			return fmt.Errorf("fieldset: %s has no key %s", et, name)
		}
	}
	return nil
}

// omit reports whether a value does not appear in JSON.
func (f *fieldNode) omit(v reflect.Value) bool {
	if f.omitEmpty {
		switch v.Kind() {
		case reflect.Map, reflect.Slice, reflect.String, reflect.Array:
			if v.Len() == 0 {
				return true
			}
		case reflect.Pointer, reflect.Interface:
			if v.IsNil() {
				return true
			}
		case reflect.Struct:
		default:
			if v.IsZero() {
				return true
			}
		}
	}
	return f.omitZero != nil && f.omitZero(v)
}
