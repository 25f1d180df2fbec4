//go:build generate

package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/keelson/keelson/tools/openapi/definitions"
)

// extensionGVK lists the kinds that a definition is the schema of.
const extensionGVK = "x-kubernetes-group-version-kind"

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir string) error {
	kinds, err := kindsByModel()
	if err != nil {
		return err
	}
	for _, v := range []struct {
		file, prefix string
		convert      func(any) any
	}{
		{"definitions.v2.json.gz", "#/definitions/", v2},
		{"definitions.v3.json.gz", "#/components/schemas/", v3},
	} {
		out := map[string]any{}
		ref := func(name string) spec.Ref {
			return spec.MustCreateRef(v.prefix + common.EscapeJsonPointer(modelName(name)))
		}
		for name, def := range definitions.GetOpenAPIDefinitions(ref) {
			schema := def.Schema
			if s, ok := schema.Extensions[common.ExtensionV2Schema].(spec.Schema); ok && strings.Contains(v.file, "v2") {
				schema = s
			}
			delete(schema.Extensions, common.ExtensionV2Schema)
			raw, err := json.Marshal(schema)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			var m map[string]any
			if err := json.Unmarshal(raw, &m); err != nil {
				return err
			}
			m = v.convert(m).(map[string]any)
			if gvks := kinds[modelName(name)]; len(gvks) > 0 {
				m[extensionGVK] = gvks
			}
			out[modelName(name)] = m
		}
		if err := write(filepath.Join(dir, v.file), out); err != nil {
			return err
		}
	}
	return nil
}

func write(file string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if _, err := w.Write(raw); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

// modelName turns a Go type's path into the name used in the specification, for the types that have no
// model name of their own.
func modelName(name string) string {
	if !strings.Contains(name, "/") {
		return name
	}
	host, rest, _ := strings.Cut(name, "/")
	parts := strings.Split(host, ".")
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return strings.Join(parts, ".") + "." + strings.ReplaceAll(rest, "/", ".")
}

type gvk struct {
	Group   string `json:"group"`
	Kind    string `json:"kind"`
	Version string `json:"version"`
}

func kindsByModel() (map[string][]gvk, error) {
	if err := apiextensionsv1.AddToScheme(scheme.Scheme); err != nil {
		return nil, err
	}
	out := map[string][]gvk{}
	for k := range scheme.Scheme.AllKnownTypes() {
		if k.Version == runtime.APIVersionInternal {
			continue
		}
		obj, err := scheme.Scheme.New(k)
		if err != nil {
			return nil, err
		}
		m, ok := obj.(interface{ OpenAPIModelName() string })
		if !ok {
			continue
		}
		switch k.Kind {
		case "ListOptions", "CreateOptions", "UpdateOptions", "PatchOptions", "GetOptions":
			continue
		}
		out[m.OpenAPIModelName()] = append(out[m.OpenAPIModelName()], gvk{k.Group, k.Kind, k.Version})
	}
	for _, l := range out {
		sort.Slice(l, func(i, j int) bool {
			a, b := l[i], l[j]
			if a.Group != b.Group {
				return a.Group < b.Group
			}
			if a.Version != b.Version {
				return a.Version < b.Version
			}
			return a.Kind < b.Kind
		})
	}
	return out, nil
}

// v2 drops what Swagger 2.0 has no place for: defaults, and unions of types.
func v2(in any) any {
	switch x := in.(type) {
	case map[string]any:
		for k, e := range x {
			if k == "properties" {
				for _, p := range e.(map[string]any) {
					v2(p)
				}
				continue
			}
			if k == "default" || k == "oneOf" || k == "anyOf" {
				delete(x, k)
				continue
			}
			x[k] = v2(e)
		}
	case []any:
		for i := range x {
			x[i] = v2(x[i])
		}
	}
	return in
}

// v3 wraps references that have siblings into allOf, as OpenAPI 3.0 ignores what stands beside a $ref.
func v3(in any) any {
	switch x := in.(type) {
	case map[string]any:
		for k, e := range x {
			if k == "properties" {
				for n, p := range e.(map[string]any) {
					e.(map[string]any)[n] = v3(p)
				}
				continue
			}
			if k != "default" && k != "enum" {
				x[k] = v3(e)
			}
		}
		if ref, ok := x["$ref"]; ok && len(x) > 1 {
			delete(x, "$ref")
			x["allOf"] = []any{map[string]any{"$ref": ref}}
		}
	case []any:
		for i := range x {
			x[i] = v3(x[i])
		}
	}
	return in
}
