package scheduler

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// BatchBinder may be implemented by the client given to New, which then is handed several bindings at once. The client that an API server of this
// module has for its own process does.
type BatchBinder interface {
	// BindPods does with each binding what SubResource("binding").Create would, in this order, and returns a nil or an error for each, the one that
	// Create would have returned. Each is authorized, admitted and committed by itself, with a resource version of its own: that one fails is
	// nothing to the others, and of two for one pod the second fails, as it does when a batch is tried again, for a pod is bound once. It returns when
	// all are answered. When ctx ends, those that are not committed fail with its error; of one that was under way it may not be known whether it was.
	// The bindings belong to BindPods, which may be called by several goroutines at once.
	BindPods(ctx context.Context, bindings []corev1.Binding) []error
}

// batches binds pods in batches: one is what has come while the one before was under way. None is larger than there are seats for binders.
type batches struct {
	c      *cycle
	binder BatchBinder

	mu      sync.Mutex
	waiting []*placed
	running bool
}

// newBatches returns nil if the client can't bind pods in batches.
func newBatches(c *cycle) *batches {
	if b, ok := c.s.client.(BatchBinder); ok {
		return &batches{c: c, binder: b}
	}
	return nil
}

// takes reports whether nobody but the API server binds the pod.
func (b *batches) takes(p *placed) bool {
	return b != nil && !b.c.s.outside.binds(p.pod) && len(p.prof.at(AtBind)) == 0
}

// add binds a pod that has a seat, with the next batch.
func (b *batches) add(p *placed) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(b.waiting, p)
	if !b.running {
		b.running = true
		b.c.wg.Go(b.run)
	}
}

// run binds batch after batch until nothing waits.
func (b *batches) run() {
	for {
		b.mu.Lock()
		batch := b.waiting
		b.waiting = nil
		b.running = len(batch) > 0
		b.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		b.bind(batch)
	}
}

func (b *batches) bind(batch []*placed) {
	s := b.c.s
	bindings := make([]corev1.Binding, len(batch))
	for i, p := range batch {
		bindings[i] = binding(p)
	}
	ctx, cancel := context.WithTimeout(b.c.ctx, s.opts.BindTimeout)
	errs := b.binder.BindPods(ctx, bindings)
	cancel()
	for i, p := range batch {
		err := fmt.Errorf("BindPods answered %d of %d bindings", len(errs), len(batch))
		if i < len(errs) {
			err = errs[i]
		}
		if err == nil && len(p.prof.at(AtPostBind)) == 0 {
			s.bound(b.c.ctx, p, nil)
			<-b.c.binders
			continue
		}
		if err != nil {
			err = rejected(err)
		}
		// What is to be done may take a while, for which the next batch doesn't wait.
		b.c.wg.Go(func() {
			defer func() { <-b.c.binders }()
			s.bound(b.c.ctx, p, err)
		})
	}
}

// binding is what binds a pod to its node.
func binding(p *placed) corev1.Binding {
	obj := p.pod.Object
	return corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: obj.Name, UID: obj.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: p.node},
	}
}

func rejected(err error) error { return fmt.Errorf("binding rejected: %w", err) }

// bindOne binds a pod through the API, by itself.
func bindOne(ctx context.Context, c client.Client, p *placed) error {
	b := binding(p)
	if err := c.SubResource("binding").Create(ctx, &corev1.Pod{ObjectMeta: b.ObjectMeta}, &b); err != nil {
		return rejected(err)
	}
	return nil
}
