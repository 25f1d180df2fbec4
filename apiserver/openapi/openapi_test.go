package openapi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

var every = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

func resource(group, version, resource, kind string, namespaced bool) Resource {
	gv := schema.GroupVersion{Group: group, Version: version}
	return Resource{GroupVersionResource: gv.WithResource(resource), GVK: gv.WithKind(kind), Namespaced: namespaced, Verbs: every}
}

func testSpec(t testing.TB) *Spec {
	log := resource("", "v1", "pods", "", true)
	log.Subresource, log.Connect, log.Verbs = "log", true, []string{"get"}
	proxy := log
	proxy.Subresource, proxy.Verbs = "proxy", []string{"create", "delete", "get", "patch", "update"}
	status := resource("apps", "v1", "deployments", "Deployment", true)
	status.Subresource, status.Verbs = "status", []string{"get", "patch", "update"}
	custom := resource("stable.example.com", "v1", "crontabs", "CronTab", true)
	custom.Schema = json.RawMessage(`{"type":"object","properties":{"metadata":{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}},"x-kubernetes-group-version-kind":[{"group":"stable.example.com","kind":"CronTab","version":"v1"}]}`)
	s, err := New("v1.37.2", []Resource{
		resource("", "v1", "pods", "Pod", true), log, proxy, resource("", "v1", "nodes", "Node", false),
		resource("apps", "v1", "deployments", "Deployment", true), status, resource("batch", "v1", "jobs", "Job", true), custom,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func get(t testing.TB, s *Spec, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// Every reference of every document leads somewhere, and the documents parse as what they claim to be.
func TestDocuments(t *testing.T) {
	s := testSpec(t)
	v2 := &spec.Swagger{}
	raw := get(t, s, "/openapi/v2").Body.Bytes()
	if err := json.Unmarshal(raw, v2); err != nil {
		t.Fatal(err)
	}
	checkReferences(t, "v2", raw, func(name string) bool { _, ok := v2.Definitions[name]; return ok })
	deployment := v2.Definitions["io.k8s.api.apps.v1.DeploymentSpec"]
	if p := deployment.Properties["replicas"]; !strings.Contains(p.Description, "Number of desired pods") {
		t.Errorf("description of replicas is %q", p.Description)
	}
	containers := v2.Definitions["io.k8s.api.core.v1.PodSpec"].Properties["containers"]
	if containers.Extensions["x-kubernetes-patch-merge-key"] != "name" || containers.Extensions["x-kubernetes-list-type"] != "map" {
		t.Errorf("extensions of containers are %v", containers.Extensions)
	}
	if _, ok := v2.Definitions["io.k8s.api.storage.v1.StorageClass"]; ok {
		t.Error("a definition that nothing served needs is in the document")
	}
	for _, gv := range []string{"api/v1", "apis/apps/v1", "apis/batch/v1", "apis/stable.example.com/v1"} {
		doc := &spec3.OpenAPI{}
		raw := get(t, s, "/openapi/v3/"+gv).Body.Bytes()
		if err := json.Unmarshal(raw, doc); err != nil {
			t.Fatal(err)
		}
		checkReferences(t, gv, raw, func(name string) bool { _, ok := doc.Components.Schemas[name]; return ok })
	}
}

func checkReferences(t *testing.T, doc string, raw []byte, have func(string) bool) {
	t.Helper()
	n := 0
	for _, m := range refPattern.FindAllSubmatch(raw, -1) {
		n++
		if !have(string(m[1])) {
			t.Errorf("%s: %s is referred to and missing", doc, m[1])
		}
	}
	if n == 0 {
		t.Errorf("%s: no references", doc)
	}
}

func TestPaths(t *testing.T) {
	s := testSpec(t)
	doc := &spec3.OpenAPI{}
	if err := json.Unmarshal(get(t, s, "/openapi/v3/apis/apps/v1").Body.Bytes(), doc); err != nil {
		t.Fatal(err)
	}
	item := doc.Paths.Paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
	if item == nil || item.Get == nil || item.Put == nil || item.Patch == nil || item.Delete == nil || item.Post != nil {
		t.Fatalf("item is %+v", item)
	}
	if id := item.Get.OperationId; id != "readAppsV1NamespacedDeployment" {
		t.Errorf("operation id is %q", id)
	}
	if got := item.Patch.Extensions[gvkExtension]; got == nil {
		t.Error("patch has no kind")
	}
	found := false
	for _, p := range item.Patch.Parameters {
		found = found || p.Name == "fieldValidation"
	}
	if !found {
		t.Error("patch has no parameter fieldValidation, by which kubectl knows that the server validates")
	}
	if c := doc.Paths.Paths["/apis/apps/v1/namespaces/{namespace}/deployments"]; c == nil || c.Get.OperationId != "listAppsV1NamespacedDeployment" ||
		c.Delete.OperationId != "deleteAppsV1CollectionNamespacedDeployment" {
		t.Errorf("collection is %+v", c)
	}
	if all := doc.Paths.Paths["/apis/apps/v1/deployments"]; all == nil || all.Get.OperationId != "listAppsV1DeploymentForAllNamespaces" || all.Post != nil {
		t.Errorf("all namespaces is %+v", all)
	}
	if st := doc.Paths.Paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/status"]; st == nil || st.Get.OperationId != "readAppsV1NamespacedDeploymentStatus" {
		t.Errorf("status is %+v", st)
	}
	core := &spec3.OpenAPI{}
	if err := json.Unmarshal(get(t, s, "/openapi/v3/api/v1").Body.Bytes(), core); err != nil {
		t.Fatal(err)
	}
	if l := core.Paths.Paths["/api/v1/namespaces/{namespace}/pods/{name}/log"]; l == nil || l.Get.OperationId != "readCoreV1NamespacedPodLog" {
		t.Errorf("log is %+v", l)
	}
	if p := core.Paths.Paths["/api/v1/namespaces/{namespace}/pods/{name}/proxy/{path}"]; p == nil || p.Delete == nil {
		t.Errorf("proxy is %+v", p)
	}
}

func TestProtobuf(t *testing.T) {
	s := testSpec(t)
	w := get(t, s, "/openapi/v2", "Accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
	if ct := w.Header().Get("Content-Type"); ct != ProtobufV2 {
		t.Errorf("content type is %q", ct)
	}
	v2 := &openapi_v2.Document{}
	if err := proto.Unmarshal(w.Body.Bytes(), v2); err != nil {
		t.Fatal(err)
	}
	if len(v2.Definitions.AdditionalProperties) < 50 {
		t.Errorf("document has %d definitions", len(v2.Definitions.AdditionalProperties))
	}
	w = get(t, s, "/openapi/v3/apis/batch/v1", "Accept", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf")
	v3 := &openapi_v3.Document{}
	if err := proto.Unmarshal(w.Body.Bytes(), v3); err != nil {
		t.Fatal(err)
	}
	if len(v3.Paths.Path) != 3 {
		t.Errorf("document has %d paths", len(v3.Paths.Path))
	}
}

func TestCaching(t *testing.T) {
	s := testSpec(t)
	var index struct {
		Paths map[string]struct {
			ServerRelativeURL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(get(t, s, "/openapi/v3").Body.Bytes(), &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Paths) != 4 {
		t.Errorf("index has %d group-versions", len(index.Paths))
	}
	u := index.Paths["apis/apps/v1"].ServerRelativeURL
	w := get(t, s, u, "Accept-Encoding", "gzip")
	if w.Code != 200 || w.Header().Get("Content-Encoding") != "gzip" || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
		t.Errorf("%s: %d %v", u, w.Code, w.Header())
	}
	if w := get(t, s, u, "If-None-Match", w.Header().Get("Etag")); w.Code != http.StatusNotModified || w.Body.Len() > 0 {
		t.Errorf("conditional request got %d", w.Code)
	}
	if w := get(t, s, "/openapi/v3/apis/apps/v1?hash=OLD"); w.Code != http.StatusMovedPermanently || w.Header().Get("Location") != u {
		t.Errorf("stale address got %d to %q", w.Code, w.Header().Get("Location"))
	}
	if w := get(t, s, "/openapi/v3/apis/none/v1"); w.Code != http.StatusNotFound {
		t.Errorf("unknown group got %d", w.Code)
	}
	if w := get(t, s, "/openapi/v2", "Accept", "image/png"); w.Code != http.StatusNotAcceptable {
		t.Errorf("unknown type got %d", w.Code)
	}
	same, other := testSpec(t), s
	if same.etags["apis/apps/v1"] != other.etags["apis/apps/v1"] {
		t.Error("hashes differ between two servers of the same resources")
	}
}

// Every kind of Kubernetes' stable groups that a server may declare has a schema.
func TestDefinitionsOfStableKinds(t *testing.T) {
	d, err := load(embeddedV3, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{
		"v1/Namespace", "v1/Node", "v1/Pod", "v1/Service", "v1/Endpoints", "discovery.k8s.io/v1/EndpointSlice", "v1/ConfigMap", "v1/Secret", "v1/ServiceAccount",
		"v1/Event", "events.k8s.io/v1/Event", "coordination.k8s.io/v1/Lease", "v1/PersistentVolume", "v1/PersistentVolumeClaim", "v1/LimitRange", "v1/ResourceQuota",
		"apps/v1/Deployment", "apps/v1/ReplicaSet", "apps/v1/StatefulSet", "apps/v1/DaemonSet", "apps/v1/ControllerRevision", "batch/v1/Job", "batch/v1/CronJob",
		"autoscaling/v1/HorizontalPodAutoscaler", "autoscaling/v2/HorizontalPodAutoscaler", "policy/v1/PodDisruptionBudget", "policy/v1/Eviction",
		"networking.k8s.io/v1/Ingress", "networking.k8s.io/v1/IngressClass", "networking.k8s.io/v1/NetworkPolicy", "rbac.authorization.k8s.io/v1/Role",
		"rbac.authorization.k8s.io/v1/ClusterRoleBinding", "storage.k8s.io/v1/StorageClass", "scheduling.k8s.io/v1/PriorityClass", "node.k8s.io/v1/RuntimeClass",
		"certificates.k8s.io/v1/CertificateSigningRequest", "authentication.k8s.io/v1/TokenReview", "authentication.k8s.io/v1/TokenRequest",
		"authorization.k8s.io/v1/SubjectAccessReview", "apiextensions.k8s.io/v1/CustomResourceDefinition", "autoscaling/v1/Scale", "v1/Binding", "v1/Status",
	} {
		i := strings.LastIndex(k, "/")
		gv, err := schema.ParseGroupVersion(k[:i])
		if err != nil {
			t.Fatal(err)
		}
		gvk := gv.WithKind(k[i+1:])
		name := d.byGVK[gvk]
		if name == "" {
			t.Errorf("%v has no definition", gvk)
			continue
		}
		if obj, err := scheme.Scheme.New(gvk); err == nil {
			if m, ok := obj.(interface{ OpenAPIModelName() string }); ok && m.OpenAPIModelName() != name {
				t.Errorf("%v is defined by %s, want %s", gvk, name, m.OpenAPIModelName())
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New("v1", []Resource{{}}); err == nil || !strings.Contains(err.Error(), "expected") {
		t.Errorf("got %v", err)
	}
}

func BenchmarkV3Protobuf(b *testing.B) {
	for b.Loop() {
		get(b, testSpec(b), "/openapi/v3/api/v1", "Accept", ProtobufV3)
	}
}
