package cronjob

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/expect"
	"github.com/keelson/keelson/controller/internal/view"
)

var kind = batchv1.SchemeGroupVersion.WithKind("CronJob")

// leeway is added to waits, so that a time has come when it is looked at.
const leeway = 100 * time.Millisecond

// Options configures a Controller.
type Options struct {
	controller.Common
}

// Controller reconciles CronJobs.
type Controller struct {
	client client.WithWatch
	runner *controller.Runner
	crons  *view.View[*batchv1.CronJob]
	jobs   *view.View[*batchv1.Job]
	wrote  expect.Versions
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	o.Common = o.Common.WithDefaults(5)
	ctl := &Controller{client: c}
	r, err := controller.New("cronjob", c, cc, ctl, controller.Options{
		Common: o.Common,
		Setup: func(ctx context.Context) error {
			return view.StartAll(ctx, ctl.crons, ctl.jobs)
		},
		Sources: []controller.Source{
			controller.For(&batchv1.CronJob{}),
			controller.Owned(&batchv1.Job{}, kind),
		},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.crons = view.New(c, cc, &batchv1.CronJob{})
	ctl.jobs = view.New(c, cc, &batchv1.Job{}, view.Controller())
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

// Reconcile makes the Job of one CronJob that is due, and cleans up after others.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	cached, err := c.crons.Get(ctx, req.Namespace, req.Name)
	if apierrors.IsNotFound(err) {
		c.wrote.Forget(req.NamespacedName)
		return controller.Result{}, nil
	}
	if err != nil {
		return controller.Result{}, err
	}
	if c.wrote.Stale(req.NamespacedName, cached.UID, cached.ResourceVersion) {
		return controller.Result{RequeueAfter: time.Second}, nil
	}
	cj := cached.DeepCopy()
	jobs, err := c.jobs.By(ctx, view.Controller(), view.OwnedBy(cj.UID))
	if err != nil {
		return controller.Result{}, err
	}
	if err := c.follow(ctx, cj, jobs); err != nil {
		return controller.Result{}, err
	}
	next, workErr := c.sync(ctx, cj, jobs)
	if err := c.writeStatus(ctx, cached, cj); err != nil {
		return controller.Result{}, err
	}
	if workErr != nil {
		return controller.Result{}, workErr
	}
	return controller.Result{RequeueAfter: next}, c.trim(ctx, cj, jobs)
}

func (c *Controller) writeStatus(ctx context.Context, was, cj *batchv1.CronJob) error {
	if equality.Semantic.DeepEqual(was.Status, cj.Status) {
		return nil
	}
	out := cj.DeepCopy()
	if err := c.client.Status().Update(ctx, out); err != nil {
		return client.IgnoreNotFound(err)
	}
	c.wrote.Wrote(client.ObjectKeyFromObject(out), out.UID, out.ResourceVersion)
	return nil
}

// finished returns the condition that ended a job, if it has.
func finished(j *batchv1.Job) (batchv1.JobConditionType, bool) {
	for _, cond := range j.Status.Conditions {
		if (cond.Type == batchv1.JobComplete || cond.Type == batchv1.JobFailed) && cond.Status == corev1.ConditionTrue {
			return cond.Type, true
		}
	}
	return "", false
}

// follow keeps the list of active jobs true.
func (c *Controller) follow(ctx context.Context, cj *batchv1.CronJob, jobs []*batchv1.Job) error {
	known := map[any]bool{}
	rec := c.runner.Recorder()
	isActive := func(j *batchv1.Job) int {
		return slices.IndexFunc(cj.Status.Active, func(r corev1.ObjectReference) bool { return r.UID == j.UID })
	}
	for _, j := range jobs {
		known[j.UID] = true
		i := isActive(j)
		end, done := finished(j)
		switch {
		case !done && i < 0:
			rec.Eventf(cj, corev1.EventTypeWarning, "UnexpectedJob", "Saw a job that the controller did not create or forgot: %s", j.Name)
		case done && i >= 0:
			cj.Status.Active = slices.Delete(cj.Status.Active, i, i+1)
			rec.Eventf(cj, corev1.EventTypeNormal, "SawCompletedJob", "Saw completed job: %s, condition: %v", j.Name, end)
		}
		if done && end == batchv1.JobComplete && j.Status.CompletionTime != nil &&
			(cj.Status.LastSuccessfulTime == nil || j.Status.CompletionTime.After(cj.Status.LastSuccessfulTime.Time)) {
			cj.Status.LastSuccessfulTime = j.Status.CompletionTime.DeepCopy()
		}
	}
	for _, ref := range slices.Clone(cj.Status.Active) {
		if known[ref.UID] {
			continue
		}
		j := &batchv1.Job{}
		err := c.client.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, j)
		switch {
		case apierrors.IsNotFound(err) || err == nil && j.UID != ref.UID:
			rec.Eventf(cj, corev1.EventTypeNormal, "MissingJob", "Active job went missing: %v", ref.Name)
			cj.Status.Active = slices.DeleteFunc(cj.Status.Active, func(r corev1.ObjectReference) bool { return r.UID == ref.UID })
		case err != nil:
			return err
		}
	}
	return nil
}

// sync makes the job that is due and says when to look again.
func (c *Controller) sync(ctx context.Context, cj *batchv1.CronJob, jobs []*batchv1.Job) (time.Duration, error) {
	rec := c.runner.Recorder()
	if cj.DeletionTimestamp != nil || cj.Spec.Suspend != nil && *cj.Spec.Suspend {
		return 0, nil
	}
	if tz := cj.Spec.TimeZone; tz != nil {
		if _, err := time.LoadLocation(*tz); err != nil {
			rec.Eventf(cj, corev1.EventTypeWarning, "UnknownTimeZone", "invalid timeZone: %q: %s", *tz, err)
			return 0, nil
		}
	}
	schedule, err := parse(cj)
	if err != nil {
		rec.Eventf(cj, corev1.EventTypeWarning, "UnparseableSchedule", "unparseable schedule: %q : %s", cj.Spec.Schedule, err)
		return 0, nil
	}
	now := c.runner.Clock().Now()
	due, n, err := missed(cj, schedule, now)
	if err != nil {
		rec.Eventf(cj, corev1.EventTypeWarning, "InvalidSchedule", "invalid schedule: %s : %s", cj.Spec.Schedule, err)
		return 0, nil
	}
	if n > manyMissed {
		rec.Eventf(cj, corev1.EventTypeWarning, "TooManyMissedTimes", "too many missed start times: %d. Set or decrease .spec.startingDeadlineSeconds or check clock skew", n)
	}
	var next time.Duration
	if t := schedule.Next(now); !t.IsZero() {
		next = t.Sub(now) + leeway
	}
	if due == nil {
		return next, nil
	}
	if d := cj.Spec.StartingDeadlineSeconds; d != nil && due.Add(time.Duration(*d)*time.Second).Before(now) {
		rec.Eventf(cj, corev1.EventTypeWarning, "MissSchedule", "Missed scheduled time to start a job: %s", due.UTC().Format(time.RFC1123Z))
		return next, nil
	}
	name := jobName(cj, *due)
	if slices.ContainsFunc(cj.Status.Active, func(r corev1.ObjectReference) bool { return r.Name == name }) ||
		cj.Status.LastScheduleTime != nil && cj.Status.LastScheduleTime.Time.Equal(*due) {
		return next, nil
	}
	if len(cj.Status.Active) > 0 {
		switch cj.Spec.ConcurrencyPolicy {
		case batchv1.ForbidConcurrent:
			rec.Eventf(cj, corev1.EventTypeNormal, "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid")
			return next, nil
		case batchv1.ReplaceConcurrent:
			for _, ref := range slices.Clone(cj.Status.Active) {
				if err := c.delete(ctx, cj, ref); err != nil {
					return 0, err
				}
			}
		}
	}
	j := newJob(cj, name, *due)
	err = c.client.Create(ctx, j)
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return 0, nil
	case apierrors.IsAlreadyExists(err):
		// Made by this controller, but the status was not written.
		if err := c.client.Get(ctx, client.ObjectKeyFromObject(j), j); err != nil {
			return 0, err
		}
		if !metav1.IsControlledBy(j, cj) {
			rec.Eventf(cj, corev1.EventTypeWarning, "FailedCreate", "Error creating job: %v", err)
			return 0, err
		}
		if _, done := finished(j); done {
			cj.Status.LastScheduleTime = &metav1.Time{Time: *due}
			return next, nil
		}
	case err != nil:
		rec.Eventf(cj, corev1.EventTypeWarning, "FailedCreate", "Error creating job: %v", err)
		return 0, err
	default:
		rec.Eventf(cj, corev1.EventTypeNormal, "SuccessfulCreate", "Created job %v", j.Name)
	}
	cj.Status.Active = append(cj.Status.Active, corev1.ObjectReference{
		APIVersion: batchv1.SchemeGroupVersion.String(), Kind: "Job", Namespace: j.Namespace, Name: j.Name, UID: j.UID, ResourceVersion: j.ResourceVersion,
	})
	cj.Status.LastScheduleTime = &metav1.Time{Time: *due}
	return next, nil
}

