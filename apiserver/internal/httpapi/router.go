package httpapi

import (
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// resourcePath is a parsed path below /api or /apis.
type resourcePath struct {
	gv schema.GroupVersion
	// resource is empty for the discovery document of gv.
	resource, subresource, namespace, name string
	// rest is what follows a subresource, with its leading slash: of proxy.
	rest string
	// watch is set for the old form /api/v1/watch/....
	watch bool
}

// parsePath splits a path; ok is false for one that no resource can have.
func parsePath(path string) (p resourcePath, ok bool) {
	rest, isCore := strings.CutPrefix(path, "/api/")
	if !isCore {
		if rest, ok = strings.CutPrefix(path, "/apis/"); !ok {
			return p, false
		}
		if p.gv.Group, rest, ok = strings.Cut(rest, "/"); !ok || p.gv.Group == "" {
			return p, false
		}
	}
	p.gv.Version, rest, _ = strings.Cut(rest, "/")
	if p.gv.Version == "" {
		return p, false
	}
	var seg string
	next := func() string {
		seg, rest, _ = strings.Cut(rest, "/")
		return seg
	}
	if rest == "" {
		return p, true
	}
	first := next()
	if first == "watch" && rest != "" {
		p.watch = true
		first = next()
	}
	if first == "namespaces" && rest != "" {
		name := next()
		switch {
		case name == "":
			return p, false
		case rest == "" || rest == "status" || rest == "finalize":
			p.resource, p.name, p.namespace, p.subresource = first, name, name, rest
			return p, true
		}
		p.namespace = name
		first = next()
	}
	if p.resource = first; first == "" {
		return p, false
	}
	if rest == "" {
		return p, true
	}
	if p.name = next(); p.name == "" {
		return p, false
	}
	if rest == "" {
		return p, true
	}
	slash := len(rest) != len(strings.TrimSuffix(rest, "/"))
	p.subresource = next()
	if rest != "" || slash {
		p.rest = "/" + rest
	}
	if p.subresource == "proxy" {
		return p, true
	}
	return p, rest == ""
}

// verbOf is the verb that authorization and metrics know a resource request by.
func verbOf(method string, named, watch bool) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		switch {
		case watch:
			return "watch"
		case named:
			return "get"
		}
		return "list"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		if named {
			return "delete"
		}
		return "deletecollection"
	}
	return strings.ToLower(method)
}
