package objectcache

import (
	"fmt"
	"reflect"
	"strconv"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Media types of Object.Encoded.
const (
	JSON     = runtime.ContentTypeJSON
	Protobuf = runtime.ContentTypeProtobuf
)

// Format encodes objects for one served version. Formats are compared by identity.
type Format interface {
	// View returns the object in the format's version; obj itself if it is in it.
	View(obj runtime.Object) (runtime.Object, error)
	// JSON returns the document, and how many of its first bytes, before which a '{' is put instead, make it
	// an item of a list: the kind and apiVersion that items don't repeat. 0 if items are the whole document.
	JSON(view runtime.Object) (doc []byte, typeMeta int, err error)
	// Protobuf returns the message without envelope.
	Protobuf(view runtime.Object) ([]byte, error)
	// Envelope returns the prefix of the envelope around an object's protobuf message: magic number, type.
	Envelope(obj runtime.Object) []byte
	// Stored reports whether stored messages are in this format's version.
	Stored() bool
}

// Object is one immutable state of one object. Nothing it returns may be modified.
type Object struct {
	key   string // behind the resource's prefix
	rev   int64
	obj   runtime.Object
	value []byte // as stored; nil if not stored
	raw   []byte // protobuf message inside value; nil if value is JSON
	enc   atomic.Pointer[encoding]
}

// encoding is a node of a lock-free list of everything made from an object.
type encoding struct {
	key  any // Format, or what Derived was called with
	kind encKind
	data []byte
	n    int
	any  any
	next *encoding
}

type encKind uint8

const (
	encJSON encKind = iota
	encProto
	encView
	encDerived
)

// Transient returns an Object for an answer that is not in the store.
func Transient(obj runtime.Object) *Object { return &Object{obj: obj} }

// Stored returns the Object of a value as it was stored at a revision.
func Stored(rev int64, value []byte, c Codec) (*Object, error) {
	obj, err := c.Decode(value)
	if err != nil {
		return nil, err
	}
	return newObject("", obj, value, rev), nil
}

// Runtime returns the decoded object in the hub version.
func (o *Object) Runtime() runtime.Object { return o.obj }

// Object returns the decoded object in the hub version; nil if it has no metadata (a Status).
func (o *Object) Object() client.Object {
	c, _ := o.obj.(client.Object)
	return c
}

// Revision is the store revision of this state, 0 if it was not committed.
func (o *Object) Revision() int64 { return o.rev }

// ResourceVersion is Revision as the API writes it.
func (o *Object) ResourceVersion() string { return strconv.FormatInt(o.rev, 10) }

// Key is the object's key behind its resource's prefix: namespace/name or name.
func (o *Object) Key() string { return o.key }

// Value is the object as stored, nil if it was not.
func (o *Object) Value() []byte { return o.value }

// lookup returns what was made before.
func (o *Object) lookup(key any, kind encKind) *encoding {
	for e := o.enc.Load(); e != nil; e = e.next {
		if e.kind == kind && e.key == key {
			return e
		}
	}
	return nil
}

// keep adds e unless somebody else was faster, and returns what is kept.
func (o *Object) keep(e *encoding) *encoding {
	for {
		head := o.enc.Load()
		for x := head; x != nil; x = x.next {
			if x.kind == e.kind && x.key == e.key {
				return x
			}
		}
		e.next = head
		if o.enc.CompareAndSwap(head, e) {
			return e
		}
	}
}

// Derived returns make's result for key (a comparable value), made once and kept with the object.
func (o *Object) Derived(key any, make func() any) any {
	if e := o.lookup(key, encDerived); e != nil {
		return e.any
	}
	return o.keep(&encoding{key: key, kind: encDerived, any: make()}).any
}

// View returns the object in the format's version.
func (o *Object) View(f Format) (runtime.Object, error) {
	if e := o.lookup(f, encView); e != nil {
		return e.any.(runtime.Object), nil
	}
	v, err := f.View(o.obj)
	if err != nil || v == o.obj {
		return v, err
	}
	return o.keep(&encoding{key: f, kind: encView, any: v}).any.(runtime.Object), nil
}

// Encoded returns the object as the body of an answer: JSON without a newline, or protobuf with envelope. JSON is
// made once; do not modify the result.
func (o *Object) Encoded(f Format, mediaType string) ([]byte, error) {
	if mediaType == JSON {
		e, err := o.json(f)
		if err != nil {
			return nil, err
		}
		return e.data, nil
	}
	return o.Append(nil, f, mediaType)
}

// Append appends what Encoded returns to dst.
func (o *Object) Append(dst []byte, f Format, mediaType string) ([]byte, error) {
	switch mediaType {
	case JSON:
		e, err := o.json(f)
		if err != nil {
			return nil, err
		}
		return append(dst, e.data...), nil
	case Protobuf:
		dst = append(dst, f.Envelope(o.obj)...)
		return o.appendMessage(dst, 0x12, f, true)
	}
	return nil, fmt.Errorf("objectcache: no encoding for %q", mediaType)
}

// AppendItem appends the object as one item of a list: JSON without a comma and without kind and
// apiVersion, or field 2 of a protobuf list message, tag and length included.
func (o *Object) AppendItem(dst []byte, f Format, mediaType string) ([]byte, error) {
	switch mediaType {
	case JSON:
		e, err := o.json(f)
		if err != nil {
			return nil, err
		}
		if e.n > 0 {
			dst = append(dst, '{')
		}
		return append(dst, e.data[e.n:]...), nil
	case Protobuf:
		return o.appendMessage(dst, 0x12, f, false)
	}
	return nil, fmt.Errorf("objectcache: no encoding for %q", mediaType)
}

// Size estimates the bytes that Append or AppendItem add.
func (o *Object) Size() int {
	if e := o.enc.Load(); e != nil && e.kind == encJSON {
		return len(e.data) + 16
	}
	return len(o.value) + 32
}

func (o *Object) json(f Format) (*encoding, error) {
	if e := o.lookup(f, encJSON); e != nil {
		return e, nil
	}
	v, err := o.View(f)
	if err != nil {
		return nil, err
	}
	doc, n, err := f.JSON(v)
	if err != nil {
		return nil, err
	}
	return o.keep(&encoding{key: f, kind: encJSON, data: doc, n: n}), nil
}

// appendMessage appends tag, length and message. With trailer it adds the empty content encoding and type
// that a runtime.Unknown ends with.
func (o *Object) appendMessage(dst []byte, tag byte, f Format, trailer bool) ([]byte, error) {
	dst = append(dst, tag)
	if o.raw != nil && f.Stored() {
		var ok bool
		if dst, ok = appendWithVersion(dst, o.raw, o.rev); !ok {
			return nil, fmt.Errorf("objectcache: malformed stored object %s", o.key)
		}
	} else {
		e := o.lookup(f, encProto)
		if e == nil {
			v, err := o.View(f)
			if err != nil {
				return nil, err
			}
			data, err := f.Protobuf(v)
			if err != nil {
				return nil, err
			}
			e = o.keep(&encoding{key: f, kind: encProto, data: data})
		}
		dst = appendUvarint(dst, uint64(len(e.data)))
		dst = append(dst, e.data...)
	}
	if trailer {
		dst = append(dst, 0x1a, 0x00, 0x22, 0x00)
	}
	return dst, nil
}

// withRevision returns a copy of an object, sharing all but its resourceVersion.
func withRevision(obj runtime.Object, rev int64) runtime.Object {
	rv := strconv.FormatInt(rev, 10)
	if u, ok := obj.(*unstructured.Unstructured); ok {
		top := make(map[string]any, len(u.Object))
		for k, v := range u.Object {
			top[k] = v
		}
		if m, ok := top["metadata"].(map[string]any); ok {
			md := make(map[string]any, len(m)+1)
			for k, v := range m {
				md[k] = v
			}
			top["metadata"] = md
		}
		out := &unstructured.Unstructured{Object: top}
		out.SetResourceVersion(rv)
		return out
	}
	p := reflect.New(reflect.TypeOf(obj).Elem())
	p.Elem().Set(reflect.ValueOf(obj).Elem())
	out := p.Interface().(runtime.Object)
	if m, ok := out.(metav1.Object); ok {
		m.SetResourceVersion(rv)
	}
	return out
}

// ShallowCopy returns a copy of a typed object that shares everything behind pointers, slices and maps.
func ShallowCopy(obj runtime.Object) runtime.Object {
	p := reflect.New(reflect.TypeOf(obj).Elem())
	p.Elem().Set(reflect.ValueOf(obj).Elem())
	return p.Interface().(runtime.Object)
}
