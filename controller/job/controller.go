package job

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/claim"
	"github.com/keelson/keelson/controller/internal/expect"
	"github.com/keelson/keelson/controller/internal/view"
)

var kind = batchv1.SchemeGroupVersion.WithKind("Job")

// Options configures a Controller.
type Options struct {
	controller.Common
}

// Controller reconciles Jobs.
type Controller struct {
	client client.WithWatch
	runner *controller.Runner
	jobs   *view.View[*batchv1.Job]
	pods   *view.View[*corev1.Pod]
	expect *expect.Expectations
	wrote  expect.Versions

	mu sync.Mutex
	// freed are pods whose finalizer has been removed, though the cache may
	// still show it, by job.
	freed map[types.NamespacedName]map[types.UID]bool
	// backoff is how each job's pods have failed lately.
	backoff map[types.NamespacedName]backoff
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	o.Common = o.Common.WithDefaults(5)
	ctl := &Controller{client: c, expect: expect.New(o.Clock)}
	r, err := controller.New("job", c, cc, ctl, controller.Options{
		Common: o.Common,
		Setup:  ctl.setup,
		Sources: []controller.Source{
			{Object: &batchv1.Job{}, Handler: ctl.jobHandler()},
			{Object: &corev1.Pod{}, Handler: ctl.podHandler()},
		},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.jobs = view.New(c, cc, &batchv1.Job{})
	ctl.pods = view.New(c, cc, &corev1.Pod{}, view.Controller())
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

func (c *Controller) setup(ctx context.Context) error {
	c.expect.Reset()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.freed = map[types.NamespacedName]map[types.UID]bool{}
	c.backoff = map[types.NamespacedName]backoff{}
	return view.StartAll(ctx, c.jobs, c.pods)
}

// orphanPrefix marks the requests about a pod whose job is gone. No job has
// such a name.
const orphanPrefix = "pod/"

func orphanRequest(p *corev1.Pod) controller.Request {
	return controller.Request{NamespacedName: types.NamespacedName{Namespace: p.Namespace, Name: orphanPrefix + p.Name}}
}

func (c *Controller) jobHandler() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q controller.Queue) {
			q.Add(controller.RequestFor(e.Object))
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q controller.Queue) {
			q.Add(controller.RequestFor(e.ObjectNew))
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q controller.Queue) {
			q.Add(controller.RequestFor(e.Object))
			ps, err := c.pods.By(ctx, view.Controller(), view.OwnedBy(e.Object.GetUID()))
			if err != nil {
				c.runner.Logger().Error(err, "listing a deleted job's pods")
			}
			for _, p := range ps {
				if hasFinalizer(p) {
					q.Add(orphanRequest(p))
				}
			}
		},
	}
}

func (c *Controller) podHandler() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q controller.Queue) {
			pod, ok := e.Object.(*corev1.Pod)
			if !ok {
				return
			}
			if req, ok := owner(pod); ok {
				if pod.DeletionTimestamp == nil {
					c.expect.Created(req.NamespacedName, 1)
				} else {
					c.expect.Deleted(req.NamespacedName, pod.UID)
				}
				q.Add(req)
				return
			}
			c.enqueueOrphan(ctx, pod, q)
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q controller.Queue) {
			old, ok := e.ObjectOld.(*corev1.Pod)
			pod, ok2 := e.ObjectNew.(*corev1.Pod)
			if !ok || !ok2 || old.ResourceVersion == pod.ResourceVersion {
				return
			}
			was, owned := owner(old)
			now, ownedNow := owner(pod)
			if owned && !hasFinalizer(pod) {
				c.forgetFreed(was.NamespacedName, pod.UID)
			}
			if owned && was != now {
				q.Add(was)
			}
			if ownedNow {
				if pod.DeletionTimestamp != nil {
					c.expect.Deleted(now.NamespacedName, pod.UID)
				}
				q.Add(now)
				return
			}
			if owned || !maps.Equal(old.Labels, pod.Labels) || hasFinalizer(pod) {
				c.enqueueOrphan(ctx, pod, q)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q controller.Queue) {
			pod, ok := e.Object.(*corev1.Pod)
			if !ok {
				return
			}
			if req, ok := owner(pod); ok {
				c.expect.Deleted(req.NamespacedName, pod.UID)
				c.forgetFreed(req.NamespacedName, pod.UID)
				q.Add(req)
			}
		},
	}
}

// enqueueOrphan wakes jobs that could adopt a pod, and frees it otherwise.
func (c *Controller) enqueueOrphan(ctx context.Context, pod *corev1.Pod, q controller.Queue) {
	if metav1.GetControllerOfNoCopy(pod) != nil {
		return
	}
	if hasFinalizer(pod) {
		q.Add(orphanRequest(pod))
	}
	if pod.DeletionTimestamp != nil || len(pod.Labels) == 0 {
		return
	}
	jobs, err := c.jobs.Namespace(ctx, pod.Namespace)
	if err != nil {
		c.runner.Logger().Error(err, "listing Jobs")
		return
	}
	for _, j := range jobs {
		s, err := metav1.LabelSelectorAsSelector(j.Spec.Selector)
		if err == nil && !s.Empty() && s.Matches(labels.Set(pod.Labels)) {
			q.Add(controller.RequestFor(j))
		}
	}
}

func owner(p *corev1.Pod) (controller.Request, bool) {
	name, ok := controller.ControllerName(p, kind.GroupKind())
	return controller.Request{NamespacedName: types.NamespacedName{Namespace: p.Namespace, Name: name}}, ok
}

func hasFinalizer(p *corev1.Pod) bool {
	return slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer)
}

