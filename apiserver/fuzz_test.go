package apiserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/keelson/keelson/apiserver"
)

// What is fuzzed is asked of these.
const (
	fuzzNamespace  = "/api/v1/namespaces/default"
	fuzzPod        = fuzzNamespace + "/pods/p"
	fuzzDeployment = "/apis/apps/v1/namespaces/default/deployments/p"

	strategic = "application/strategic-merge-patch+json"
)

// fuzzed is a server with one object of some kinds, which requests find unchanged: all of them are dry runs.
type fuzzed struct{ *apiserver.Server }

func newFuzzed(f *testing.F) fuzzed {
	s := fuzzed{start(f, apiserver.Options{Tokens: map[string]user.Info{"admin": &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup}}}})}
	for _, x := range []struct{ path, body string }{
		{fuzzNamespace + "/serviceaccounts", `{"metadata":{"name":"default"}}`},
		{fuzzNamespace + "/pods", `{"metadata":{"name":"p","labels":{"a":"b"}},"spec":{"nodeName":"n","containers":[{"name":"c","image":"i"}]}}`},
		{fuzzNamespace + "/services", `{"metadata":{"name":"p"},"spec":{"ports":[{"port":80}]}}`},
		{fuzzNamespace + "/configmaps", `{"metadata":{"name":"p","labels":{"a":"b"},"finalizers":["a/b"]},"data":{"a":"b"}}`},
		{"/apis/apps/v1/namespaces/default/deployments", `{"metadata":{"name":"p"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`},
	} {
		if w := s.do(f, "POST", x.path, "", "application/json", []byte(x.body)); w.Code != http.StatusCreated {
			f.Fatalf("POST %s: %d %s", x.path, w.Code, w.Body)
		}
	}
	return s
}

// do answers a request and checks the form of the answer: what is refused is a Status with a reason, and nothing is the server's fault.
func (s fuzzed) do(t testing.TB, method, path, query, contentType string, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond) // ends watches
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, method, path, bytes.NewReader(body))
	r.URL = &url.URL{Path: path, RawQuery: query}
	r.Header.Set("Authorization", "Bearer admin")
	r.Header.Set("Accept", "application/json")
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if ctx.Err() != nil {
		return w // by now, what a client would not see
	}
	if w.Code < http.StatusBadRequest {
		return w
	}
	what := method + " " + path + "?" + query
	var status metav1.Status
	switch err := json.Unmarshal(w.Body.Bytes(), &status); {
	case err != nil:
		t.Errorf("%s: %d with no Status: %v: %q", what, w.Code, err, w.Body)
	case status.Kind != "Status" || status.APIVersion != "v1" || status.Status != metav1.StatusFailure || int(status.Code) != w.Code || status.Message == "":
		t.Errorf("%s: %d with an unfit Status: %s", what, w.Code, w.Body)
	case w.Code == http.StatusInternalServerError && status.Reason == "" && (contentType == strategic || plain.MatchString(status.Message)):
	case w.Code >= http.StatusInternalServerError || status.Reason == "" && w.Code != http.StatusUnprocessableEntity:
		t.Errorf("%s: %d %s", what, w.Code, w.Body)
	}
	return w
}

// plain are the requests' mistakes that kube-apiserver, too, answers with the code 500 and no reason; likewise most of strategic merge patches.
var plain = regexp.MustCompile(`^failed to create typed patch object|^resourceVersion: Invalid value|^resourceVersion should not be set|^strconv\.ParseUint`)

// FuzzSelectors: lists by any selectors are answered, and hold nothing that does not exist.
func FuzzSelectors(f *testing.F) {
	for _, x := range []struct{ labels, fields string }{
		{"a=b", "metadata.name=p"},
		{"a in (b, c),!d,e notin ()", "spec.nodeName!=n,status.phase=Pending"},
		{"a>1,b<2,c==d,e!=f", "metadata.namespace==default"},
		{"x/y.z in (,)", `metadata.name=a\,b\=c\\`},
		{"a=,=b,", "a.b.c=d"},
		{"!", ",=,"},
		{"a in (", "metadata.name"},
		{strings.Repeat("a=b,", 50), strings.Repeat("metadata.name=p,", 50)},
		{"\xff\x00=é", "metadata.name=\xff"},
	} {
		f.Add(x.labels, x.fields)
	}
	s := newFuzzed(f)
	f.Fuzz(func(t *testing.T, labels, fields string) {
		query := url.Values{"labelSelector": {labels}, "fieldSelector": {fields}}.Encode()
		for _, path := range []string{fuzzNamespace + "/pods", fuzzNamespace + "/configmaps"} {
			w := s.do(t, "GET", path, query, "", nil)
			if w.Code != http.StatusOK {
				continue
			}
			var list metav1.PartialObjectMetadataList
			if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
				t.Errorf("%s?%s: %v", path, query, err)
			}
			if len(list.Items) > 1 {
				t.Errorf("%s?%s: %d items of 1", path, query, len(list.Items))
			}
		}
		s.do(t, "DELETE", fuzzNamespace+"/configmaps", query+"&dryRun=All", "", nil)
	})
}

