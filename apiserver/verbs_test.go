package apiserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/keelson/keelson/apiserver"
)

const podTemplate = `{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}`

// samples are the least that an object of a kind must have beside its name.
var samples = map[string]string{
	"bindings":                   "", // only to be created, and not read
	"persistentvolumeclaims":     `{"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}`,
	"persistentvolumes":          `{"spec":{"accessModes":["ReadWriteOnce"],"capacity":{"storage":"1Gi"},"hostPath":{"path":"/x"}}}`,
	"pods":                       `{"spec":{"containers":[{"name":"c","image":"i"}]}}`,
	"podtemplates":               `{"template":` + podTemplate + `}`,
	"replicationcontrollers":     `{"spec":{"selector":{"a":"b"},"template":` + podTemplate + `}}`,
	"services":                   `{"spec":{"ports":[{"port":80}]}}`,
	"daemonsets":                 `{"spec":{"selector":{"matchLabels":{"a":"b"}},"template":` + podTemplate + `}}`,
	"deployments":                `{"spec":{"selector":{"matchLabels":{"a":"b"}},"template":` + podTemplate + `}}`,
	"replicasets":                `{"spec":{"selector":{"matchLabels":{"a":"b"}},"template":` + podTemplate + `}}`,
	"statefulsets":               `{"spec":{"serviceName":"s","selector":{"matchLabels":{"a":"b"}},"template":` + podTemplate + `}}`,
	"controllerrevisions":        `{"data":{"x":1},"revision":1}`,
	"horizontalpodautoscalers":   `{"spec":{"maxReplicas":3,"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"d"}}}`,
	"jobs":                       `{"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}`,
	"cronjobs":                   `{"spec":{"schedule":"* * * * *","jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}}}`,
	"certificatesigningrequests": "", // needs a request signed by a key
	"endpointslices":             `{"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"]}]}`,
	"events":                     `{"involvedObject":{"namespace":"NS"}}`,
	"events.events.k8s.io":       `{"eventTime":"2020-01-01T00:00:00.000000Z","reportingController":"x.y/z","reportingInstance":"i","action":"a","reason":"r","type":"Normal","regarding":{"namespace":"NS"}}`,
	"ingresses":                  `{"spec":{"defaultBackend":{"service":{"name":"s","port":{"number":80}}}}}`,
	"ingressclasses":             `{"spec":{"controller":"x.y/z"}}`,
	"networkpolicies":            `{"spec":{"podSelector":{}}}`,
	"runtimeclasses":             `{"handler":"h"}`,
	"poddisruptionbudgets":       `{"spec":{"minAvailable":1}}`,
	"clusterrolebindings":        `{"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"}}`,
	"rolebindings":               `{"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"}}`,
	"priorityclasses":            `{"value":5}`,
	"podgroups":                  `{"spec":{"schedulingPolicy":{"gang":{"minCount":2}}}}`,
	"workloads":                  `{"spec":{"podGroupTemplates":[{"name":"t","schedulingPolicy":{"gang":{"minCount":2}}}]}}`,
	"deviceclasses":              `{"spec":{}}`,
	"devicetaintrules":           `{"spec":{"taint":{"key":"a.b/c","effect":"NoSchedule"}}}`,
	"resourceclaims":             `{"spec":{"devices":{"requests":[{"name":"r","exactly":{"deviceClassName":"c","selectors":[{"cel":{"expression":"device.driver == 'x.y'"}}]}}]}}}`,
	"resourceclaimtemplates":     `{"spec":{"spec":{"devices":{"requests":[{"name":"r","exactly":{"deviceClassName":"c"}}]}}}}`,
	"resourceslices":             `{"spec":{"driver":"x.y","nodeName":"n","pool":{"name":"p","resourceSliceCount":1},"devices":[{"name":"d"}]}}`,
	"csidrivers":                 `{}`,
	"csinodes":                   `{"spec":{"drivers":[]}}`,
	"csistoragecapacities":       `{"storageClassName":"s"}`,
	"storageclasses":             `{"provisioner":"x.y/z"}`,
	"volumeattachments":          `{"spec":{"attacher":"a.b","nodeName":"n","source":{"persistentVolumeName":"pv"}}}`,
}

