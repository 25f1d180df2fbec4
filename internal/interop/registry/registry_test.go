package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/test/integration/etcd"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/internal/interop/stock"
	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/etcdserve"
	"github.com/keelson/keelson/store/etcdserve/etcdservetest"
	"github.com/keelson/keelson/store/memstore"
)

const namespace = "everything"

// disabled are admission plugins that need controllers or mind what the objects of the test refer to.
func disabled() []string {
	return []string{"ServiceAccount", "TaintNodesByCondition", "Priority"}
}

// server is an API server of either kind.
type server struct {
	t      *testing.T
	client dynamic.Interface
	kinds  map[schema.GroupVersionResource]metav1.APIResource
}

// kube runs kube-apiserver on a store while f runs.
func kube(t *testing.T, s store.Store, dir string, f func(*server)) {
	t.Helper()
	url, _ := etcdservetest.Serve(t, s, etcdserve.Options{})
	api := stock.APIServer(t, stock.APIServerOptions{
		Etcd: []string{url}, Dir: dir, Args: []string{"--disable-admission-plugins=" + strings.Join(disabled(), ",")},
	})
	f(connect(t, api.Config))
	api.Stop()
}

// keelson runs Keelson's API server on a store while f runs.
func keelson(t *testing.T, s store.Store, dir string, f func(*server)) {
	t.Helper()
	api, err := apiserver.New(s, apiserver.Options{
		Dir: dir, ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix(stock.ServiceCIDR)}, DisableAdmission: disabled(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- api.Run(ctx) }()
	if err := api.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	f(connect(t, api.RESTConfig(apiserver.Admin)))
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func connect(t *testing.T, cfg *rest.Config) *server {
	t.Helper()
	cfg = rest.CopyConfig(cfg)
	cfg.QPS, cfg.WarningHandler = -1, rest.NoWarnings{}
	s := &server{t: t, kinds: map[schema.GroupVersionResource]metav1.APIResource{}}
	var err error
	if s.client, err = dynamic.NewForConfig(cfg); err != nil {
		t.Fatal(err)
	}
	d, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, lists, err := d.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range l.APIResources {
			s.kinds[gv.WithResource(r.Name)] = r
		}
	}
	return s
}

func (s *server) resource(r schema.GroupVersionResource) dynamic.ResourceInterface {
	if s.kinds[r].Namespaced {
		return s.client.Resource(r).Namespace(namespace)
	}
	return s.client.Resource(r)
}

// put creates the object that a stub describes.
func (s *server) put(r schema.GroupVersionResource, stub string) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal([]byte(stub), &u.Object); err != nil {
		return nil, err
	}
	u.SetGroupVersionKind(r.GroupVersion().WithKind(s.kinds[r].Kind))
	return s.resource(r).Create(s.t.Context(), u, metav1.CreateOptions{})
}

// object is an object that a server has stored.
type object struct {
	resource schema.GroupVersionResource
	key      string // of the store
	kind     schema.GroupVersionKind
	content  *unstructured.Unstructured // as a server answers
}

// createAll stores an object of each kind that the server serves.
func (s *server) createAll() (out []object) {
	t := s.t
	t.Helper()
	if _, err := s.put(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, `{"metadata":{"name":"`+namespace+`"}}`); err != nil {
		t.Fatal(err)
	}
	data := etcd.GetEtcdStorageDataForNamespace(namespace)
	for _, r := range sorted(data) {
		if _, ok := s.kinds[r]; !ok {
			continue
		}
		d := data[r]
		for _, p := range d.Prerequisites {
			if _, err := s.put(p.GvrData, p.Stub); err != nil && !apierrors.IsAlreadyExists(err) {
				t.Errorf("%s, which %s need: %v", p.GvrData, r, err)
			}
		}
		u, err := s.put(r, d.Stub)
		if err != nil {
			t.Errorf("%s: %v", r, err)
			continue
		}
		kind := u.GroupVersionKind()
		if d.ExpectedGVK != nil {
			kind = *d.ExpectedGVK
		}
		out = append(out, object{resource: r, key: d.ExpectedEtcdPath, kind: kind, content: u})
	}
	return out
}

