package httpapi

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const leasesPath = "/apis/coordination.k8s.io/v1/namespaces/ns/leases"

// Bad requests get the code, reason and message of kube-apiserver.
func TestErrors(t *testing.T) {
	f := serve(t, func(o *Options) {
		o.Authorizer = rules{"bob impersonate users alice": true, "alice list leases": true, "system:anonymous get /livez": true}
		o.MaxBodyBytes = 1000
	})
	if resp, body := f.do(t, "POST", leasesPath, `{"metadata":{"name":"have"}}`); resp.StatusCode != 201 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	const notFoundPath = "the server could not find the requested resource"
	const method = "the server does not allow this method on the requested resource"
	for name, tc := range map[string]struct {
		method, path, body string
		header             []string
		code               int
		reason             metav1.StatusReason
		message            string
	}{
		"no such object": {
			"GET", leasesPath + "/none", "", nil, 404, "NotFound", `leases.coordination.k8s.io "none" not found`,
		},
		"exists": {
			"POST", leasesPath, `{"metadata":{"name":"have"}}`, nil, 409, "AlreadyExists", `leases.coordination.k8s.io "have" already exists`,
		},
		"no such resource":          {"GET", "/apis/coordination.k8s.io/v1/nothing", "", nil, 404, "NotFound", notFoundPath},
		"no such version":           {"GET", "/apis/coordination.k8s.io/v9/leases", "", nil, 404, "NotFound", notFoundPath},
		"no such subresource":       {"GET", leasesPath + "/have/status", "", nil, 404, "NotFound", notFoundPath},
		"too deep":                  {"GET", leasesPath + "/have/a/b", "", nil, 404, "NotFound", notFoundPath},
		"empty name":                {"GET", leasesPath + "//x", "", nil, 404, "NotFound", notFoundPath},
		"delete of discovery":       {"DELETE", "/apis/coordination.k8s.io/v1", "", nil, 405, "MethodNotAllowed", method},
		"post to object":            {"POST", leasesPath + "/have", `{}`, nil, 405, "MethodNotAllowed", method},
		"put to collection":         {"PUT", leasesPath, `{}`, nil, 405, "MethodNotAllowed", method},
		"patch of collection":       {"PATCH", leasesPath, `{}`, []string{"Content-Type", "application/merge-patch+json"}, 405, "MethodNotAllowed", method},
		"unknown method":            {"FROB", leasesPath, ``, nil, 405, "MethodNotAllowed", method},
		"create in all namespaces":  {"POST", "/apis/coordination.k8s.io/v1/leases", `{"metadata":{"name":"x"}}`, nil, 405, "MethodNotAllowed", method},
		"name that escapes":         {"GET", leasesPath + "/%2e%2e", "", nil, 400, "BadRequest", `Name parameter invalid: "..": may not be '..'`},
		"name with percent":         {"GET", leasesPath + "/a%25b", "", nil, 400, "BadRequest", `Name parameter invalid: "a%b": may not contain '%'`},
		"namespace that escapes":    {"GET", "/apis/coordination.k8s.io/v1/namespaces/%2e%2e/leases/x", "", nil, 400, "BadRequest", `Namespace parameter invalid: "..": may not be '..'`},
		"not acceptable":            {"GET", leasesPath, "", []string{"Accept", "image/png"}, 406, "NotAcceptable", "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		"table in protobuf":         {"GET", leasesPath, "", []string{"Accept", "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1"}, 406, "NotAcceptable", "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		"list as one":               {"GET", leasesPath, "", []string{"Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}, 406, "NotAcceptable", "you requested PartialObjectMetadata, but the requested object is a list (*coordination.LeaseList)"},
		"unsupported body":          {"POST", leasesPath, "x", []string{"Content-Type", "text/plain"}, 415, "UnsupportedMediaType", "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		"unsupported patch":         {"PATCH", leasesPath + "/have", "{}", []string{"Content-Type", "application/json"}, 415, "UnsupportedMediaType", "415: Unsupported Media Type"},
		"too large":                 {"POST", leasesPath, `{"metadata":{"name":"` + strings.Repeat("x", 2000) + `"}}`, nil, 413, "RequestEntityTooLarge", "Request entity too large: limit is 1000"},
		"empty body":                {"POST", leasesPath, ``, nil, 400, "BadRequest", "the object provided is unrecognized (must be of type Lease): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)"},
		"not JSON":                  {"POST", leasesPath, `{nope`, nil, 400, "BadRequest", "the object provided is unrecognized (must be of type Lease): couldn't get version/kind; json parse error: invalid character 'n' looking for beginning of object key string ({nope)"},
		"not protobuf":              {"POST", leasesPath, `{nope`, []string{"Content-Type", mediaProto}, 400, "BadRequest", "the object provided is unrecognized (must be of type Lease): provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] ({nope)"},
		"another kind":              {"POST", leasesPath, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x"}}`, nil, 400, "BadRequest", `Deployment in version "v1" cannot be handled as a Lease: converting (v1.Deployment) to (coordination.Lease): unknown conversion`},
		"unknown kind":              {"POST", leasesPath, `{"apiVersion":"coordination.k8s.io/v1","kind":"Foo"}`, nil, 400, "BadRequest", `Foo in version "v1" cannot be handled as a Lease: no kind "Foo" is registered for version "coordination.k8s.io/v1" in scheme "pkg/runtime/scheme.go:111"`},
		"wrong type":                {"POST", leasesPath, `{"metadata":{"name":"x"},"spec":{"leaseDurationSeconds":"ten"}}`, nil, 400, "BadRequest", `Lease in version "v1" cannot be handled as a Lease: json: cannot unmarshal string into Go struct field LeaseSpec.spec.leaseDurationSeconds of type int32`},
		"strict":                    {"POST", leasesPath + "?fieldValidation=Strict", `{"metadata":{"name":"x","foo":1},"spec":{},"spec":{}}`, nil, 400, "BadRequest", `Lease in version "v1" cannot be handled as a Lease: strict decoding error: unknown field "metadata.foo", duplicate field "spec"`},
		"unknown directive":         {"POST", leasesPath + "?fieldValidation=Maybe", `{}`, nil, 422, "Invalid", `CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Maybe": supported values: "", "Ignore", "Strict", "Warn"`},
		"unknown dry run":           {"POST", leasesPath + "?dryRun=some", `{}`, nil, 422, "Invalid", `CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["some"]: supported values: "All"`},
		"bad limit":                 {"GET", leasesPath + "?limit=ten", "", nil, 400, "BadRequest", `strconv.ParseInt: parsing "ten": invalid syntax`},
		"bad label selector":        {"GET", leasesPath + "?labelSelector=a%3D%3D%3Db", "", nil, 400, "BadRequest", `unable to parse requirement: found '=', expected: identifier`},
		"bad field selector":        {"GET", leasesPath + "?fieldSelector=spec.x%3Dy", "", nil, 400, "BadRequest", `"spec.x" is not a known field selector: only "metadata.name", "metadata.namespace"`},
		"bad version":               {"GET", leasesPath + "?resourceVersion=abc", "", nil, 400, "BadRequest", `invalid resource version: resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax`},
		"match without version":     {"GET", leasesPath + "?resourceVersionMatch=Exact", "", nil, 422, "Invalid", `ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided`},
		"bad include":               {"GET", leasesPath + "?includeObject=All", "", []string{"Accept", "application/json;as=Table;g=meta.k8s.io;v=v1"}, 400, "BadRequest", `Unable to convert to Table as requested: includeObject: Invalid value: "All": must be 'Metadata', 'Object', 'None', or empty`},
		"name of another":           {"PUT", leasesPath + "/have", `{"metadata":{"name":"other"}}`, nil, 400, "BadRequest", "the name of the object (other) does not match the name on the URL (have)"},
		"no name":                   {"PUT", leasesPath + "/have", `{"metadata":{}}`, nil, 400, "BadRequest", "the name of the object (have based on URL) was undeterminable: name must be provided"},
		"namespace of another":      {"POST", leasesPath, `{"metadata":{"name":"x","namespace":"other"}}`, nil, 400, "BadRequest", "the namespace of the provided object does not match the namespace sent on the request"},
		"bad delete body":           {"DELETE", leasesPath + "/have", `{"kind":"Lease"}`, nil, 400, "BadRequest", "decoded object cannot be converted to DeleteOptions"},
		"bad delete policy":         {"DELETE", leasesPath + "/have?propagationPolicy=Sometimes", ``, nil, 422, "Invalid", `DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Sometimes": supported values: "Foreground", "Background", "Orphan", "nil"`},
		"wrong precondition":        {"DELETE", leasesPath + "/have", `{"preconditions":{"uid":"other"}}`, nil, 409, "Conflict", ""},
		"apply without manager":     {"PATCH", leasesPath + "/have", `{}`, []string{"Content-Type", "application/apply-patch+yaml"}, 422, "Invalid", `PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch`},
		"force of another patch":    {"PATCH", leasesPath + "/have?force=true", `{}`, []string{"Content-Type", "application/merge-patch+json"}, 422, "Invalid", `PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch`},
		"not authenticated":         {"GET", leasesPath, "", []string{"Authorization", "Bearer bad"}, 401, "Unauthorized", "Unauthorized"},
		"anonymous":                 {"GET", leasesPath, "", []string{"Authorization", ""}, 403, "Forbidden", `leases.coordination.k8s.io is forbidden: User "system:anonymous" cannot list resource "leases" in API group "coordination.k8s.io" in the namespace "ns"`},
		"anonymous unknown":         {"GET", "/apis/coordination.k8s.io/v1/nothing", "", []string{"Authorization", ""}, 403, "Forbidden", `nothing.coordination.k8s.io is forbidden: User "system:anonymous" cannot list resource "nothing" in API group "coordination.k8s.io" at the cluster scope`},
		"anonymous path":            {"GET", "/metrics", "", []string{"Authorization", ""}, 403, "Forbidden", `forbidden: User "system:anonymous" cannot get path "/metrics"`},
		"forbidden before the body": {"POST", leasesPath, "not json", []string{"Authorization", "Bearer alice"}, 403, "Forbidden", `leases.coordination.k8s.io is forbidden: User "alice" cannot create resource "leases" in API group "coordination.k8s.io" in the namespace "ns"`},
		"impersonation forbidden":   {"GET", leasesPath, "", []string{"Authorization", "Bearer bob", "Impersonate-User", "carol"}, 403, "Forbidden", `users "carol" is forbidden: User "bob" cannot impersonate resource "users" in API group "" at the cluster scope`},
		"group forbidden":           {"GET", leasesPath, "", []string{"Authorization", "Bearer bob", "Impersonate-User", "alice", "Impersonate-Group", "x"}, 403, "Forbidden", `groups "x" is forbidden: User "bob" cannot impersonate resource "groups" in API group "" at the cluster scope`},
		"impersonated":              {"GET", leasesPath + "/have", "", []string{"Authorization", "Bearer bob", "Impersonate-User", "alice"}, 403, "Forbidden", `leases.coordination.k8s.io "have" is forbidden: User "alice" cannot get resource "leases" in API group "coordination.k8s.io" in the namespace "ns"`},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := f.do(t, tc.method, tc.path, tc.body, tc.header...)
			var s metav1.Status
			if err := json.Unmarshal([]byte(body), &s); err != nil {
				t.Fatalf("%d %q: %v", resp.StatusCode, body, err)
			}
			if resp.StatusCode != tc.code || int(s.Code) != tc.code || s.Reason != tc.reason || s.Status != metav1.StatusFailure || s.Kind != "Status" || s.APIVersion != "v1" {
				t.Errorf("got %d %+v, want %d %s", resp.StatusCode, s, tc.code, tc.reason)
			}
			if tc.message != "" && s.Message != tc.message {
				t.Errorf("message\n got %s\nwant %s", s.Message, tc.message)
			}
			if resp.Header.Get("Audit-Id") == "" || resp.Header.Get("Content-Type") != mediaJSON {
				t.Errorf("header is %v", resp.Header)
			}
		})
	}
	for _, path := range []string{"/nope", "/apis/nope.example/v1/leases", "/apis/nope.example"} {
		if resp, body := f.do(t, "GET", path, ""); resp.StatusCode != http.StatusNotFound || body != "404 page not found\n" {
			t.Errorf("%s: %d %q", path, resp.StatusCode, body)
		}
	}
	if resp, body := f.do(t, "GET", leasesPath, "", "Authorization", "Bearer bob", "Impersonate-User", "alice"); resp.StatusCode != http.StatusOK {
		t.Errorf("allowed impersonation got %d %s", resp.StatusCode, body)
	}
}

func TestFieldValidation(t *testing.T) {
	f := serve(t, nil)
	const bad = `{"metadata":{"name":%NAME%,"bogus":1},"spec":{"holderIdentity":"a","holderIdentity":"b","nope":true}}`
	for directive, want := range map[string]struct {
		code     int
		warnings []string
	}{
		"":       {201, []string{`299 - "unknown field \"metadata.bogus\""`, `299 - "duplicate field \"spec.holderIdentity\""`, `299 - "unknown field \"spec.nope\""`}},
		"Warn":   {201, []string{`299 - "unknown field \"metadata.bogus\""`, `299 - "duplicate field \"spec.holderIdentity\""`, `299 - "unknown field \"spec.nope\""`}},
		"Ignore": {201, nil},
		"Strict": {400, nil},
	} {
		name := strings.ToLower("v" + directive)
		resp, body := f.do(t, "POST", leasesPath+"?fieldValidation="+directive, strings.Replace(bad, "%NAME%", `"`+name+`"`, 1))
		if resp.StatusCode != want.code {
			t.Errorf("%q: %d %s", directive, resp.StatusCode, body)
		}
		got := map[string]bool{}
		for _, w := range resp.Header.Values("Warning") {
			got[w] = true
		}
		if len(got) != len(want.warnings) {
			t.Errorf("%q: warnings %v", directive, resp.Header.Values("Warning"))
		}
		for _, w := range want.warnings {
			if !got[w] {
				t.Errorf("%q: no warning %s in %v", directive, w, resp.Header.Values("Warning"))
			}
		}
	}
	resp, body := f.do(t, "POST", leasesPath, "metadata:\n  name: yaml\nspec:\n  nope: 1\n", "Content-Type", mediaYAML)
	if w := resp.Header.Get("Warning"); resp.StatusCode != 201 || w != `299 - "unknown field \"spec.nope\""` {
		t.Errorf("YAML: %d %q %s", resp.StatusCode, w, body)
	}
}