// Every verb of every kind that discovery has works in every content type.
func TestEveryVerb(t *testing.T) {
	s := start(t, apiserver.Options{})
	me := &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup}}
	admin := s.Client(me)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "verbs"}}
	if err := admin.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	if err := admin.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "default"}}); err != nil {
		t.Fatal(err)
	}
	hc, err := rest.HTTPClientFor(s.RESTConfig(me))
	if err != nil {
		t.Fatal(err)
	}
	v := verbs{t: t, client: hc}
	var groups metav1.APIGroupList
	v.get("/apis", &groups)
	roots := map[string]string{"v1": "/api/v1"}
	for _, g := range groups.Groups {
		for _, version := range g.Versions {
			roots[version.GroupVersion] = "/apis/" + version.GroupVersion
		}
	}
	served := 0
	for gv, root := range roots {
		var list metav1.APIResourceList
		v.get(root, &list)
		for _, r := range list.APIResources {
			if strings.Contains(r.Name, "/") || !slices.Contains(r.Verbs, "list") {
				continue
			}
			served++
			group, version, ok := strings.Cut(gv, "/")
			if !ok {
				group, version = "", gv
			}
			body, known := samples[schema.GroupResource{Group: group, Resource: r.Name}.String()]
			if !known {
				body, known = samples[r.Name]
			}
			if known && body == "" {
				continue
			}
			path := root + "/" + r.Name
			if r.Namespaced {
				path = root + "/namespaces/" + ns.Name + "/" + r.Name
			}
			t.Run(r.Name+"."+gv, func(t *testing.T) {
				v := verbs{t: t, client: hc}
				v.all(path, schema.GroupVersionKind{Group: group, Version: version, Kind: r.Kind}, r.Verbs, strings.ReplaceAll(body, "NS", ns.Name))
			})
		}
	}
	if served < 35 {
		t.Errorf("only %d resources are served", served)
	}
}

type verbs struct {
	t      *testing.T
	client *http.Client
}

func (v verbs) do(method, path, contentType, accept string, body []byte) (int, []byte) {
	v.t.Helper()
	req := request(v.t, v.t.Context(), method, path, bytes.NewReader(body))
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("Accept", accept)
	resp, err := v.client.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return resp.StatusCode, raw
}

func (v verbs) get(path string, into any) {
	v.t.Helper()
	code, raw := v.do("GET", path, "", runtime.ContentTypeJSON, nil)
	if err := json.Unmarshal(raw, into); code != 200 || err != nil {
		v.t.Fatalf("GET %s: %d, %v", path, code, err)
	}
}

// must sends a body and decodes the answer, which has to be an object of the kind.
func (v verbs) must(code int, method, path, contentType, accept string, body []byte, gvk schema.GroupVersionKind) runtime.Object {
	v.t.Helper()
	got, raw := v.do(method, path, contentType, accept, body)
	if got != code {
		v.t.Fatalf("%s %s (%s, %s): %d, expected %d: %.500s", method, path, contentType, accept, got, code, raw)
	}
	obj, kind, err := decode(accept, raw)
	if err != nil || *kind != gvk {
		v.t.Fatalf("%s %s (%s): %v, %v", method, path, accept, kind, err)
	}
	return obj
}

var types3 = []string{runtime.ContentTypeJSON, runtime.ContentTypeYAML, runtime.ContentTypeProtobuf}

func decode(contentType string, raw []byte) (runtime.Object, *schema.GroupVersionKind, error) {
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), contentType)
	if !ok {
		return nil, nil, fmt.Errorf("no serializer of %s", contentType)
	}
	return info.Serializer.Decode(raw, nil, nil)
}

