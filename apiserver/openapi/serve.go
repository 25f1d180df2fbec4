package openapi

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// Media types of the documents in protobuf.
const (
	ProtobufV2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	ProtobufV3 = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
)

// ServeHTTP answers GET and HEAD of /openapi/v2, /openapi/v3 and /openapi/v3/....
func (s *Spec) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	switch p := strings.TrimSuffix(r.URL.Path, "/"); {
	case p == "/openapi/v2":
		s.serve(w, r, &s.v2, s.etags[""], ProtobufV2, s.jsonV2, s.protoV2)
	case p == "/openapi/v3":
		s.serveIndex(w)
	default:
		gv := strings.TrimPrefix(p, "/openapi/v3/")
		doc, ok := s.v3[gv]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if h := r.URL.Query().Get("hash"); h != "" {
			if h != s.etags[gv] {
				u := *r.URL
				q := u.Query()
				q.Set("hash", s.etags[gv])
				u.RawQuery = q.Encode()
				http.Redirect(w, r, u.String(), http.StatusMovedPermanently)
				return
			}
			// The address names the content, so it never goes stale.
			w.Header().Set("Cache-Control", "public, immutable")
			w.Header().Set("Expires", "Fri, 31 Dec 2100 23:59:59 GMT")
		}
		s.serve(w, r, doc, s.etags[gv], ProtobufV3, func() ([]byte, error) { return s.jsonV3(gv) }, s.protoV3)
	}
}

func (s *Spec) serveIndex(w http.ResponseWriter) {
	type entry struct {
		ServerRelativeURL string `json:"serverRelativeURL"`
	}
	paths := map[string]entry{}
	for gv := range s.v3 {
		paths[gv] = entry{"/openapi/v3/" + gv + "?hash=" + s.etags[gv]}
	}
	b, err := json.Marshal(map[string]any{"paths": paths})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b)
}

func (s *Spec) serve(w http.ResponseWriter, r *http.Request, d *document, etag, protobuf string,
	makeJSON func() ([]byte, error), makeProto func([]byte) ([]byte, error),
) {
	mediaType, ok := negotiate(r.Header.Values("Accept"), protobuf)
	if !ok {
		http.Error(w, "only application/json and "+protobuf+" are served", http.StatusNotAcceptable)
		return
	}
	h := w.Header()
	h.Set("Vary", "Accept, Accept-Encoding")
	// One entity tag a representation.
	tag := strconv.Quote(etag)
	if mediaType == protobuf {
		tag = strconv.Quote(etag + "-PB")
	}
	h.Set("Etag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	gz, err := d.json.get(makeJSON)
	if err == nil && mediaType == protobuf {
		gz, err = d.proto.get(func() ([]byte, error) {
			raw, err := decompress(gz)
			if err != nil {
				return nil, err
			}
			return makeProto(raw)
		})
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	body := gz
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
	} else if body, err = decompress(gz); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		_, _ = w.Write(body)
	}
}

// negotiate picks the first acceptable of JSON and the given protobuf type. Clients also ask for the latter by its
// older name, with an @ that is not valid in media types.
func negotiate(accept []string, protobuf string) (string, bool) {
	asked := false
	for _, line := range accept {
		for _, a := range strings.Split(line, ",") {
			mt, params, _ := strings.Cut(strings.TrimSpace(a), ";")
			if mt == "" {
				continue
			}
			asked = true
			if strings.ReplaceAll(params, " ", "") == "q=0" {
				continue
			}
			switch strings.Replace(strings.TrimSpace(mt), "@v1.0", ".v1.0", 1) {
			case protobuf:
				return protobuf, true
			case "application/json", "application/*", "*/*":
				return "application/json", true
			}
		}
	}
	return "application/json", !asked
}
