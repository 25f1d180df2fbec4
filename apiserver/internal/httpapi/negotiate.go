package httpapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/munnerz/goautoneg"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	mediaJSON  = "application/json"
	mediaYAML  = "application/yaml"
	mediaProto = "application/vnd.kubernetes.protobuf"
)

var (
	outputTypes = []string{mediaJSON, mediaYAML, mediaProto}
	patchTypes  = []string{
		"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml",
	}
)

// Names of what an answer can be converted to.
const (
	asTable       = "Table"
	asPartial     = "PartialObjectMetadata"
	asPartialList = "PartialObjectMetadataList"
)

// conversion is a request for something else than the object itself: as=KIND;g=meta.k8s.io;v=VERSION.
type conversion struct {
	kind    string
	version string
}

func (c conversion) groupVersion() string { return metav1.GroupName + "/" + c.version }

// accepted is what the client wants to be sent.
type accepted struct {
	mediaType string
	convert   conversion
	pretty    bool
}

// negotiate picks the first of the client's preferences that can be served. convertible says that the
// endpoint serves tables and metadata.
func negotiate(r *http.Request, convertible bool) (accepted, error) {
	header := r.Header.Get("Accept")
	a := accepted{}
	switch header {
	case "", mediaJSON, "*/*", "application/json, */*":
		a.mediaType = mediaJSON
	case mediaProto, "application/vnd.kubernetes.protobuf,application/json", "application/vnd.kubernetes.protobuf, application/json":
		a.mediaType = mediaProto
	default:
		var ok bool
		if a, ok = negotiateClauses(header, convertible); !ok {
			if !strings.Contains(header, "json") && !strings.Contains(header, "yaml") && !strings.Contains(header, mediaProto) {
				return accepted{}, errUnknownRepresentation(outputTypes)
			}
			return accepted{}, errNotAcceptable(outputTypes)
		}
	}
	if a.mediaType == mediaJSON && !a.pretty {
		a.pretty = wantsPretty(r)
	}
	return a, nil
}

func negotiateClauses(header string, convertible bool) (accepted, bool) {
	for _, c := range goautoneg.ParseAccept(header) {
		if c.Q == 0 {
			continue
		}
		a := accepted{}
		for _, t := range outputTypes {
			typ, sub, _ := strings.Cut(t, "/")
			if (c.Type == typ || c.Type == "*") && (c.SubType == sub || c.SubType == "*") {
				a.mediaType = t
				break
			}
		}
		if a.mediaType != "" && a.parameters(c.Params, convertible) {
			return a, true
		}
	}
	return accepted{}, false
}

// parameters reads those of a media type; false means that this clause can't be served.
func (a *accepted) parameters(params map[string]string, convertible bool) bool {
	var gvk schema.GroupVersionKind
	for k, v := range params {
		switch k {
		case "as":
			gvk.Kind = v
		case "g":
			gvk.Group = v
		case "v":
			gvk.Version = v
		case "stream":
			if v != "" && v != "watch" {
				return false
			}
		case "pretty":
			a.pretty = v == "1"
		}
	}
	if gvk.Empty() {
		return true
	}
	if !convertible || gvk.Group != metav1.GroupName || gvk.Version != "v1" && gvk.Version != "v1beta1" {
		return false
	}
	switch gvk.Kind {
	case asTable:
		if a.mediaType == mediaProto {
			return false
		}
	case asPartial, asPartialList:
	default:
		return false
	}
	a.convert = conversion{gvk.Kind, gvk.Version}
	return true
}

// wantsPretty follows the query, or else indents for browsers and command-line tools.
func wantsPretty(r *http.Request) bool {
	if r.URL.RawQuery != "" && strings.Contains(r.URL.RawQuery, "pretty") {
		if v, ok := r.URL.Query()["pretty"]; ok && len(v) > 0 {
			return v[0] == "1" || v[0] == "true" || v[0] == ""
		}
	}
	ua := r.UserAgent()
	return strings.HasPrefix(ua, "curl") || strings.HasPrefix(ua, "Wget") || strings.HasPrefix(ua, "Mozilla/5.0")
}

// bodyType is the media type of a request's body; none is JSON.
func bodyType(r *http.Request) (string, error) {
	ct := r.Header.Get("Content-Type")
	switch ct {
	case "", mediaJSON:
		return mediaJSON, nil
	case mediaProto:
		return mediaProto, nil
	}
	t, _, _ := strings.Cut(ct, ";")
	t = strings.ToLower(strings.TrimSpace(t))
	if !slices.Contains(outputTypes, t) {
		return "", errUnsupportedMediaType(outputTypes)
	}
	return t, nil
}

func patchType(r *http.Request) (string, error) {
	t, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	t = strings.TrimSpace(t)
	if !slices.Contains(patchTypes, t) {
		return "", errUnsupportedPatch()
	}
	return t, nil
}