// delete deletes an active job that another takes the place of.
func (c *Controller) delete(ctx context.Context, cj *batchv1.CronJob, ref corev1.ObjectReference) error {
	err := c.client.Delete(ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: ref.Namespace, Name: ref.Name}},
		client.Preconditions{UID: &ref.UID}, client.PropagationPolicy(metav1.DeletePropagationBackground))
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		c.runner.Recorder().Eventf(cj, corev1.EventTypeWarning, "FailedDelete", "Deleted job: %v", err)
		return err
	}
	cj.Status.Active = slices.DeleteFunc(cj.Status.Active, func(r corev1.ObjectReference) bool { return r.UID == ref.UID })
	if err == nil {
		c.runner.Recorder().Eventf(cj, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted job %v", ref.Name)
	}
	return nil
}

// jobName is one for each time, so that no time gets two jobs.
func jobName(cj *batchv1.CronJob, due time.Time) string {
	return fmt.Sprintf("%s-%d", cj.Name, due.Unix()/60)
}

func newJob(cj *batchv1.CronJob, name string, due time.Time) *batchv1.Job {
	annotations := maps.Clone(cj.Spec.JobTemplate.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	at := due
	if cj.Spec.TimeZone != nil {
		if loc, err := time.LoadLocation(*cj.Spec.TimeZone); err == nil {
			at = due.In(loc)
		}
	}
	annotations[batchv1.CronJobScheduledTimestampAnnotation] = at.Format(time.RFC3339)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: cj.Namespace, Name: name, Labels: maps.Clone(cj.Spec.JobTemplate.Labels), Annotations: annotations,
			CreationTimestamp: metav1.Time{Time: due}, OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(cj, kind)},
		},
		Spec: *cj.Spec.JobTemplate.Spec.DeepCopy(),
	}
}

// trim deletes the oldest finished jobs beyond the limits of history.
func (c *Controller) trim(ctx context.Context, cj *batchv1.CronJob, jobs []*batchv1.Job) error {
	byEnd := map[batchv1.JobConditionType][]*batchv1.Job{}
	for _, j := range jobs {
		if end, done := finished(j); done && j.DeletionTimestamp == nil {
			byEnd[end] = append(byEnd[end], j)
		}
	}
	for end, limit := range map[batchv1.JobConditionType]*int32{batchv1.JobComplete: cj.Spec.SuccessfulJobsHistoryLimit, batchv1.JobFailed: cj.Spec.FailedJobsHistoryLimit} {
		if limit == nil {
			continue
		}
		list := byEnd[end]
		slices.SortFunc(list, func(a, b *batchv1.Job) int {
			if n := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); n != 0 {
				return n
			}
			return cmp.Compare(a.Name, b.Name)
		})
		for i := 0; i < len(list)-int(*limit); i++ {
			j := list[i]
			if err := c.delete(ctx, cj, corev1.ObjectReference{Namespace: j.Namespace, Name: j.Name, UID: j.UID}); err != nil {
				return err
			}
		}
	}
	return nil
}
