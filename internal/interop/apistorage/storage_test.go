package apistorage

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/api/apitesting"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/utils/clock"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/boltstore"
	"github.com/keelson/keelson/store/etcdserve"
	"github.com/keelson/keelson/store/etcdserve/etcdservetest"
	"github.com/keelson/keelson/store/memstore"
)

const valuePrefix = "test!"

// newStore makes the stores that are served.
type newStore func(t *testing.T) store.Store

func stores() map[string]newStore {
	return map[string]newStore{
		"memory": func(t *testing.T) store.Store {
			s, err := memstore.New(memstore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		"bolt": func(t *testing.T) store.Store {
			s, err := boltstore.Open(filepath.Join(t.TempDir(), "store"), boltstore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	}
}

// serve serves a store until the test ends, and returns a client that counts its requests.
func serve(t *testing.T, s store.Store) *kubernetes.Client {
	t.Helper()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	url, _ := etcdservetest.Serve(t, s, etcdserve.Options{ProgressInterval: time.Second})
	c, err := kubernetes.New(clientv3.Config{Endpoints: []string{url}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	lists := storagetesting.NewKubernetesRecorder(c.Kubernetes)
	c.KV = storagetesting.NewKVRecorder(c.KV, lists)
	c.Kubernetes = lists
	return c
}

// transformer is a value.Transformer that can be exchanged, and made to fail, while a storage uses it.
type transformer struct {
	now  atomic.Pointer[current]
	fail atomic.Bool
}

type current struct{ value.Transformer }

var errMadeUp = errors.New("made up")

func (tr *transformer) TransformFromStorage(ctx context.Context, data []byte, c value.Context) ([]byte, bool, error) {
	if tr.fail.Load() {
		return nil, false, errMadeUp
	}
	return tr.now.Load().TransformFromStorage(ctx, data, c)
}

func (tr *transformer) TransformToStorage(ctx context.Context, data []byte, c value.Context) ([]byte, error) {
	return tr.now.Load().TransformToStorage(ctx, data, c)
}

// codec can be made to fail.
type codec struct {
	runtime.Codec
	fail atomic.Bool
}

func (c *codec) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if c.fail.Load() {
		return nil, nil, errMadeUp
	}
	return c.Codec.Decode(data, defaults, into)
}

// fixture is one storage on a store of its own.
type fixture struct {
	storage.Interface
	client      *kubernetes.Client
	codec       *codec
	transformer *transformer
	compacted   func() int64
}

func newFixture(t *testing.T, s newStore) *fixture {
	t.Helper()
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	for _, add := range []func(*runtime.Scheme) error{example.AddToScheme, examplev1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	f := &fixture{
		client: serve(t, s(t)), transformer: &transformer{},
		codec: &codec{Codec: apitesting.TestCodec(serializer.NewCodecFactory(scheme), examplev1.SchemeGroupVersion)},
	}
	f.transformer.now.Store(&current{storagetesting.NewPrefixTransformer([]byte(valuePrefix), false)})
	versioner := storage.APIObjectVersioner{}
	compactor := etcd3.NewCompactor(f.client.Client, 0, clock.RealClock{}, nil)
	t.Cleanup(compactor.Stop)
	leases := etcd3.NewDefaultLeaseManagerConfig()
	leases.ReuseDurationSeconds = 1
	st, err := etcd3.New(f.client, compactor, f.codec, func() runtime.Object { return &example.Pod{} }, func() runtime.Object { return &example.PodList{} },
		"", "/pods/", schema.GroupResource{Resource: "pods"}, f.transformer, leases, etcd3.NewDefaultDecoder(f.codec, versioner), versioner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	f.Interface, f.compacted = st, st.CompactRevision
	return f
}

// prefix is the transformer while nobody has exchanged it.
func (f *fixture) prefix() *storagetesting.PrefixTransformer {
	return f.transformer.now.Load().Transformer.(*storagetesting.PrefixTransformer)
}

// UpdatePrefixTransformer implements storagetesting.InterfaceWithPrefixTransformer.
func (f *fixture) UpdatePrefixTransformer(modify storagetesting.PrefixTransformerModifier) func() {
	before := f.transformer.now.Load()
	changed := *f.prefix()
	f.transformer.now.Store(&current{modify(&changed)})
	return func() { f.transformer.now.Store(before) }
}

// valid checks that what is stored does not say at which revision.
func (f *fixture) valid(ctx context.Context, t *testing.T, key string) {
	t.Helper()
	res, err := f.client.KV.Get(ctx, key)
	if err != nil || len(res.Kvs) != 1 {
		t.Fatalf("%s: %+v, %v", key, res, err)
	}
	obj, err := runtime.Decode(f.codec, res.Kvs[0].Value[len(valuePrefix):])
	if err != nil {
		t.Fatal(err)
	}
	if pod := obj.(*example.Pod); pod.ResourceVersion != "" {
		t.Errorf("%s is stored with its version %q", key, pod.ResourceVersion)
	}
}

// increase raises the revision.
func (f *fixture) increase(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	res, err := f.client.KV.Put(ctx, "increaseRV", "ok")
	if err != nil {
		t.Fatal(err)
	}
	return res.Header.Revision
}

// compact compacts as kube-apiserver does, and waits until the storage knows.
func (f *fixture) compact(ctx context.Context, t *testing.T, resourceVersion string) {
	t.Helper()
	rev, err := storage.APIObjectVersioner{}.ParseResourceVersion(resourceVersion)
	if err != nil {
		t.Fatal(err)
	}
	at, _, _, err := etcd3.Compact(ctx, f.client.Client, 0, int64(rev))
	if err != nil {
		_, _, _, err = etcd3.Compact(ctx, f.client.Client, at, int64(rev))
	}
	if err != nil {
		t.Fatal(err)
	}
	if !utilfeature.DefaultFeatureGate.Enabled(features.ListFromCacheSnapshot) {
		return
	}
	for deadline := time.Now().Add(30 * time.Second); f.compacted() != int64(rev); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the storage believes that %d is compacted, want %d", f.compacted(), rev)
		}
	}
}

// maxPage is how large the pages of etcd3 become.
const maxPage = 10000

// calls checks how many requests a list has made, for pages that double.
func (f *fixture) calls(t *testing.T, pageSize, objects uint64) {
	t.Helper()
	if reads := f.prefix().GetReadsAndReset(); reads != objects {
		t.Errorf("%d objects were read, want %d", reads, objects)
	}
	want := uint64(1)
	if limit := pageSize; pageSize != 0 {
		for sum := uint64(1); sum < objects; want++ {
			limit = min(2*limit, maxPage)
			sum += limit
		}
	}
	kv := f.client.KV.(*storagetesting.KVRecorder)
	if got := kv.GetReadsAndReset() + kv.GetStreamReadsAndReset(); got != want {
		t.Errorf("there were %d requests, want %d", got, want)
	}
}
