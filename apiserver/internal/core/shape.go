package core

import (
	"reflect"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
)

// shape knows the top-level fields of a kind's type.
type shape struct {
	status int   // index of the field Status, -1 if there is none
	rest   []int // all others but TypeMeta and ObjectMeta
}

func shapeOf(k *kind.Kind, scheme *runtime.Scheme) *shape {
	s := &shape{status: -1}
	obj, err := scheme.New(k.GVK)
	if err != nil {
		return s
	}
	t := reflect.TypeOf(obj).Elem()
	if t.Kind() != reflect.Struct {
		return s
	}
	for i := range t.NumField() {
		switch t.Field(i).Name {
		case "TypeMeta", "ObjectMeta":
		case "Status":
			s.status = i
		default:
			s.rest = append(s.rest, i)
		}
	}
	return s
}

func asMap(obj client.Object) map[string]any {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return u.Object
	}
	return nil
}

// clearStatus empties the status.
func (s *shape) clearStatus(obj client.Object) {
	if m := asMap(obj); m != nil {
		delete(m, "status")
	} else if s.status >= 0 {
		reflect.ValueOf(obj).Elem().Field(s.status).SetZero()
	}
}

// copyStatus shares from's status with to. Neither may be modified through the other afterwards.
func (s *shape) copyStatus(to, from client.Object) {
	if m := asMap(to); m != nil {
		delete(m, "status")
		if st, ok := asMap(from)["status"]; ok {
			m["status"] = runtime.DeepCopyJSONValue(st)
		}
	} else if s.status >= 0 {
		reflect.ValueOf(to).Elem().Field(s.status).Set(reflect.ValueOf(from.DeepCopyObject()).Elem().Field(s.status))
	}
}

// copyRest makes everything but metadata and status of to that of from.
func (s *shape) copyRest(to, from client.Object) {
	if m := asMap(to); m != nil {
		for k := range m {
			if !isCommonField(k) {
				delete(m, k)
			}
		}
		for k, v := range asMap(from) {
			if !isCommonField(k) {
				m[k] = runtime.DeepCopyJSONValue(v)
			}
		}
		return
	}
	dst, src := reflect.ValueOf(to).Elem(), reflect.ValueOf(from.DeepCopyObject()).Elem()
	for _, i := range s.rest {
		dst.Field(i).Set(src.Field(i))
	}
}

// sameRest reports whether everything but metadata and status is equal.
func (s *shape) sameRest(a, b client.Object) bool {
	if x := asMap(a); x != nil {
		y := asMap(b)
		for k, v := range x {
			if !isCommonField(k) && !equality.Semantic.DeepEqual(v, y[k]) {
				return false
			}
		}
		for k := range y {
			if _, ok := x[k]; !ok && !isCommonField(k) {
				return false
			}
		}
		return true
	}
	x, y := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	for _, i := range s.rest {
		if !equality.Semantic.DeepEqual(x.Field(i).Interface(), y.Field(i).Interface()) {
			return false
		}
	}
	return true
}

func isCommonField(k string) bool {
	switch k {
	case "apiVersion", "kind", "metadata", "status":
		return true
	}
	return false
}
