package fieldset

import (
	"reflect"
	"sort"
	"strconv"
	"strings"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	smdvalue "sigs.k8s.io/structured-merge-diff/v6/value"
)

// val is a value on one side of a comparison.
type val struct {
	v  reflect.Value // behind pointers
	is state
}

type state uint8

const (
	absent state = iota
	null
	there
)

// change is how a path differs.
type change uint8

const (
	added change = iota
	modified
	removed
)

// sink takes what a walk finds. Elements are entered in the order in which a fieldpath.Set is encoded.
type sink interface {
	enter(e *element)
	leave()
	// hit is called for the entered path: inner before its children, if it has some.
	hit(c change, inner bool)
}

// element is a step of a path: a field or map key, or an item of a list by its keys or value.
type element struct {
	field string
	keys  []keyValue
	set   bool
	value string // of a set
}

type keyValue struct {
	name string
	str  string
	num  int64
	isNo bool
}

func (k keyValue) compare(o keyValue) int {
	if c := strings.Compare(k.name, o.name); c != 0 {
		return c
	}
	switch {
	case k.isNo && o.isNo:
		switch {
		case k.num < o.num:
			return -1
		case k.num > o.num:
			return 1
		}
		return 0
	case k.isNo != o.isNo: // numbers come before strings
		if k.isNo {
			return -1
		}
		return 1
	}
	return strings.Compare(k.str, o.str)
}

func (e *element) compare(o *element) int {
	if e.set {
		return strings.Compare(e.value, o.value)
	}
	for i := range min(len(e.keys), len(o.keys)) {
		if c := e.keys[i].compare(o.keys[i]); c != 0 {
			return c
		}
	}
	return len(e.keys) - len(o.keys)
}

// pathElement converts to structured-merge-diff's form.
func (e *element) pathElement() fieldpath.PathElement {
	switch {
	case e.set:
		v := smdvalue.NewValueInterface(e.value)
		return fieldpath.PathElement{Value: &v}
	case e.keys != nil:
		l := make(smdvalue.FieldList, len(e.keys))
		for i, k := range e.keys {
			l[i].Name = k.name
			if k.isNo {
				l[i].Value = smdvalue.NewValueInterface(k.num)
			} else {
				l[i].Value = smdvalue.NewValueInterface(k.str)
			}
		}
		return fieldpath.PathElement{Key: &l}
	}
	name := e.field
	return fieldpath.PathElement{FieldName: &name}
}

type walker struct {
	sink sink
	bad  bool // something that a plan cannot do
}

// value looks behind pointers.
func (n *node) value(v reflect.Value) val {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return val{is: null}
		}
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Map, reflect.Slice:
		if v.IsNil() {
			return val{is: null}
		}
	case reflect.Struct:
		if n.shape == leaf && n.zero(v) {
			return val{is: null}
		}
	}
	return val{v, there}
}

func (f *fieldNode) get(s val) val {
	if s.is != there {
		return val{}
	}
	v := s.v
	for _, i := range f.index {
		v = v.Field(i)
	}
	if f.omit(v) {
		return val{}
	}
	return f.node.value(v)
}

// empty reports whether a value has no children.
func (n *node) empty(x val) bool {
	if x.is != there {
		return true
	}
	if n.shape == structure {
		for i := range n.fields {
			if n.fields[i].get(x).is != absent {
				return false
			}
		}
		return true
	}
	return x.v.Len() == 0
}

// compare walks two values, at least one of which is not absent.
func (w *walker) compare(n *node, l, r val) {
	if n.shape == leaf || n.empty(l) && n.empty(r) {
		w.leaf(n, l, r)
		return
	}
	if l.is == absent {
		w.sink.hit(added, true)
	} else if r.is == absent {
		w.sink.hit(removed, true)
	}
	switch n.shape {
	case structure:
		for i := range n.fields {
			f := &n.fields[i]
			a, b := f.get(l), f.get(r)
			if a.is == absent && b.is == absent {
				continue
			}
			w.sink.enter(&element{field: f.name})
			w.compare(f.node, a, b)
			w.sink.leave()
		}
	case mapping:
		w.mapping(n, l, r)
	default:
		w.list(n, l, r)
	}
}

