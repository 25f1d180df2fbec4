package ttlafterfinished

import (
	"context"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/view"
)

// Options configures a Controller.
type Options struct {
	controller.Common
}

// Controller reconciles Jobs that have finished.
type Controller struct {
	client client.WithWatch
	runner *controller.Runner
	jobs   *view.View[*batchv1.Job]
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	o.Common = o.Common.WithDefaults(5)
	ctl := &Controller{client: c}
	r, err := controller.New("ttl_jobs_to_delete", c, cc, ctl, controller.Options{
		Common:    o.Common,
		Component: "ttl-after-finished-controller",
		Setup:     func(ctx context.Context) error { return ctl.jobs.Start(ctx) },
		Sources: []controller.Source{controller.For(&batchv1.Job{}, predicate.NewPredicateFuncs(func(o client.Object) bool {
			j, ok := o.(*batchv1.Job)
			return ok && needsCleanup(j)
		}))},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.jobs = view.New(c, cc, &batchv1.Job{})
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

func needsCleanup(j *batchv1.Job) bool {
	_, done := finishTime(j)
	return done && j.Spec.TTLSecondsAfterFinished != nil && j.DeletionTimestamp == nil
}

func finishTime(j *batchv1.Job) (time.Time, bool) {
	for _, cond := range j.Status.Conditions {
		if (cond.Type == batchv1.JobComplete || cond.Type == batchv1.JobFailed) && cond.Status == corev1.ConditionTrue && !cond.LastTransitionTime.IsZero() {
			return cond.LastTransitionTime.Time, true
		}
	}
	return time.Time{}, false
}

// left is how long a job may stay.
func (c *Controller) left(j *batchv1.Job) time.Duration {
	end, _ := finishTime(j)
	return end.Add(time.Duration(*j.Spec.TTLSecondsAfterFinished) * time.Second).Sub(c.runner.Clock().Now())
}

// Reconcile deletes one Job whose time is over.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	j, err := c.jobs.Get(ctx, req.Namespace, req.Name)
	if err != nil || !needsCleanup(j) {
		return controller.Result{}, client.IgnoreNotFound(err)
	}
	if d := c.left(j); d > 0 {
		return controller.Result{RequeueAfter: d}, nil
	}
	// The time to live may have been prolonged just now.
	fresh := &batchv1.Job{}
	if err := c.client.Get(ctx, req.NamespacedName, fresh); err != nil {
		return controller.Result{}, client.IgnoreNotFound(err)
	}
	if fresh.UID != j.UID || !needsCleanup(fresh) {
		return controller.Result{}, nil
	}
	if d := c.left(fresh); d > 0 {
		return controller.Result{RequeueAfter: d}, nil
	}
	err = c.client.Delete(ctx, fresh, client.Preconditions{UID: &fresh.UID, ResourceVersion: &fresh.ResourceVersion}, client.PropagationPolicy(metav1.DeletePropagationForeground))
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return controller.Result{}, err
}
