package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// No path, method, query or header makes the handler panic or answer with a 500.
func FuzzRequest(f *testing.F) {
	s := serve(f, nil)
	for _, seed := range []struct{ method, path, query, accept, contentType, body string }{
		{"GET", leasesPath, "watch=1&timeoutSeconds=1", "application/json;as=Table;g=meta.k8s.io;v=v1", "", ""},
		{"GET", "/apis/coordination.k8s.io/v1/watch/namespaces/ns/leases/x", "timeoutSeconds=1", "*/*;q=0.1,text/plain", "", ""},
		{"POST", leasesPath, "dryRun=All&fieldValidation=Strict", "", "application/yaml", "metadata: {name: x}"},
		{"PATCH", leasesPath + "/x", "fieldManager=f&force=true", "", "application/apply-patch+yaml", "apiVersion: coordination.k8s.io/v1\nkind: Lease"},
		{"PUT", "/apis/apps/v1/namespaces/ns/deployments/x/scale", "", "", "application/json", `{"spec":{"replicas":1}}`},
		{"DELETE", leasesPath, "labelSelector=a in (b)&propagationPolicy=Orphan", "", "", `{"kind":"DeleteOptions"}`},
		{"GET", "/apis//v1/..//%2e%2e/", "limit=-1&continue=x", "", "", ""},
		{"GET", "/readyz/../x", "exclude=&verbose", "", "", ""},
		{"GET", "/api/v1/namespaces/a/finalize/b", "pretty", "", "", ""},
	} {
		f.Add(seed.method, seed.path, seed.query, seed.accept, seed.contentType, seed.body)
	}
	f.Fuzz(func(t *testing.T, method, path, query, accept, contentType, body string) {
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(method, " \t\r\n/") || method == "" {
			return
		}
		r := httptest.NewRequest("GET", "/", strings.NewReader(body))
		r.Method = method
		r.URL = &url.URL{Path: path, RawQuery: query}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond) // for watches
		defer cancel()
		r = r.WithContext(ctx)
		r.Header.Set("Authorization", "Bearer admin")
		r.Header.Set("Accept", accept)
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		if w.Code >= http.StatusInternalServerError && ctx.Err() == nil {
			t.Errorf("%s %s?%s: %d %s", method, path, query, w.Code, w.Body)
		}
	})
}

func FuzzParsePath(f *testing.F) {
	for _, p := range []string{leasesPath, "/api/v1/namespaces/a/pods/b/proxy/c/d", "/api/v1/watch/x", "/apis/a/b", "/api//", "/api/v1/nodes/n/proxy/"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, path string) {
		p, ok := parsePath(path)
		if !ok {
			return
		}
		for _, s := range []string{p.resource, p.name, p.namespace, p.gv.Group, p.gv.Version} {
			if strings.Contains(s, "/") {
				t.Errorf("%q has a part with a slash: %+v", path, p)
			}
		}
		if p.name != "" && p.resource == "" || p.subresource != "" && p.name == "" {
			t.Errorf("%q is %+v", path, p)
		}
	})
}