// FuzzContinue: a list goes on from any token, or says why not.
func FuzzContinue(f *testing.F) {
	s := newFuzzed(f)
	w := s.do(f, "GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles", "limit=2", "", nil)
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || list.Continue == "" {
		f.Fatalf("a page has no token: %v %s", err, w.Body)
	}
	for _, token := range []string{
		list.Continue, list.Continue[1:], "", "x", "e30", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiYSJ9",
		"eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiIvLi4vLi4vIn0", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6OTIyMzM3MjAzNjg1NDc3NTgwNywic3RhcnQiOiJhIn0",
	} {
		f.Add(token, int64(2), "")
	}
	f.Add(list.Continue, int64(-1), "5")
	f.Add(list.Continue, int64(1)<<62, "0")
	f.Fuzz(func(t *testing.T, token string, limit int64, rv string) {
		query := url.Values{"continue": {token}, "limit": {strconv.FormatInt(limit, 10)}}
		if rv != "" {
			query.Set("resourceVersion", rv)
		}
		s.do(t, "GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles", query.Encode(), "", nil)
		s.do(t, "GET", fuzzNamespace+"/pods", query.Encode(), "", nil)
	})
}

// FuzzListOptions: any query of a list, a watch or a delete is answered.
func FuzzListOptions(f *testing.F) {
	for _, q := range []string{
		"watch=1&timeoutSeconds=1", "watch=true&resourceVersion=0&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
		"watch=1&resourceVersion=9223372036854775807", "watch=1&resourceVersion=-1", "limit=1&resourceVersionMatch=Exact&resourceVersion=1",
		"resourceVersion=x", "resourceVersionMatch=Exact", "limit=99999999999999999999", "timeoutSeconds=-1", "watch=maybe", "sendInitialEvents=true",
		"labelSelector=a=b&labelSelector=c", "fieldManager=" + strings.Repeat("x", 200), "fieldValidation=Perhaps", "pretty=true&gracePeriodSeconds=-5&orphanDependents=x",
		"propagationPolicy=Away", "preconditions=x", "%zz=%", "force=2&a;b", "watch&watch=0&=&",
	} {
		f.Add(q)
	}
	s := newFuzzed(f)
	f.Fuzz(func(t *testing.T, query string) {
		s.do(t, "GET", fuzzNamespace+"/pods", query, "", nil)
		s.do(t, "GET", fuzzPod, query, "", nil)
		s.do(t, "DELETE", fuzzPod, "dryRun=All&"+query, "", nil)
	})
}