func (w *walker) leaf(n *node, l, r val) {
	switch {
	case l.is == absent:
		w.sink.hit(added, false)
	case r.is == absent:
		w.sink.hit(removed, false)
	case l.is != r.is:
		w.sink.hit(modified, false)
	case l.is == there && n.shape == leaf && !n.equal(l.v, r.v):
		w.sink.hit(modified, false)
	}
}

func (w *walker) mapping(n *node, l, r val) {
	var names []string
	for _, x := range [2]val{l, r} {
		if x.is == there {
			for it := x.v.MapRange(); it.Next(); {
				names = append(names, it.Key().String())
			}
		}
	}
	sort.Strings(names)
	for i, name := range names {
		if i > 0 && names[i-1] == name {
			continue
		}
		w.sink.enter(&element{field: name})
		w.compare(n.elem, n.entry(l, name), n.entry(r, name))
		w.sink.leave()
	}
}

func (n *node) entry(x val, name string) val {
	if x.is != there {
		return val{}
	}
	k := reflect.ValueOf(name)
	if t := x.v.Type().Key(); t != k.Type() {
		k = k.Convert(t)
	}
	v := x.v.MapIndex(k)
	if !v.IsValid() {
		return val{}
	}
	return n.elem.value(v)
}

type item struct {
	e    element
	l, r val
}

func (w *walker) list(n *node, l, r val) {
	var items []item
	for side, x := range [2]val{l, r} {
		if x.is != there {
			continue
		}
		own := len(items)
		for i := range x.v.Len() {
			v := x.v.Index(i)
			var it item
			if n.shape == setList {
				it.e = element{set: true, value: v.String()}
			} else if !n.keysOf(v, &it.e) {
				w.bad = true
				return
			}
			at := -1
			for j := range items {
				if items[j].e.compare(&it.e) == 0 {
					at = j
				}
			}
			switch {
			case at < 0:
				items = append(items, it)
				at = len(items) - 1
			case at >= own || side == 1 && items[at].r.is != absent: // twice
				w.bad = true
				return
			}
			if side == 0 {
				items[at].l = n.elem.value(v)
			} else {
				items[at].r = n.elem.value(v)
			}
		}
	}
	sort.Slice(items, func(i, j int) bool { return items[i].e.compare(&items[j].e) < 0 })
	for i := range items {
		w.sink.enter(&items[i].e)
		w.compare(n.elem, items[i].l, items[i].r)
		w.sink.leave()
	}
}

// keysOf reads the keys of an item; defaults stand for absent ones.
func (n *node) keysOf(v reflect.Value, e *element) bool {
	e.keys = make([]keyValue, 0, len(n.keys))
	for i := range n.keys {
		k := &n.keys[i]
		f := v
		for _, x := range k.index {
			f = f.Field(x)
		}
		kv := keyValue{name: k.name}
		if k.omit(f) {
			switch d := k.def.(type) {
			case nil:
				continue
			case string:
				kv.str = d
			case int:
				kv.num, kv.isNo = int64(d), true
			case int64:
				kv.num, kv.isNo = d, true
			case float64:
				kv.num, kv.isNo = int64(d), true
			default:
				return false
			}
		} else if f.Kind() == reflect.String {
			kv.str = f.String()
		} else {
			kv.num, kv.isNo = f.Int(), true
		}
		e.keys = append(e.keys, kv)
	}
	return len(e.keys) > 0
}

