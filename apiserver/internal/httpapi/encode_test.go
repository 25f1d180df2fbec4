package httpapi

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"
	"sigs.k8s.io/yaml"
)

func (f *fixture) add(t testing.TB, names ...string) {
	t.Helper()
	for _, n := range names {
		resp, body := f.do(t, "POST", leasesPath, fmt.Sprintf(`{"metadata":{"name":%q},"spec":{"holderIdentity":"h"}}`, n))
		if resp.StatusCode != 201 {
			t.Fatal(body)
		}
	}
}

func into[T any](t testing.TB, body string) *T {
	t.Helper()
	out := new(T)
	if err := json.Unmarshal([]byte(body), out); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return out
}

func TestMediaTypes(t *testing.T) {
	f := serve(t, nil)
	f.add(t, "a", "b")
	for path, kind := range map[string]string{leasesPath: "LeaseList", leasesPath + "/a": "Lease"} {
		_, plain := f.do(t, "GET", path, "")
		if !strings.HasPrefix(plain, `{"kind":"`+kind+`","apiVersion":"coordination.k8s.io/v1","metadata":{`) || !strings.HasSuffix(plain, "}\n") || strings.Count(plain, "\n") != 1 {
			t.Errorf("JSON is %q", plain)
		}
		resp, y := f.do(t, "GET", path, "", "Accept", mediaYAML)
		j, err := yaml.YAMLToJSON([]byte(y))
		if err != nil || resp.Header.Get("Content-Type") != mediaYAML {
			t.Errorf("YAML: %v %v", err, resp.Header)
		}
		var a, b any
		json.Unmarshal([]byte(plain), &a)
		json.Unmarshal(j, &b)
		if diff := cmp.Diff(a, b); diff != "" {
			t.Errorf("JSON and YAML differ: %s", diff)
		}
		_, pretty := f.do(t, "GET", path+"?pretty=true", "")
		if !strings.HasPrefix(pretty, "{\n  \"kind\": \""+kind) {
			t.Errorf("pretty JSON is %q", pretty)
		}
		if _, curl := f.do(t, "GET", path, "", "User-Agent", "curl/8"); curl != pretty {
			t.Error("curl does not get pretty JSON")
		}
		resp, pb := f.do(t, "GET", path, "", "Accept", mediaProto)
		if !strings.HasPrefix(pb, "k8s\x00") || resp.Header.Get("Content-Type") != mediaProto {
			t.Errorf("protobuf is %q", pb)
		}
		var u runtime.Unknown
		if err := u.Unmarshal([]byte(pb)[4:]); err != nil || u.Kind != kind {
			t.Errorf("envelope: %v, %v", err, u.TypeMeta)
		}
		if resp, _ := f.do(t, "HEAD", path, ""); resp.StatusCode != 405 {
			t.Errorf("HEAD: %d", resp.StatusCode)
		}
	}
	if _, empty := f.do(t, "GET", "/apis/apps/v1/deployments", ""); !strings.HasSuffix(empty, `,"items":[]}`+"\n") {
		t.Errorf("empty list is %q", empty)
	}
}

func TestTable(t *testing.T) {
	f := serve(t, nil)
	f.add(t, "a", "b")
	const accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
	_, body := f.do(t, "GET", leasesPath, "", "Accept", accept)
	table := into[metav1.Table](t, body)
	if table.Kind != "Table" || table.APIVersion != "meta.k8s.io/v1" || len(table.Rows) != 2 || len(table.ColumnDefinitions) < 2 || table.ColumnDefinitions[0].Name != "Name" ||
		table.Rows[0].Cells[0] != "a" || table.ResourceVersion == "" || len(table.Rows[0].Cells) != len(table.ColumnDefinitions) {
		t.Errorf("table is %s", body)
	}
	partial := into[metav1.PartialObjectMetadata](t, string(table.Rows[1].Object.Raw))
	if partial.Kind != "PartialObjectMetadata" || partial.APIVersion != "meta.k8s.io/v1" || partial.Name != "b" || partial.UID == "" {
		t.Errorf("row has %s", table.Rows[1].Object.Raw)
	}
	_, body = f.do(t, "GET", leasesPath+"?includeObject=Object", "", "Accept", accept)
	if l := into[coordinationv1.Lease](t, string(into[metav1.Table](t, body).Rows[0].Object.Raw)); l.Kind != "Lease" || l.Spec.HolderIdentity == nil {
		t.Errorf("row has %+v", l)
	}
	_, body = f.do(t, "GET", leasesPath+"?includeObject=None", "", "Accept", accept)
	if raw := into[metav1.Table](t, body).Rows[0].Object.Raw; len(raw) > 0 && string(raw) != "null" {
		t.Errorf("row has %s", raw)
	}
	_, body = f.do(t, "GET", leasesPath+"/a", "", "Accept", "application/json;as=Table;v=v1beta1;g=meta.k8s.io")
	if one := into[metav1.Table](t, body); one.APIVersion != "meta.k8s.io/v1beta1" || len(one.Rows) != 1 || one.ResourceVersion == "" {
		t.Errorf("table of one is %s", body)
	}
	_, body = f.do(t, "GET", leasesPath+"/none", "", "Accept", accept)
	if s := into[metav1.Status](t, body); s.Kind != "Status" || s.Code != 404 {
		t.Errorf("error is %s", body)
	}
}