// freedOf returns a copy of the pods freed. Take it before reading pods from
// the cache: an entry is forgotten only once the cache shows the pod freed.
func (c *Controller) freedOf(key types.NamespacedName) map[types.UID]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[types.UID]bool, len(c.freed[key]))
	maps.Copy(out, c.freed[key])
	return out
}

func (c *Controller) setFreed(key types.NamespacedName, uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.freed[key] == nil {
		c.freed[key] = map[types.UID]bool{}
	}
	c.freed[key][uid] = true
}

func (c *Controller) forgetFreed(key types.NamespacedName, uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.freed[key], uid)
	if len(c.freed[key]) == 0 {
		delete(c.freed, key)
	}
}

func (c *Controller) forget(key types.NamespacedName) {
	c.expect.Forget(key)
	c.wrote.Forget(key)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.freed, key)
	delete(c.backoff, key)
}

// Reconcile takes one Job a step further, or frees a pod whose job is gone.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	if name, ok := strings.CutPrefix(req.Name, orphanPrefix); ok {
		return controller.Result{}, c.freeOrphan(ctx, req.Namespace, name)
	}
	cached, err := c.jobs.Get(ctx, req.Namespace, req.Name)
	if apierrors.IsNotFound(err) {
		c.forget(req.NamespacedName)
		return controller.Result{}, nil
	}
	if err != nil {
		return controller.Result{}, err
	}
	if by := cached.Spec.ManagedBy; by != nil && *by != batchv1.JobControllerName {
		return controller.Result{}, nil
	}
	if c.wrote.Stale(req.NamespacedName, cached.UID, cached.ResourceVersion) {
		// The update that will show what was written comes with an event; the
		// delay is for the case that it doesn't.
		return controller.Result{RequeueAfter: time.Second}, nil
	}
	job := withDefaults(cached.DeepCopy())
	if mode := *job.Spec.CompletionMode; mode != batchv1.NonIndexedCompletion && mode != batchv1.IndexedCompletion {
		c.runner.Recorder().Event(job, corev1.EventTypeWarning, "UnknownCompletionMode", "Skipped Job sync because completion mode is unknown")
		return controller.Result{}, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(job.Spec.Selector)
	if err != nil {
		return controller.Result{}, reconcile.TerminalError(fmt.Errorf("selector: %w", err))
	}
	settled := c.expect.Satisfied(req.NamespacedName)
	freed := c.freedOf(req.NamespacedName)
	candidates, err := claim.Candidates(ctx, c.pods, job)
	if err != nil {
		return controller.Result{}, err
	}
	if isFinished(job) {
		return controller.Result{}, c.freeAll(ctx, job, candidates, freed)
	}
	claimer := claim.Claimer[*corev1.Pod]{Client: c.client, Owner: job, Kind: kind, Selector: selector, Finalizers: []string{batchv1.JobTrackingFinalizer}}
	owned, err := claimer.Claim(ctx, candidates)
	if err != nil {
		return controller.Result{}, err
	}
	s := newSyncer(c, job, owned, freed, settled)
	err = s.run(ctx)
	if err != nil {
		return controller.Result{}, err
	}
	if !settled && (s.recheck == 0 || s.recheck > expect.Timeout()) {
		s.recheck = expect.Timeout()
	}
	return controller.Result{RequeueAfter: s.recheck}, nil
}

// withDefaults sets what an API server would have.
func withDefaults(j *batchv1.Job) *batchv1.Job {
	if j.Spec.Parallelism == nil {
		j.Spec.Parallelism = ptr[int32](1)
		if j.Spec.Completions == nil {
			j.Spec.Completions = ptr[int32](1)
		}
	}
	if j.Spec.BackoffLimit == nil {
		j.Spec.BackoffLimit = ptr[int32](6)
		if j.Spec.BackoffLimitPerIndex != nil {
			j.Spec.BackoffLimit = ptr[int32](1<<31 - 1)
		}
	}
	if j.Spec.CompletionMode == nil {
		j.Spec.CompletionMode = ptr(batchv1.NonIndexedCompletion)
	}
	return j
}

func ptr[T any](v T) *T { return &v }

// freeOrphan removes the finalizer of a pod that no unfinished job counts.
func (c *Controller) freeOrphan(ctx context.Context, namespace, name string) error {
	p, err := c.pods.Get(ctx, namespace, name)
	if err != nil {
		return client.IgnoreNotFound(err)
	}
	if !hasFinalizer(p) {
		return nil
	}
	if req, ok := owner(p); ok {
		j, err := c.jobs.Get(ctx, req.Namespace, req.Name)
		if err == nil && metav1.IsControlledBy(p, j) && !isFinished(j) {
			return nil
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return c.free(ctx, p)
}

// freeAll removes the finalizers of a finished job's pods.
func (c *Controller) freeAll(ctx context.Context, j *batchv1.Job, ps []*corev1.Pod, freed map[types.UID]bool) error {
	key := client.ObjectKeyFromObject(j)
	for _, p := range ps {
		if !metav1.IsControlledBy(p, j) || !hasFinalizer(p) || freed[p.UID] {
			continue
		}
		if err := c.free(ctx, p); err != nil {
			return err
		}
	}
	c.expect.Forget(key)
	c.mu.Lock()
	delete(c.backoff, key)
	c.mu.Unlock()
	return nil
}

func (c *Controller) free(ctx context.Context, p *corev1.Pod) error {
	data := fmt.Sprintf(`{"metadata":{"uid":%q,"$deleteFromPrimitiveList/finalizers":[%q]}}`, p.UID, batchv1.JobTrackingFinalizer)
	err := c.client.Patch(ctx, p.DeepCopy(), client.RawPatch(types.StrategicMergePatchType, []byte(data)))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}
