package podgc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/pods"
	"github.com/keelson/keelson/controller/internal/view"
)

// Options configures a Controller.
type Options struct {
	controller.Common
	// Threshold is how many finished pods may stay; 0 means 12500, and below 0
	// any number.
	Threshold int
	// Period is how often it looks; 0 means 20s.
	Period time.Duration
	// Quarantine is how long a Node must have been gone; 0 means 40s.
	Quarantine time.Duration
}

// Controller collects pods.
type Controller struct {
	client client.WithWatch
	opts   Options
	runner *controller.Runner
	nodes  *view.View[*corev1.Node]
	pods   *view.View[*corev1.Pod]
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	if o.Period < 0 || o.Quarantine < 0 {
		return nil, fmt.Errorf("podgc: Options.Period and Quarantine are %v and %v, expected none below zero", o.Period, o.Quarantine)
	}
	if o.Threshold == 0 {
		o.Threshold = 12500
	}
	if o.Period == 0 {
		o.Period = 20 * time.Second
	}
	if o.Quarantine == 0 {
		o.Quarantine = 40 * time.Second
	}
	ctl := &Controller{client: c, opts: o}
	r, err := controller.New("pod_gc", c, cc, ctl, controller.Options{
		Common:    o.Common,
		Component: "pod-garbage-collector-controller",
		Setup: func(ctx context.Context) error {
			return view.StartAll(ctx, ctl.nodes, ctl.pods)
		},
		// Neither kind's events ask for anything: they are watched for their state.
		Sources: []controller.Source{
			controller.Mapped(&corev1.Node{}, nothing),
			controller.Mapped(&corev1.Pod{}, nothing),
		},
		Background: []func(context.Context) error{ctl.loop},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.nodes = view.New(c, cc, &corev1.Node{})
	ctl.pods = view.New(c, cc, &corev1.Pod{})
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

func nothing(context.Context, client.Object) []controller.Request { return nil }

func (c *Controller) loop(ctx context.Context) error {
	missing := map[string]time.Time{} // nodes, since when
	for {
		if err := c.collect(ctx, missing); err != nil && ctx.Err() == nil {
			c.runner.Logger().Error(err, "collecting pods")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.runner.Clock().After(c.opts.Period):
		}
	}
}

// Reconcile exists for the Runner; the work is periodic.
func (c *Controller) Reconcile(context.Context, controller.Request) (controller.Result, error) {
	return controller.Result{}, nil
}

func (c *Controller) collect(ctx context.Context, missing map[string]time.Time) error {
	all, err := c.pods.List(ctx)
	if err != nil {
		return err
	}
	nodes, err := c.nodes.List(ctx)
	if err != nil {
		return err
	}
	known := make(map[string]*corev1.Node, len(nodes))
	for _, n := range nodes {
		known[n.Name] = n
		delete(missing, n.Name)
	}
	now := c.runner.Clock().Now()
	var finished []*corev1.Pod
	orphans := map[string][]*corev1.Pod{}
	var errs []error
	for _, p := range all {
		n := known[p.Spec.NodeName]
		switch {
		case p.Spec.NodeName == "" && p.DeletionTimestamp != nil:
			errs = append(errs, c.delete(ctx, p, "", ""))
		case p.Spec.NodeName != "" && n == nil:
			orphans[p.Spec.NodeName] = append(orphans[p.Spec.NodeName], p)
		case p.DeletionTimestamp != nil && n != nil && outOfService(n):
			errs = append(errs, c.delete(ctx, p, "", ""))
		case pods.IsFinished(p):
			finished = append(finished, p)
		}
	}
	for name := range missing {
		if orphans[name] == nil {
			delete(missing, name)
		}
	}
	for name, ps := range orphans {
		if _, ok := missing[name]; !ok {
			missing[name] = now
		}
		if now.Sub(missing[name]) < c.opts.Quarantine {
			continue
		}
		err := c.client.Get(ctx, client.ObjectKey{Name: name}, &corev1.Node{})
		if err == nil {
			delete(missing, name)
			continue
		}
		if !apierrors.IsNotFound(err) {
			errs = append(errs, err)
			continue
		}
		for _, p := range ps {
			errs = append(errs, c.delete(ctx, p, "DeletionByPodGC", "PodGC: node no longer exists"))
		}
	}
	return errors.Join(append(errs, c.trim(ctx, finished))...)
}

// trim deletes the oldest finished pods beyond the threshold.
func (c *Controller) trim(ctx context.Context, finished []*corev1.Pod) error {
	surplus := len(finished) - c.opts.Threshold
	if c.opts.Threshold < 0 || surplus <= 0 {
		return nil
	}
	slices.SortFunc(finished, func(a, b *corev1.Pod) int {
		if n := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); n != 0 {
			return n
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return errors.Join(pods.Parallel(surplus, func(i int) error { return c.delete(ctx, finished[i], "", "") })...)
}

// outOfService says whether an operator has declared a node that is not ready
// to be dead.
func outOfService(n *corev1.Node) bool {
	for _, cond := range n.Status.Conditions {
		if cond.Type == corev1.NodeReady && cond.Status == corev1.ConditionTrue {
			return false
		}
	}
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

// delete deletes a pod at once. One that has not finished fails first, so that
// its controller counts it so.
func (c *Controller) delete(ctx context.Context, p *corev1.Pod, reason, message string) error {
	switch {
	case reason != "":
		if err := pods.Disrupt(ctx, c.client, p, reason, message, true, c.runner.Clock().Now()); err != nil {
			return client.IgnoreNotFound(err)
		}
	case !pods.IsFinished(p):
		out := p.DeepCopy()
		out.Status.Phase = corev1.PodFailed
		if err := c.client.Status().Patch(ctx, out, client.StrategicMergeFrom(p)); err != nil {
			return client.IgnoreNotFound(err)
		}
	}
	err := c.client.Delete(ctx, p, client.Preconditions{UID: &p.UID}, client.GracePeriodSeconds(0))
	if pods.IsGone(err) {
		return nil
	}
	return err
}
