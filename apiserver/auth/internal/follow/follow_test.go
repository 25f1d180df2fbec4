package follow_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/auth/internal/follow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type names struct {
	mu sync.Mutex
	m  map[string]bool
}

func (n *names) Set(o client.Object) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.m[o.GetName()] = true
}

func (n *names) Delete(o client.Object) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.m, o.GetName())
}

func (n *names) list() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.m))
}

// some serves no Secrets, and is broken for Nodes.
type some struct {
	*informertest.FakeInformers
}

var errBroken = errors.New("broken")

func (s some) GetInformer(ctx context.Context, o client.Object, opts ...cache.InformerGetOption) (cache.Informer, error) {
	switch o.(type) {
	case *corev1.Secret:
		return nil, &meta.NoKindMatchError{GroupKind: corev1.SchemeGroupVersion.WithKind("Secret").GroupKind()}
	case *corev1.Node:
		return nil, errBroken
	}
	return s.FakeInformers.GetInformer(ctx, o, opts...)
}

func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	informers := some{&informertest.FakeInformers{Scheme: scheme.Scheme}}
	told := &names{m: map[string]bool{}}
	synced, done := make(chan struct{}), make(chan error, 1)
	go func() {
		kinds := []client.Object{&corev1.Secret{}, &corev1.ConfigMap{}}
		done <- follow.Run(ctx, informers, kinds, told, logr.Discard(), func() { close(synced) })
	}()
	<-synced
	configs, err := informers.FakeInformerFor(ctx, &corev1.ConfigMap{})
	if err != nil {
		t.Fatal(err)
	}
	named := func(name string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	}
	configs.Add(named("a"))
	configs.Add(named("b"))
	configs.Update(named("b"), named("c"))
	configs.Delete(named("a"))
	if diff := cmp.Diff([]string{"b", "c"}, told.list()); diff != "" {
		t.Error(diff)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := follow.Run(t.Context(), informers, []client.Object{&corev1.Node{}}, told, logr.Discard(), func() { t.Error("synced") }); !errors.Is(err, errBroken) {
		t.Errorf("broken informer: %v", err)
	}
}
