package core

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/internal/objectcache"
	"github.com/keelson/keelson/apiserver/kind"
)

// protoMessage is what the types of k8s.io/api generate.
type protoMessage interface {
	Size() int
	MarshalToSizedBuffer([]byte) (int, error)
	Unmarshal([]byte) error
}

var storedMagic = []byte("k8s\x00")

// envelopeOf is what precedes the message in kube-apiserver's protobuf encoding: magic, and a runtime.Unknown's TypeMeta.
func envelopeOf(gvk schema.GroupVersionKind) []byte {
	apiVersion := gvk.GroupVersion().String()
	var tm []byte
	tm = append(tm, 0x0a)
	tm = binary.AppendUvarint(tm, uint64(len(apiVersion)))
	tm = append(tm, apiVersion...)
	tm = append(tm, 0x12)
	tm = binary.AppendUvarint(tm, uint64(len(gvk.Kind)))
	tm = append(tm, gvk.Kind...)
	out := append([]byte{}, storedMagic...)
	out = append(out, 0x0a)
	out = binary.AppendUvarint(out, uint64(len(tm)))
	return append(out, tm...)
}

// codec converts between hub objects and what is stored: protobuf in kube-apiserver's envelope for built-in
// types, JSON for unstructured ones.
type codec struct {
	kind     *kind.Kind
	scheme   *runtime.Scheme
	stored   schema.GroupVersionKind // differs from the kind's only by the version, not in the encoding
	envelope []byte
	shared   *interner
}

func newCodec(k *kind.Kind, scheme *runtime.Scheme, shared *interner) *codec {
	stored := k.GVK
	if k.StoredVersion != "" {
		stored.Version = k.StoredVersion
	}
	return &codec{kind: k, scheme: scheme, stored: stored, envelope: envelopeOf(stored), shared: shared}
}

// encode returns the stored form of obj, whose resourceVersion and selfLink it clears.
func (c *codec) encode(obj client.Object) ([]byte, error) {
	obj.SetResourceVersion("")
	obj.SetSelfLink("")
	m, ok := obj.(protoMessage)
	if !ok {
		return json.Marshal(obj)
	}
	size := m.Size()
	head := len(c.envelope) + 1
	var num [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(num[:], uint64(size))
	out := make([]byte, head+n+size+4)
	copy(out, c.envelope)
	out[head-1] = 0x12
	copy(out[head:], num[:n])
	if k, err := m.MarshalToSizedBuffer(out[head+n : head+n+size]); err != nil {
		return nil, err
	} else if k != size {
		return nil, fmt.Errorf("core: %s encoded to %d bytes instead of %d", c.kind.GVK, k, size)
	}
	copy(out[head+n+size:], []byte{0x1a, 0, 0x22, 0})
	return out, nil
}

// Decode implements objectcache.Codec.
func (c *codec) Decode(value []byte) (runtime.Object, error) {
	if len(value) >= len(storedMagic) && string(value[:len(storedMagic)]) == string(storedMagic) {
		var u runtime.Unknown
		if err := u.Unmarshal(value[len(storedMagic):]); err != nil {
			return nil, err
		}
		return c.decodeAs(schema.FromAPIVersionAndKind(u.APIVersion, u.Kind), func(obj client.Object) error {
			m, ok := obj.(protoMessage)
			if !ok {
				return fmt.Errorf("core: %T has no protobuf encoding", obj)
			}
			return m.Unmarshal(u.Raw)
		})
	}
	var tm struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := json.Unmarshal(value, &tm); err != nil {
		return nil, err
	}
	return c.decodeAs(schema.FromAPIVersionAndKind(tm.APIVersion, tm.Kind), func(obj client.Object) error {
		return decodeJSON(value, obj)
	})
}

func decodeJSON(data []byte, obj client.Object) error {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return kjson.UnmarshalCaseSensitivePreserveInts(data, &u.Object)
	}
	return kjson.UnmarshalCaseSensitivePreserveInts(data, obj)
}

func (c *codec) decodeAs(gvk schema.GroupVersionKind, fill func(client.Object) error) (runtime.Object, error) {
	if gvk == c.stored {
		gvk = c.kind.GVK
	}
	obj, err := newObject(c.scheme, gvk)
	if err != nil {
		return nil, err
	}
	if err := fill(obj); err != nil {
		return nil, err
	}
	if gvk != c.kind.GVK {
		if obj, err = c.convert(gvk, obj); err != nil {
			return nil, err
		}
	}
	obj.GetObjectKind().SetGroupVersionKind(c.kind.GVK)
	if c.kind.Default != nil {
		c.kind.Default(obj)
	}
	if _, ok := obj.(*unstructured.Unstructured); !ok {
		c.shared.share(obj)
	}
	return obj, nil
}

func (c *codec) convert(gvk schema.GroupVersionKind, obj client.Object) (client.Object, error) {
	for i := range c.kind.Versions {
		if v := &c.kind.Versions[i]; v.GVK == gvk {
			return v.From(obj)
		}
	}
	return nil, fmt.Errorf("core: %s cannot be converted to %s", gvk, c.kind.GVK)
}

func newObject(scheme *runtime.Scheme, gvk schema.GroupVersionKind) (client.Object, error) {
	obj, err := scheme.New(gvk)
	if err != nil {
		return nil, err
	}
	o, ok := obj.(client.Object)
	if !ok {
		return nil, fmt.Errorf("core: %s has no metadata", gvk)
	}
	o.GetObjectKind().SetGroupVersionKind(gvk)
	return o, nil
}

// View implements objectcache.Format: pass a *Resource to Object.Encoded, Append, AppendItem and View.
func (r *Resource) View(obj runtime.Object) (runtime.Object, error) {
	if r.Version == nil || r.Kind == nil || obj.GetObjectKind().GroupVersionKind() != r.Kind.GVK {
		return obj, nil
	}
	o, ok := obj.(client.Object)
	if !ok {
		return obj, nil
	}
	return r.fromHub(o)
}

// JSON implements objectcache.Format.
func (r *Resource) JSON(view runtime.Object) ([]byte, int, error) {
	doc, err := json.Marshal(view)
	if err != nil {
		return nil, 0, err
	}
	if strings.HasPrefix(string(doc[:min(len(doc), len(r.jsonPrefix))]), r.jsonPrefix) {
		return doc, len(r.jsonPrefix), nil
	}
	return doc, 0, nil
}

// Protobuf implements objectcache.Format.
func (r *Resource) Protobuf(view runtime.Object) ([]byte, error) {
	m, ok := view.(protoMessage)
	if !ok {
		return nil, fmt.Errorf("core: %T has no protobuf encoding", view)
	}
	out := make([]byte, m.Size())
	_, err := m.MarshalToSizedBuffer(out)
	return out, err
}

// Envelope implements objectcache.Format.
func (r *Resource) Envelope(obj runtime.Object) []byte {
	if gvk := obj.GetObjectKind().GroupVersionKind(); gvk != r.GVK && (r.Kind == nil || gvk != r.Kind.GVK) {
		return envelopeOf(gvk)
	}
	return r.envelope
}

// Stored implements objectcache.Format.
func (r *Resource) Stored() bool { return r.Version == nil }

var _ objectcache.Format = (*Resource)(nil)
