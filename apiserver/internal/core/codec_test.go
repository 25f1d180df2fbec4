package core

import (
	"bytes"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/keelson/keelson/apiserver/kind"
)

func TestStoredVersion(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	gvk := corev1.SchemeGroupVersion.WithKind("ConfigMap")
	plain := newCodec(&kind.Kind{GVK: gvk}, scheme, nil)
	marked := newCodec(&kind.Kind{GVK: gvk, StoredVersion: "v0"}, scheme, nil)
	write := func(c *codec) []byte {
		value, err := c.encode(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}})
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	if mark := envelopeOf(schema.GroupVersionKind{Version: "v0", Kind: "ConfigMap"}); !bytes.HasPrefix(write(marked), mark) {
		t.Errorf("not marked as v0: %q", write(marked))
	}
	for name, value := range map[string][]byte{"v0": write(marked), "v1": write(plain), "JSON": []byte(`{"apiVersion":"v0","kind":"ConfigMap","metadata":{"name":"c"}}`)} {
		obj, err := marked.Decode(value)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c := obj.(*corev1.ConfigMap); c.Name != "c" || c.GroupVersionKind() != gvk {
			t.Errorf("%s is read as %s %q", name, c.GroupVersionKind(), c.Name)
		}
	}
	if _, err := plain.Decode(write(marked)); err == nil {
		t.Error("a version that is not declared was read")
	}
}