func TestPartialMetadata(t *testing.T) {
	f := serve(t, nil)
	f.add(t, "a", "b")
	_, body := f.do(t, "GET", leasesPath, "", "Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
	l := into[metav1.PartialObjectMetadataList](t, body)
	if l.Kind != "PartialObjectMetadataList" || len(l.Items) != 2 || l.Items[1].Name != "b" || l.ResourceVersion == "" || strings.Contains(body, `"holderIdentity":"h"`) {
		t.Errorf("list is %s", body)
	}
	_, pb := f.do(t, "GET", leasesPath, "", "Accept", mediaProto+";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
	var u runtime.Unknown
	if err := u.Unmarshal([]byte(pb)[4:]); err != nil || u.Kind != "PartialObjectMetadataList" {
		t.Fatalf("%v %v", err, u.TypeMeta)
	}
	pl := &metav1.PartialObjectMetadataList{}
	if err := pl.Unmarshal(u.Raw); err != nil || len(pl.Items) != 2 {
		t.Errorf("%v %v", err, pl)
	}
	_, body = f.do(t, "GET", leasesPath+"/a", "", "Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
	if p := into[metav1.PartialObjectMetadata](t, body); p.Kind != "PartialObjectMetadata" || p.Name != "a" {
		t.Errorf("object is %s", body)
	}
}

// stream reads the first n events of a watch as JSON documents.
func (f *fixture) stream(t *testing.T, path, accept string, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", f.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer admin")
	req.Header.Set("Accept", accept)
	resp, err := f.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out []string
	d := json.NewDecoder(resp.Body)
	for range n {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			t.Fatalf("after %d events: %v", len(out), err)
		}
		out = append(out, string(raw))
	}
	return out
}

func TestConvertedWatches(t *testing.T) {
	f := serve(t, nil)
	f.add(t, "a", "b")
	type event struct {
		Type   string
		Object json.RawMessage
	}
	tables := f.stream(t, leasesPath+"?watch=true", "application/json;as=Table;v=v1;g=meta.k8s.io", 2)
	for i, raw := range tables {
		table := into[metav1.Table](t, string(into[event](t, raw).Object))
		if table.Kind != "Table" || len(table.Rows) != 1 || (len(table.ColumnDefinitions) > 0) != (i == 0) || table.ResourceVersion == "" {
			t.Errorf("event %d is %s", i, raw)
		}
	}
	for _, raw := range f.stream(t, leasesPath+"?watch=true", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", 2) {
		if p := into[metav1.PartialObjectMetadata](t, string(into[event](t, raw).Object)); p.Kind != "PartialObjectMetadata" || p.Name == "" {
			t.Errorf("event is %s", raw)
		}
	}
	// The old form of the path, and one object by name.
	old := f.stream(t, strings.Replace(leasesPath, "/v1/", "/v1/watch/", 1)+"/b", "application/json", 1)
	if l := into[coordinationv1.Lease](t, string(into[event](t, old[0]).Object)); l.Name != "b" {
		t.Errorf("watch of b has %s", old[0])
	}
	// What is too old is told in an event or an answer, never in silence.
	resp, body := f.do(t, "GET", leasesPath+"?watch=true&resourceVersion=1&timeoutSeconds=1", "")
	if resp.StatusCode != 200 && resp.StatusCode != 410 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestWebSocketWatch(t *testing.T) {
	f := serve(t, nil)
	f.add(t, "a")
	h := http.Header{"Authorization": {"Bearer admin"}}
	conn, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(f.URL, "http")+leasesPath+"?watch=true", h)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("got %d", resp.StatusCode)
	}
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	for _, name := range []string{"a", "b"} {
		typ, msg, err := conn.ReadMessage()
		if err != nil || typ != websocket.TextMessage || !strings.Contains(string(msg), `"name":"`+name+`"`) {
			t.Fatalf("%v %d %s", err, typ, msg)
		}
		if name == "a" {
			f.add(t, "b")
		}
	}
}

