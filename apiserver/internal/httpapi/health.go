package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// otherPaths are those that are neither resources nor discovery. The ones that end in a slash are prefixes.
func (h *Handler) otherPaths() map[string]http.HandlerFunc {
	m := map[string]http.HandlerFunc{
		"/":        h.index,
		"/version": h.version,
	}
	m["/version/"] = h.version
	for _, name := range []string{"healthz", "livez", "readyz"} {
		f := h.health(name)
		m["/"+name], m["/"+name+"/"] = f, f
	}
	m["/openapi/"] = func(w http.ResponseWriter, r *http.Request) {
		if h.opts.OpenAPI == nil {
			h.sendError(w, r, errNotFoundPath())
			return
		}
		h.opts.OpenAPI.ServeHTTP(w, r)
	}
	if h.opts.Metrics != nil {
		m["/metrics"] = promhttp.HandlerFor(h.opts.Metrics, promhttp.HandlerOpts{}).ServeHTTP
	}
	return m
}

func (h *Handler) index(w http.ResponseWriter, r *http.Request) {
	var paths []string
	for p := range h.discovery.docs {
		paths = append(paths, p)
	}
	for p := range h.paths {
		if p != "/" && !strings.HasSuffix(p, "/") {
			paths = append(paths, p)
		}
	}
	for p := range h.opts.Extra {
		paths = append(paths, p)
	}
	if h.opts.OpenAPI != nil {
		paths = append(paths, "/openapi/v2", "/openapi/v3")
	}
	for _, c := range h.opts.Checks {
		paths = append(paths, "/healthz/"+c.Name, "/livez/"+c.Name, "/readyz/"+c.Name)
	}
	sort.Strings(paths)
	body, err := json.Marshal(map[string][]string{"paths": paths})
	if err != nil {
		h.sendError(w, r, err)
		return
	}
	h.writeBody(w, r, http.StatusOK, accepted{mediaType: mediaJSON, pretty: true}, body)
}

func (h *Handler) version(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.sendError(w, r, errMethod())
		return
	}
	body, err := json.Marshal(h.opts.Version)
	if err != nil {
		h.sendError(w, r, err)
		return
	}
	h.writeBody(w, r, http.StatusOK, accepted{mediaType: mediaJSON, pretty: true}, body)
}

// health answers /NAME with all checks, less those excluded, and /NAME/CHECK with one.
func (h *Handler) health(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.sendError(w, r, errMethod())
			return
		}
		header := w.Header()
		header.Set("Content-Type", "text/plain; charset=utf-8")
		header.Set("X-Content-Type-Options", "nosniff")
		checks := slices.DeleteFunc(slices.Clone(h.opts.Checks), func(c Check) bool { return c.ReadyOnly && name == "livez" })
		checks = append([]Check{{Name: "ping", Check: func(*http.Request) error { return nil }}}, checks...)
		if one := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/"+name), "/"); one != "" {
			i := slices.IndexFunc(checks, func(c Check) bool { return c.Name == one })
			if i < 0 {
				http.NotFound(w, r)
				return
			}
			if err := checks[i].Check(r); err != nil {
				h.logger.Info("Health check failed", "check", one, "err", err.Error())
				w.WriteHeader(http.StatusInternalServerError)
				fmt.Fprintf(w, "internal server error: %v\n", err)
				return
			}
			fmt.Fprint(w, "ok")
			return
		}
		h.healthAll(w, r, name, checks)
	}
}

func (h *Handler) healthAll(w http.ResponseWriter, r *http.Request, name string, checks []Check) {
	var out bytes.Buffer
	excluded := map[string]bool{}
	for _, e := range r.URL.Query()["exclude"] {
		excluded[e] = true
	}
	failed := false
	for _, c := range checks {
		if excluded[c.Name] {
			delete(excluded, c.Name)
			fmt.Fprintf(&out, "[+]%s excluded: ok\n", c.Name)
			continue
		}
		if err := c.Check(r); err != nil {
			// The reason may tell of what only an administrator may see; it is in the log.
			fmt.Fprintf(&out, "[-]%s failed: reason withheld\n", c.Name)
			h.logger.Info("Health check failed", "check", c.Name, "err", err.Error())
			failed = true
			continue
		}
		fmt.Fprintf(&out, "[+]%s ok\n", c.Name)
	}
	if len(excluded) > 0 {
		var names []string
		for e := range excluded {
			names = append(names, fmt.Sprintf("%q", e))
		}
		sort.Strings(names)
		fmt.Fprintf(&out, "warn: some health checks cannot be excluded: no matches for %s\n", strings.Join(names, ","))
	}
	if failed {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, "%s%s check failed\n", out.Bytes(), name)
		return
	}
	if _, verbose := r.URL.Query()["verbose"]; !verbose {
		fmt.Fprint(w, "ok")
		return
	}
	fmt.Fprintf(w, "%s%s check passed\n", out.Bytes(), name)
}
