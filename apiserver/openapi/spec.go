package openapi

import (
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	//go:embed definitions.v2.json.gz
	embeddedV2 []byte
	//go:embed definitions.v3.json.gz
	embeddedV3 []byte
)

// Resource is one served resource, or subresource, of a group-version.
type Resource struct {
	schema.GroupVersionResource
	Subresource string
	Namespaced  bool
	// GVK of what is read and written.
	GVK schema.GroupVersionKind
	// Verbs as in discovery.
	Verbs []string
	// Connect marks subresources that stream (exec, log, proxy): they have no schema.
	Connect bool
	// Schema, if not nil, is the OpenAPI v3 schema of a GVK that is not one of Kubernetes' own.
	Schema json.RawMessage
}

// Spec serves the documents; it is an http.Handler for /openapi/v2 and /openapi/v3. It is immutable.
type Spec struct {
	version string
	groups  map[string][]Resource // by path below /openapi/v3
	etags   map[string]string
	v2      document
	v3      map[string]*document
}

// document is made on first use and kept compressed.
type document struct {
	json, proto blob
}

type blob struct {
	once sync.Once
	gz   []byte
	err  error
}

func (b *blob) get(make func() ([]byte, error)) ([]byte, error) {
	b.once.Do(func() {
		var raw []byte
		if raw, b.err = make(); b.err == nil {
			b.gz = compress(raw)
		}
	})
	return b.gz, b.err
}

func compress(raw []byte) []byte {
	var buf bytes.Buffer
	w, _ := gzip.NewWriterLevel(&buf, gzip.BestSpeed) // the level is valid
	_, _ = w.Write(raw)                               // a Buffer does not fail
	w.Close()
	return buf.Bytes()
}

func decompress(gz []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(gz))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// New returns the documents of a server of that version (v1.37.2) and these resources. Nothing is made yet.
func New(version string, resources []Resource) (*Spec, error) {
	s := &Spec{version: version, groups: map[string][]Resource{}, etags: map[string]string{}, v3: map[string]*document{}}
	for _, r := range resources {
		if r.Resource == "" || r.Version == "" || r.GVK.Kind == "" && !r.Connect {
			return nil, fmt.Errorf("openapi: resource %+v: expected Version, Resource and GVK.Kind", r)
		}
		p := groupVersionPath(r.GroupVersion())
		s.groups[p] = append(s.groups[p], r)
	}
	// The documents are functions of the embedded schemas, the version and the resources: so are their hashes.
	all, embedded := sha512.New(), sha512.Sum512(append(append([]byte(nil), embeddedV2...), embeddedV3...))
	for _, p := range s.paths() {
		s.v3[p] = &document{}
		h := sha512.New()
		_, _ = h.Write(embedded[:])
		if err := json.NewEncoder(h).Encode(struct {
			Version   string
			Resources []Resource
		}{version, s.groups[p]}); err != nil {
			return nil, fmt.Errorf("openapi: %w", err)
		}
		sum := h.Sum(nil)
		_, _ = all.Write(sum)
		s.etags[p] = strings.ToUpper(hex.EncodeToString(sum))
	}
	s.etags[""] = strings.ToUpper(hex.EncodeToString(all.Sum(nil)))
	return s, nil
}

func (s *Spec) paths() []string {
	out := make([]string, 0, len(s.groups))
	for p := range s.groups {
		out = append(out, p)
	}
	sort.Strings(out)
	return out
}

// groupVersionPath is api/v1 or apis/GROUP/VERSION.
func groupVersionPath(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "api/" + gv.Version
	}
	return "apis/" + gv.Group + "/" + gv.Version
}

// schemas are the definitions of one flavour of OpenAPI.
type schemas struct {
	byName map[string]json.RawMessage
	byGVK  map[schema.GroupVersionKind]string
}

func load(embedded []byte, resources []Resource) (*schemas, error) {
	raw, err := decompress(embedded)
	if err != nil {
		return nil, fmt.Errorf("openapi: embedded definitions: %w", err)
	}
	d := &schemas{byGVK: map[schema.GroupVersionKind]string{}}
	if err := json.Unmarshal(raw, &d.byName); err != nil {
		return nil, fmt.Errorf("openapi: embedded definitions: %w", err)
	}
	for name, def := range d.byName {
		if !bytes.Contains(def, []byte(`"x-kubernetes-group-version-kind"`)) {
			continue
		}
		var x struct {
			GVKs []schema.GroupVersionKind `json:"x-kubernetes-group-version-kind"`
		}
		if err := json.Unmarshal(def, &x); err != nil {
			return nil, fmt.Errorf("openapi: definition of %s: %w", name, err)
		}
		for _, k := range x.GVKs {
			if cur, ok := d.byGVK[k]; !ok || name < cur {
				d.byGVK[k] = name
			}
		}
	}
	for _, r := range resources {
		if r.Schema == nil {
			continue
		}
		name := customName(r.GVK)
		d.byName[name], d.byGVK[r.GVK] = r.Schema, name
		list := r.GVK
		list.Kind += "List"
		d.byName[name+"List"], d.byGVK[list] = listSchema(r.GVK, name), name+"List"
	}
	return d, nil
}

// customName is the model name of a kind that has none in Go: the group reversed, version, kind.
func customName(k schema.GroupVersionKind) string {
	parts := strings.Split(k.Group, ".")
	slices.Reverse(parts)
	return strings.Join(append(parts, k.Version, k.Kind), ".")
}

func listSchema(k schema.GroupVersionKind, item string) json.RawMessage {
	ref := func(n string) object { return object{"$ref": "#/components/schemas/" + n} }
	b, _ := json.Marshal(object{ // plain maps and strings
		"description": k.Kind + "List is a list of " + k.Kind, "type": "object", "required": []string{"items"},
		"properties": object{
			"apiVersion": object{"type": "string"}, "kind": object{"type": "string"},
			"items":    object{"type": "array", "items": ref(item)},
			"metadata": ref("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"),
		},
		gvkExtension: []object{gvkValue(k.GroupVersion().WithKind(k.Kind + "List"))},
	})
	return b
}

var refPattern = regexp.MustCompile(`"\$ref":"#/(?:definitions|components/schemas)/([^"]+)"`)

// closure returns the definitions that roots need, themselves included.
func (d *schemas) closure(roots map[string]bool) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	var visit func(name string)
	visit = func(name string) {
		def, ok := d.byName[name]
		if _, done := out[name]; done || !ok {
			return
		}
		out[name] = def
		for _, m := range refPattern.FindAllSubmatch(def, -1) {
			visit(string(m[1]))
		}
	}
	for name := range roots {
		visit(name)
	}
	return out
}