func sorted(data map[schema.GroupVersionResource]etcd.StorageData) []schema.GroupVersionResource {
	var out []schema.GroupVersionResource
	for r := range data {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b schema.GroupVersionResource) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// get returns an object as the server has it, nil if it does not serve its kind.
func (s *server) get(o *object) *unstructured.Unstructured {
	s.t.Helper()
	if _, ok := s.kinds[o.resource]; !ok {
		return nil
	}
	u, err := s.resource(o.resource).Get(s.t.Context(), o.content.GetName(), metav1.GetOptions{})
	if err != nil {
		s.t.Errorf("%s: %v", o.resource, err)
		return nil
	}
	return u
}

// same checks that the server has objects as another has answered for them, and returns those whose kinds it serves.
func (s *server) same(objects []object) (served []object) {
	s.t.Helper()
	for _, o := range objects {
		u := s.get(&o)
		if u == nil {
			continue
		}
		served = append(served, o)
		if diff := cmp.Diff(o.content.Object, u.Object); diff != "" {
			s.t.Errorf("%s is not the same (-stored +served):\n%s", o.resource, diff)
		}
	}
	return served
}

// label adds a label to each of some objects.
func (s *server) label(objects []object) (out []object) {
	s.t.Helper()
	for _, o := range objects {
		u, err := s.resource(o.resource).Patch(s.t.Context(), o.content.GetName(), types.MergePatchType,
			[]byte(`{"metadata":{"labels":{"seen":"yes"}}}`), metav1.PatchOptions{})
		if err != nil {
			s.t.Errorf("%s: %v", o.resource, err)
			continue
		}
		o.content = u
		out = append(out, o)
	}
	return out
}

// refusesTaken checks that no second Service gets the address or the node port of one that is there.
func (s *server) refusesTaken(objects []object) {
	s.t.Helper()
	services := schema.GroupVersionResource{Version: "v1", Resource: "services"}
	i := slices.IndexFunc(objects, func(o object) bool { return o.resource == services })
	if i < 0 {
		s.t.Error("there is no Service")
		return
	}
	address, _, _ := unstructured.NestedString(objects[i].content.Object, "spec", "clusterIP")
	ports, _, _ := unstructured.NestedSlice(objects[i].content.Object, "spec", "ports")
	port, _, _ := unstructured.NestedInt64(ports[0].(map[string]any), "nodePort")
	for what, stub := range map[string]string{
		"address":   fmt.Sprintf(`{"metadata":{"name":"second"},"spec":{"clusterIP":%q,"ports":[{"port":1}]}}`, address),
		"node port": fmt.Sprintf(`{"metadata":{"name":"second"},"spec":{"type":"NodePort","ports":[{"port":1,"nodePort":%d}]}}`, port),
	} {
		if _, err := s.put(services, stub); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "already allocated") {
			s.t.Errorf("a second Service with the %s of the first: %v", what, err)
		}
	}
}

// stored checks the keys and the envelopes of what is stored.
func stored(t *testing.T, s store.Store, objects []object) {
	t.Helper()
	for _, o := range objects {
		res, err := s.Get(t.Context(), o.key, 0)
		if err != nil {
			t.Fatal(err)
		}
		if res.KV == nil {
			t.Errorf("there is no %s", o.key)
			continue
		}
		kind, err := envelope(res.KV.Value)
		if err != nil || kind != o.kind {
			t.Errorf("%s has a %s, %v; want a %s", o.key, kind, err, o.kind)
		}
	}
}

// envelope returns the kind that a stored value says it is.
func envelope(b []byte) (schema.GroupVersionKind, error) {
	var unknown runtime.Unknown
	if b, ok := bytes.CutPrefix(b, []byte("k8s\x00")); ok {
		err := unknown.Unmarshal(b)
		return unknown.GroupVersionKind(), err
	}
	var meta metav1.TypeMeta
	if err := json.Unmarshal(b, &meta); err != nil {
		return schema.GroupVersionKind{}, err
	}
	if meta.Kind == "" {
		return schema.GroupVersionKind{}, errors.New("neither protobuf nor an object in JSON")
	}
	return meta.GroupVersionKind(), nil
}

func newMem(t *testing.T) store.Store {
	t.Helper()
	s, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// enough is how many kinds at least the two servers have in common.
const enough = 40

// What kube-apiserver has stored Keelson serves, unchanged; and what Keelson then has changed, kube-apiserver.
func TestKubeThenKeelson(t *testing.T) {
	s, dir := newMem(t), t.TempDir()
	var objects []object
	kube(t, s, dir, func(api *server) {
		objects = api.createAll()
		for i := range objects {
			if u := api.get(&objects[i]); u != nil { // controllers of the server may have had a hand in it
				objects[i].content = u
			}
		}
	})
	stored(t, s, objects)
	keelson(t, s, dir, func(api *server) {
		served := api.same(objects)
		if len(served) < enough {
			t.Errorf("Keelson serves %d of the kinds of kube-apiserver, want at least %d", len(served), enough)
		}
		t.Logf("%d kinds of kube-apiserver, %d of both", len(objects), len(served))
		objects = api.label(served)
		api.refusesTaken(objects)
	})
	kube(t, s, dir, func(api *server) {
		api.same(objects)
		api.refusesTaken(objects)
	})
}

// What Keelson has stored kube-apiserver serves, unchanged.
func TestKeelsonThenKube(t *testing.T) {
	s, dir := newMem(t), t.TempDir()
	var objects []object
	keelson(t, s, dir, func(api *server) { objects = api.createAll() })
	if len(objects) < enough {
		t.Errorf("Keelson serves %d kinds, want at least %d", len(objects), enough)
	}
	stored(t, s, objects)
	kube(t, s, dir, func(api *server) {
		api.same(objects)
		api.refusesTaken(objects)
	})
}
