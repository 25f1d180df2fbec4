package compose

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/store/memstore"
)

// Main runs the main function of a demonstration, which has a minute.
func Main(name string, run func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1) //nolint:gocritic // what is deferred ends with the process
	}
}

// Demo runs a cluster in a temporary directory for as long as use takes, on a store in memory if it is given none.
func Demo(ctx context.Context, o Options, use func(context.Context, *Cluster) error) (err error) {
	if o.Store == nil {
		s, err := memstore.New(memstore.Options{})
		if err != nil {
			return err
		}
		defer s.Close()
		o.Store = s
	}
	if o.Dir, err = os.MkdirTemp("", "keelson-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.Dir)) }()
	o.KillPods = true
	c, err := New(o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	var failed error
	go func() {
		defer close(done)
		failed = c.Run(ctx)
		cancel(failed)
	}()
	err = c.Server.WaitReady(ctx)
	if err == nil {
		err = use(ctx, c)
	}
	cancel(nil)
	<-done
	return errors.Join(failed, err)
}

// Poll waits until f answers true.
func Poll(ctx context.Context, f func() (bool, error)) error {
	for {
		if ok, err := f(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Label waits for a node and sets a label on it.
func Label(ctx context.Context, api client.Client, node, key, value string) error {
	var n corev1.Node
	err := Poll(ctx, func() (bool, error) {
		err := api.Get(ctx, types.NamespacedName{Name: node}, &n)
		return err == nil, client.IgnoreNotFound(err)
	})
	if err != nil {
		return err
	}
	before := n.DeepCopy()
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[key] = value
	return api.Patch(ctx, &n, client.MergeFrom(before))
}