func encode(t *testing.T, contentType string, obj runtime.Object) []byte {
	t.Helper()
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), contentType)
	raw, err := runtime.Encode(info.Serializer, obj)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (v verbs) all(path string, gvk schema.GroupVersionKind, served []string, sample string) {
	t := v.t
	has := func(verb string) bool { return slices.Contains(served, verb) }
	if sample == "" {
		sample = "{}"
	}
	doc := map[string]any{}
	if err := json.Unmarshal([]byte(sample), &doc); err != nil {
		t.Fatal(err)
	}
	const js = runtime.ContentTypeJSON
	doc["apiVersion"], doc["kind"] = gvk.GroupVersion().String(), gvk.Kind
	named := func(name string) []byte {
		doc["metadata"] = map[string]any{"name": name, "labels": map[string]any{"verbs": "yes"}}
		raw, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for _, ct := range types3 {
		name := "of-" + ct[strings.LastIndexAny(ct, "./")+1:]
		body := named(name)
		typed, _, err := decode(js, body)
		if err != nil {
			t.Fatal(err)
		}
		switch ct {
		case runtime.ContentTypeYAML:
			if body, err = yaml.JSONToYAML(body); err != nil {
				t.Fatal(err)
			}
		case runtime.ContentTypeProtobuf:
			body = encode(t, ct, typed)
		}
		v.must(201, "POST", path+"?dryRun=All", ct, ct, body, gvk)
		created := v.must(201, "POST", path, ct, ct, body, gvk)
		item := path + "/" + name
		for _, accept := range types3 {
			got := v.must(200, "GET", item, "", accept, nil, gvk)
			if !equality.Semantic.DeepEqual(got, created) {
				t.Fatalf("%s in %s is not what was created in %s", item, accept, ct)
			}
			// What is written back as it was read changes nothing: defaulting is idempotent, the round trip lossless.
			if has("update") {
				if same := v.must(200, "PUT", item, accept, accept, encode(t, accept, got), gvk); !equality.Semantic.DeepEqual(same, created) {
					t.Errorf("%s: an update in %s that changes nothing made\n%s\nof\n%s", item, accept, encode(t, js, same), encode(t, js, created))
				}
				v.must(200, "PUT", item+"?dryRun=All", accept, accept, encode(t, accept, got), gvk)
			}
		}
		if has("patch") {
			for i, p := range []struct{ ct, body string }{
				{"application/json-patch+json", `[{"op":"add","path":"/metadata/labels/l","value":"0"}]`},
				{"application/merge-patch+json", `{"metadata":{"labels":{"l":"1"}}}`},
				{"application/strategic-merge-patch+json", `{"metadata":{"labels":{"l":"2"}}}`},
				{"application/apply-patch+yaml", fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata:\n  labels:\n    l: \"3\"\n", gvk.GroupVersion(), gvk.Kind)},
			} {
				query := ""
				if i == 3 {
					query = "?fieldManager=m&force=true"
				}
				obj := v.must(200, "PATCH", item+query, p.ct, ct, []byte(p.body), gvk)
				if l := obj.(metav1.Object).GetLabels()["l"]; l != fmt.Sprint(i) {
					t.Errorf("%s: label %q after %s", item, l, p.ct)
				}
			}
		}
		list := gvk
		list.Kind += "List"
		v.must(200, "GET", path+"?labelSelector=verbs", "", ct, nil, list)
		code, raw := v.do("GET", path+"?labelSelector=verbs", "", js+";as=Table;v=v1;g=meta.k8s.io", nil)
		var table metav1.Table
		if err := json.Unmarshal(raw, &table); code != 200 || err != nil || len(table.Rows) == 0 || len(table.Rows[0].Cells) != len(table.ColumnDefinitions) {
			t.Errorf("table of %s: %d, %v: %.300s", path, code, err, raw)
		}
	}
	if has("watch") {
		v.watch(path+"?labelSelector=verbs&watch=true", gvk)
	}
	if gvk.Kind == "Namespace" {
		return // stays until a controller has emptied it
	}
	if has("delete") {
		if code, raw := v.do("DELETE", path+"/of-json?dryRun=All", "", js, nil); code != 200 {
			t.Errorf("dry delete: %d %.300s", code, raw)
		}
		v.must(200, "GET", path+"/of-json", "", js, nil, gvk)
		if code, raw := v.do("DELETE", path+"/of-json?gracePeriodSeconds=0&propagationPolicy=Background", "", js, nil); code != 200 {
			t.Errorf("delete: %d %.300s", code, raw)
		}
		if code, _ := v.do("GET", path+"/of-json", "", js, nil); code != 404 {
			t.Errorf("there after it was deleted: %d", code)
		}
	}
	if has("deletecollection") {
		if code, raw := v.do("DELETE", path+"?labelSelector=verbs&gracePeriodSeconds=0&propagationPolicy=Background", "", js, nil); code != 200 {
			t.Errorf("deletecollection: %d %.300s", code, raw)
		}
		var left metav1.PartialObjectMetadataList
		if v.get(path+"?labelSelector=verbs", &left); len(left.Items) != 0 {
			t.Errorf("%d left after deletecollection", len(left.Items))
		}
	}
}

// watch reads the first event of a watch.
func (v verbs) watch(path string, gvk schema.GroupVersionKind) {
	v.t.Helper()
	ctx, cancel := context.WithCancel(v.t.Context())
	defer cancel()
	resp, err := v.client.Do(request(v.t, ctx, "GET", path, nil))
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	var e struct {
		Type   string
		Object metav1.PartialObjectMetadata
	}
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || e.Type != "ADDED" || e.Object.GroupVersionKind() != gvk {
		v.t.Errorf("watch of %s: %s %v, %v", path, e.Type, e.Object.GroupVersionKind(), err)
	}
}