// Answers are compressed for clients elsewhere, if they are large and the client asks.
func TestCompression(t *testing.T) {
	f := serve(t, nil)
	for i := range 60 {
		resp, body := f.do(t, "POST", leasesPath, fmt.Sprintf(`{"metadata":{"name":"n%d","annotations":{"pad":%q}}}`, i, strings.Repeat("x", 4000)))
		if resp.StatusCode != 201 {
			t.Fatal(body)
		}
	}
	get := func(path, accept, remote, encoding string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		r.RemoteAddr = remote
		r.Header.Set("Authorization", "Bearer admin")
		r.Header.Set("Accept", accept)
		r.Header.Set("Accept-Encoding", encoding)
		w := httptest.NewRecorder()
		f.handler.ServeHTTP(w, r)
		return w
	}
	const far, near = "192.0.2.1:5", "127.0.0.1:5"
	for _, accept := range []string{mediaJSON, mediaProto, mediaYAML, "application/json;as=Table;g=meta.k8s.io;v=v1"} {
		path := leasesPath + "?includeObject=Object"
		plain := get(path, accept, far, "")
		if plain.Header().Get("Content-Encoding") != "" {
			t.Errorf("%s: compressed without being asked", accept)
		}
		if w := get(path, accept, near, "gzip"); w.Header().Get("Content-Encoding") != "" {
			t.Errorf("%s: compressed on loopback", accept)
		}
		if w := get(leasesPath+"/n1", accept, far, "gzip"); w.Header().Get("Content-Encoding") != "" {
			t.Errorf("%s: a small answer is compressed", accept)
		}
		w := get(path, accept, far, "gzip")
		if w.Header().Get("Content-Encoding") != "gzip" {
			t.Fatalf("%s: not compressed: %v", accept, w.Header())
		}
		z, err := gzip.NewReader(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		// The ages in a table may have changed meanwhile.
		if again := get(path, accept, far, ""); err != nil || !bytes.Equal(b, plain.Body.Bytes()) && !bytes.Equal(b, again.Body.Bytes()) {
			t.Errorf("%s: compressed answer differs (%v, %d and %d bytes)", accept, err, len(b), plain.Body.Len())
		}
	}
}

func TestDiscovery(t *testing.T) {
	f := serve(t, func(o *Options) {
		o.Version = version.Info{Major: "1", Minor: "37", GitVersion: "v1.37.2+test"}
	})
	_, body := f.do(t, "GET", "/apis/apps/v1", "")
	l := into[metav1.APIResourceList](t, body)
	i := slices.IndexFunc(l.APIResources, func(r metav1.APIResource) bool { return r.Name == "deployments" })
	if i < 0 || l.GroupVersion != "apps/v1" {
		t.Fatalf("list is %s", body)
	}
	d := l.APIResources[i]
	want := metav1.APIResource{
		Name: "deployments", SingularName: "deployment", Namespaced: true, Kind: "Deployment", ShortNames: []string{"deploy"}, Categories: []string{"all"},
		Verbs: []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Errorf("deployments (-want +got):\n%s", diff)
	}
	i = slices.IndexFunc(l.APIResources, func(r metav1.APIResource) bool { return r.Name == "deployments/scale" })
	if s := l.APIResources[i]; s.Group != "autoscaling" || s.Version != "v1" || s.Kind != "Scale" || !slices.Equal(s.Verbs, []string{"get", "patch", "update"}) {
		t.Errorf("scale is %+v", s)
	}
	_, body = f.do(t, "GET", "/apis", "")
	if g := into[metav1.APIGroupList](t, body); len(g.Groups) != 3 || g.Groups[0].Name != "apps" || g.Groups[0].PreferredVersion.GroupVersion != "apps/v1" {
		t.Errorf("groups are %s", body)
	}
	const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
	resp, body := f.do(t, "GET", "/apis", "", "Accept", aggregated)
	agg := into[apidiscoveryv2.APIGroupDiscoveryList](t, body)
	if resp.Header.Get("Content-Type") != aggregatedType || agg.Kind != "APIGroupDiscoveryList" || agg.APIVersion != "apidiscovery.k8s.io/v2" || len(agg.Items) != 3 ||
		agg.Items[0].Versions[0].Freshness != apidiscoveryv2.DiscoveryFreshnessCurrent {
		t.Errorf("aggregated is %v %s", resp.Header, body)
	}
	if resp, body := f.do(t, "GET", "/apis", "", "Accept", aggregated, "If-None-Match", resp.Header.Get("Etag")); resp.StatusCode != 304 || body != "" {
		t.Errorf("conditional got %d", resp.StatusCode)
	}
	groups, resources, err := f.client(t, mediaJSON).Discovery().ServerGroupsAndResources()
	if err != nil || len(groups) != 3 || len(resources) != 3 {
		t.Errorf("client-go: %v, %d groups, %d lists", err, len(groups), len(resources))
	}
	if v, err := f.client(t, mediaJSON).Discovery().ServerVersion(); err != nil || v.GitVersion != "v1.37.2+test" {
		t.Errorf("version: %v %v", err, v)
	}
}

func TestHealth(t *testing.T) {
	broken := true
	f := serve(t, func(o *Options) {
		o.Authenticator = nil
		o.Checks = []Check{
			{Name: "store", Check: func(*http.Request) error { return nil }},
			{Name: "boot", ReadyOnly: true, Check: func(*http.Request) error {
				if broken {
					return io.ErrUnexpectedEOF
				}
				return nil
			}},
		}
	})
	for path, want := range map[string]struct {
		code int
		body string
	}{
		"/livez":                     {200, "ok"},
		"/livez?verbose":             {200, "[+]ping ok\n[+]store ok\nlivez check passed\n"},
		"/readyz":                    {500, "[+]ping ok\n[+]store ok\n[-]boot failed: reason withheld\nreadyz check failed\n"},
		"/readyz?exclude=boot":       {200, "ok"},
		"/readyz?verbose&exclude=xx": {500, "[+]ping ok\n[+]store ok\n[-]boot failed: reason withheld\nwarn: some health checks cannot be excluded: no matches for \"xx\"\nreadyz check failed\n"},
		"/readyz/store":              {200, "ok"},
		"/readyz/boot":               {500, "internal server error: unexpected EOF\n"},
		"/healthz/ping":              {200, "ok"},
	} {
		if resp, body := f.do(t, "GET", path, ""); resp.StatusCode != want.code || body != want.body {
			t.Errorf("%s: %d %q", path, resp.StatusCode, body)
		}
	}
	if resp, _ := f.do(t, "GET", "/readyz/none", ""); resp.StatusCode != 404 {
		t.Errorf("unknown check got %d", resp.StatusCode)
	}
	broken = false
	if resp, _ := f.do(t, "GET", "/readyz", ""); resp.StatusCode != 200 {
		t.Errorf("got %d", resp.StatusCode)
	}
}

func TestMetricsAndLimits(t *testing.T) {
	f := serve(t, func(o *Options) { o.MaxMutatingInFlight = 1 })
	f.add(t, "a")
	release, err := f.handler.admit(&exchange{}, "create")
	if err != nil {
		t.Fatal(err)
	}
	resp, body := f.do(t, "POST", leasesPath, `{}`)
	if s := into[metav1.Status](t, body); resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "1" || s.Reason != metav1.StatusReasonTooManyRequests {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
	}
	release()
	f.add(t, "b")
	f.do(t, "GET", "/apis/unbounded.example/v1/series-"+strings.Repeat("x", 20), "")
	_, body = f.do(t, "GET", "/metrics", "")
	for _, want := range []string{
		`apiserver_request_total{code="201",component="apiserver",dry_run="",group="coordination.k8s.io",resource="leases",scope="resource",subresource="",verb="POST",version="v1"} 2`,
		`apiserver_dropped_requests_total{request_kind="mutating"} 1`,
		`apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="coordination.k8s.io",resource="leases",scope="resource",subresource="",verb="POST",version="v1"}`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if strings.Contains(body, "unbounded.example") {
		t.Error("a path that is not served makes a series")
	}
}

// A panic in a handler is answered with 500 and counted, and the server lives on.
func TestPanic(t *testing.T) {
	f := serve(t, func(o *Options) {
		o.Extra = map[string]http.Handler{"/boom": http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") })}
	})
	resp, body := f.do(t, "GET", "/boom", "")
	if s := into[metav1.Status](t, body); resp.StatusCode != 500 || s.Reason != metav1.StatusReasonInternalError || strings.Contains(body, "boom\n") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if _, body := f.do(t, "GET", "/metrics", ""); !strings.Contains(body, "apiserver_request_panics_total 1") {
		t.Error("panic is not counted")
	}
}