// Created returns the FieldsV1 of everything in obj that an empty object doesn't have; nil if that is nothing. ok is false if the plan cannot tell.
func (p *Plan) Created(obj any) (fields []byte, ok bool) {
	v := reflect.ValueOf(obj).Elem()
	s := &encoder{buf: make([]byte, 0, 1024)}
	w := walker{sink: s}
	w.compare(p.root, val{reflect.Zero(v.Type()), there}, val{v, there})
	if w.bad || s.bad {
		return nil, false
	}
	if len(s.buf) == 0 {
		return nil, true
	}
	return append(s.buf, '}'), true
}

// Difference is what an update changes.
type Difference struct {
	// Set are the fields added or modified, Removed those that are gone; nil if there are none.
	Set, Removed *fieldpath.Set
}

// Compare returns how new differs from old; ok is false if the plan cannot tell.
func (p *Plan) Compare(old, new any) (d Difference, ok bool) {
	s := &collector{}
	w := walker{sink: s}
	w.compare(p.root, val{reflect.ValueOf(old).Elem(), there}, val{reflect.ValueOf(new).Elem(), there})
	return s.d, !w.bad
}

// collector makes sets.
type collector struct {
	path []*element
	d    Difference
}

func (c *collector) enter(e *element) { c.path = append(c.path, e) }
func (c *collector) leave()           { c.path = c.path[:len(c.path)-1] }

func (c *collector) hit(ch change, _ bool) {
	to := &c.d.Set
	if ch == removed {
		to = &c.d.Removed
	}
	if *to == nil {
		*to = fieldpath.NewSet()
	}
	path := make(fieldpath.Path, len(c.path))
	for i, e := range c.path {
		path[i] = e.pathElement()
	}
	(*to).Insert(path)
}

// encoder writes FieldsV1 as the walk goes.
type encoder struct {
	buf    []byte
	path   []*element
	opened int // elements of path whose object has been begun
	bad    bool
}

func (s *encoder) enter(e *element) { s.path = append(s.path, e) }

func (s *encoder) leave() {
	s.path = s.path[:len(s.path)-1]
	if s.opened > len(s.path) {
		s.opened--
		s.buf = append(s.buf, '}')
	}
}

func (s *encoder) hit(c change, inner bool) {
	if c == removed {
		s.bad = true
		return
	}
	if len(s.buf) == 0 {
		s.buf = append(s.buf, '{')
	}
	for ; s.opened < len(s.path); s.opened++ {
		if s.buf[len(s.buf)-1] != '{' {
			s.buf = append(s.buf, ',')
		}
		s.name(s.path[s.opened])
		s.buf = append(s.buf, ':', '{')
	}
	if inner && len(s.path) > 0 {
		s.buf = append(s.buf, `".":{}`...)
	}
}

func (s *encoder) name(e *element) {
	switch {
	case e.set:
		s.buf = append(s.buf, `"v:\"`...)
		s.text(e.value)
		s.buf = append(s.buf, `\""`...)
	case e.keys != nil:
		s.buf = append(s.buf, `"k:{`...)
		for i, k := range e.keys {
			if i > 0 {
				s.buf = append(s.buf, ',')
			}
			s.buf = append(s.buf, `\"`...)
			s.text(k.name)
			s.buf = append(s.buf, `\":`...)
			if k.isNo {
				s.buf = strconv.AppendInt(s.buf, k.num, 10)
			} else {
				s.buf = append(s.buf, `\"`...)
				s.text(k.str)
				s.buf = append(s.buf, `\"`...)
			}
		}
		s.buf = append(s.buf, `}"`...)
	default:
		s.buf = append(s.buf, `"f:`...)
		s.text(e.field)
		s.buf = append(s.buf, '"')
	}
}

// text writes what needs no escapes, and refuses the rest.
func (s *encoder) text(t string) {
	for i := 0; i < len(t); i++ {
		switch c := t[i]; {
		case c < 0x20, c > 0x7e, c == '"', c == '\\', c == '<', c == '>', c == '&':
			s.bad = true
		}
	}
	s.buf = append(s.buf, t...)
}
