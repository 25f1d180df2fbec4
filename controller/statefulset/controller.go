package statefulset

import (
	"context"
	"fmt"
	"hash/fnv"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/claim"
	"github.com/keelson/keelson/controller/internal/expect"
	"github.com/keelson/keelson/controller/internal/history"
	"github.com/keelson/keelson/controller/internal/view"
)

var kind = appsv1.SchemeGroupVersion.WithKind("StatefulSet")

// Options configures a Controller.
type Options struct {
	controller.Common
}

// Controller reconciles StatefulSets.
type Controller struct {
	client    client.WithWatch
	runner    *controller.Runner
	sets      *view.View[*appsv1.StatefulSet]
	pods      *view.View[*corev1.Pod]
	claims    *view.View[*corev1.PersistentVolumeClaim]
	revisions *view.View[*appsv1.ControllerRevision]
	wrote     expect.Versions
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	o.Common = o.Common.WithDefaults(5)
	ctl := &Controller{client: c}
	nothing := func(context.Context, client.Object) []controller.Request { return nil }
	r, err := controller.New("statefulset", c, cc, ctl, controller.Options{
		Common: o.Common,
		Setup: func(ctx context.Context) error {
			return view.StartAll(ctx, ctl.sets, ctl.pods, ctl.claims, ctl.revisions)
		},
		Sources: []controller.Source{
			controller.For(&appsv1.StatefulSet{}),
			controller.Mapped(&corev1.Pod{}, ctl.setsOf),
			controller.Mapped(&corev1.PersistentVolumeClaim{}, nothing),
			controller.Owned(&appsv1.ControllerRevision{}, kind),
		},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.sets = view.New(c, cc, &appsv1.StatefulSet{})
	ctl.pods = view.New(c, cc, &corev1.Pod{}, view.Controller())
	ctl.claims = view.New(c, cc, &corev1.PersistentVolumeClaim{})
	ctl.revisions = view.New(c, cc, &appsv1.ControllerRevision{}, view.Controller())
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

func (c *Controller) setsOf(ctx context.Context, o client.Object) []controller.Request {
	if metav1.GetControllerOfNoCopy(o) != nil {
		if name, ok := controller.ControllerName(o, kind.GroupKind()); ok {
			return []controller.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}}}
		}
		return nil
	}
	parent, _, ok := parentOf(o.GetName())
	if !ok {
		return nil
	}
	set, err := c.sets.Get(ctx, o.GetNamespace(), parent)
	if err != nil {
		return nil
	}
	return []controller.Request{controller.RequestFor(set)}
}

// hashRevision is the suffix of a revision's name.
func hashRevision(data []byte, collisions *int32) string {
	h := fnv.New32()
	h.Write(data)
	if collisions != nil {
		h.Write([]byte(strconv.FormatInt(int64(*collisions), 10)))
	}
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}

// Reconcile takes one StatefulSet a step further.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	cached, err := c.sets.Get(ctx, req.Namespace, req.Name)
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
	set := cached.DeepCopy()
	if set.Spec.Replicas == nil {
		set.Spec.Replicas = new(int32)
		*set.Spec.Replicas = 1
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil {
		return controller.Result{}, reconcile.TerminalError(fmt.Errorf("selector: %w", err))
	}
	keeper := &history.Keeper{
		Client: c.client, Revisions: c.revisions, Owner: set, Kind: kind, Selector: selector,
		Hash: hashRevision, HashLabel: "controller.kubernetes.io/hash",
	}
	revisions, err := keeper.List(ctx)
	if err != nil {
		return controller.Result{}, err
	}
	owned, err := c.claim(ctx, set, selector)
	if err != nil {
		return controller.Result{}, err
	}
	s := &syncer{c: c, set: set, now: c.runner.Clock().Now(), keeper: keeper, revisions: revisions}
	if err := s.run(ctx, owned); err != nil {
		return controller.Result{}, err
	}
	return controller.Result{RequeueAfter: s.recheck}, nil
}

func (c *Controller) claim(ctx context.Context, set *appsv1.StatefulSet, selector labels.Selector) ([]*corev1.Pod, error) {
	candidates, err := claim.Candidates(ctx, c.pods, set)
	if err != nil {
		return nil, err
	}
	cl := claim.Claimer[*corev1.Pod]{Client: c.client, Owner: set, Kind: kind, Selector: selector, Filter: func(p *corev1.Pod) bool {
		parent, _, ok := parentOf(p.Name)
		return ok && parent == set.Name
	}}
	return cl.Claim(ctx, candidates)
}

func (s *syncer) writeStatus(ctx context.Context, st appsv1.StatefulSetStatus) error {
	if equality.Semantic.DeepEqual(s.set.Status, st) {
		return nil
	}
	out := s.set.DeepCopy()
	out.Status = st
	if err := s.c.client.Status().Update(ctx, out); err != nil {
		return client.IgnoreNotFound(err)
	}
	s.c.wrote.Wrote(client.ObjectKeyFromObject(out), out.UID, out.ResourceVersion)
	return nil
}