// FuzzPatch: any patch of any type is applied or refused.
func FuzzPatch(f *testing.F) {
	contentTypes := []string{"application/json-patch+json", "application/merge-patch+json", strategic, "application/apply-patch+yaml"}
	for _, x := range []struct {
		kind uint8
		body string
	}{
		{0, `[{"op":"add","path":"/metadata/labels/x","value":"y"},{"op":"test","path":"/spec","value":null}]`},
		{0, `[{"op":"copy","from":"/spec","path":"/metadata/annotations"},{"op":"move","from":"/metadata","path":"/x"},{"op":"remove","path":""}]`},
		{0, `[{"op":"replace","path":"/spec/containers/-1","value":{}},{"op":"add","path":"/spec/containers/99999999999999999999","value":1}]`},
		{0, `[{"op":"add","path":"","value":null}]`},
		{0, `[{"op":"add","path":"/a~2b/~","value":[[[[]]]]},null]`},
		{1, `{"metadata":{"labels":{"a":null},"name":"other","finalizers":[1]},"spec":null}`},
		{1, `[1,2]`},
		{1, `{"kind":"Deployment","apiVersion":"apps/v1beta1","status":{"phase":5}}`},
		{2, `{"spec":{"containers":[{"$patch":"delete","name":"c"}],"$setElementOrder/containers":[{"name":"x"}]}}`},
		{2, `{"spec":{"$patch":"replace"},"metadata":{"$deleteFromPrimitiveList/finalizers":["x"],"$retainKeys":["a"]}}`},
		{2, `{"spec":{"containers":[{"ports":[{"containerPort":"x","$patch":"merge"}]},5,null]}}`},
		{3, "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: j}]}\n"},
		{3, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: p, managedFields: [{}]}\nspec: {replicas: 1, template: {spec: {containers: [{name: c}, {name: c}]}}}\n"},
		{3, "a: &a [*a, *a]\n"},
		{3, "a: &a [1]\nb: [*a, *a]\n? [x]\n: !!binary z\n"},
		{3, "{{{"},
		{3, ""},
	} {
		f.Add(x.kind, x.body)
	}
	s := newFuzzed(f)
	f.Fuzz(func(t *testing.T, kind uint8, body string) {
		for _, path := range []string{fuzzPod, fuzzPod + "/status", fuzzDeployment, fuzzDeployment + "/scale", fuzzNamespace + "/services/p", fuzzNamespace + "/configmaps/p"} {
			s.do(t, "PATCH", path, "dryRun=All&fieldManager=f&fieldValidation=Warn", contentTypes[int(kind)%len(contentTypes)], []byte(body))
		}
	})
}

// FuzzBody: any body in any format is decoded or refused.
func FuzzBody(f *testing.F) {
	contentTypes := []string{"application/json", "application/yaml", runtime.ContentTypeProtobuf}
	for _, body := range []string{
		`{"metadata":{"name":"x"},"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"1e9999"}}}]}}`,
		`{"kind":"Pod","apiVersion":"v2","metadata":{"name":"../x"},"unknown":1,"unknown":2}`,
		`{"metadata":{"name":"x","creationTimestamp":"yesterday","labels":{"":"\u0000"}},"spec":{"selector":{"matchExpressions":[{"operator":"In"}]},"replicas":-1}}`,
		`{"metadata":{"generateName":"x","ownerReferences":[{}]},"data":{"a":5},"binaryData":{"a":"%"}}`,
		`{"spec":{"ports":[{"port":0,"targetPort":{}}],"clusterIP":"300.0.0.1","ipFamilies":["x"]}}`,
		strings.Repeat(`{"spec":`, 2000), strings.Repeat("[", 20000), `"`, `null`, `5`, ``,
		"metadata:\n  name: x\n---\nmetadata:\n  name: y\n", "a: &a {b: *a}\n", "? {x: y}\n: z\n", "\tx", "k8s\x00", "k8s\x00\x0a\x00\x12\xff\xff\xff\xff\x0f",
	} {
		f.Add(uint8(0), body)
		f.Add(uint8(1), body)
		f.Add(uint8(2), body)
	}
	for _, obj := range []runtime.Object{
		&corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: "x", Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}},
		&appsv1.Deployment{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: metav1.ObjectMeta{Name: "x"}},
		&metav1.DeleteOptions{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"}},
	} {
		raw, err := runtime.Encode(protobuf.NewSerializer(scheme.Scheme, scheme.Scheme), obj)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(2), string(raw))
		f.Add(uint8(2), string(raw[:len(raw)-3]))
	}
	s := newFuzzed(f)
	f.Fuzz(func(t *testing.T, format uint8, body string) {
		contentType := contentTypes[int(format)%len(contentTypes)]
		for _, x := range []struct{ method, path string }{
			{"POST", fuzzNamespace + "/pods"},
			{"POST", fuzzNamespace + "/services"},
			{"POST", fuzzNamespace + "/configmaps"},
			{"POST", "/apis/apps/v1/namespaces/default/deployments"},
			{"POST", fuzzPod + "/eviction"},
			{"POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews"},
			{"PUT", fuzzPod},
			{"PUT", fuzzDeployment + "/scale"},
			{"DELETE", fuzzNamespace + "/configmaps/p"},
		} {
			s.do(t, x.method, x.path, "dryRun=All&fieldValidation=Strict", contentType, []byte(body))
		}
	})
}
