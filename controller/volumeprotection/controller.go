package volumeprotection

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/storage/ephemeral"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/view"
)

// The finalizers.
const (
	ClaimFinalizer  = "kubernetes.io/pvc-protection"
	VolumeFinalizer = "kubernetes.io/pv-protection"
)

// Options configures a Controller.
type Options struct {
	controller.Common
}

// Controller reconciles claims and volumes. Requests with a namespace are for claims.
type Controller struct {
	client  client.WithWatch
	runner  *controller.Runner
	claims  *view.View[*corev1.PersistentVolumeClaim]
	volumes *view.View[*corev1.PersistentVolume]
	pods    *view.View[*corev1.Pod]
}

// byClaim finds pods by the claims that they may use.
var byClaim = view.Index{Name: "keelson.podclaims", Values: func(o client.Object) []string {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return nil
	}
	var out []string
	for _, name := range claimNames(p) {
		out = append(out, p.Namespace+"/"+name)
	}
	return out
}}

func claimNames(p *corev1.Pod) (out []string) {
	for i := range p.Spec.Volumes {
		switch v := &p.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			out = append(out, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			out = append(out, ephemeral.VolumeClaimName(p, v))
		}
	}
	return out
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	o.Common = o.Common.WithDefaults(5)
	ctl := &Controller{client: c}
	r, err := controller.New("pvcprotection", c, cc, ctl, controller.Options{
		Common:    o.Common,
		Component: "pvc-protection-controller",
		Setup: func(ctx context.Context) error {
			return view.StartAll(ctx, ctl.claims, ctl.volumes, ctl.pods)
		},
		Sources: []controller.Source{
			controller.For(&corev1.PersistentVolumeClaim{}),
			controller.For(&corev1.PersistentVolume{}),
			controller.Mapped(&corev1.Pod{}, func(_ context.Context, o client.Object) []controller.Request {
				p, ok := o.(*corev1.Pod)
				if !ok {
					return nil
				}
				var out []controller.Request
				for _, name := range claimNames(p) {
					out = append(out, controller.Request{NamespacedName: types.NamespacedName{Namespace: p.Namespace, Name: name}})
				}
				return out
			}),
		},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.claims = view.New(c, cc, &corev1.PersistentVolumeClaim{})
	ctl.volumes = view.New(c, cc, &corev1.PersistentVolume{})
	ctl.pods = view.New(c, cc, &corev1.Pod{}, byClaim)
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

// Reconcile protects one claim or volume, or lets it go.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	if req.Namespace == "" {
		pv, err := c.volumes.Get(ctx, "", req.Name)
		if err != nil {
			return controller.Result{}, client.IgnoreNotFound(err)
		}
		if pv.DeletionTimestamp != nil && pv.Status.Phase == corev1.VolumeBound {
			return controller.Result{}, nil
		}
		return controller.Result{}, c.mark(ctx, pv, VolumeFinalizer)
	}
	claim, err := c.claims.Get(ctx, req.Namespace, req.Name)
	if err != nil {
		return controller.Result{}, client.IgnoreNotFound(err)
	}
	if claim.DeletionTimestamp != nil {
		used, err := c.used(ctx, claim)
		if used || err != nil {
			return controller.Result{}, err
		}
	}
	return controller.Result{}, c.mark(ctx, claim, ClaimFinalizer)
}

// mark adds the finalizer to an object that stays, and removes it from one that is to go.
func (c *Controller) mark(ctx context.Context, obj client.Object, finalizer string) error {
	has := slices.Contains(obj.GetFinalizers(), finalizer)
	if has == (obj.GetDeletionTimestamp() == nil) {
		return nil
	}
	updated, ok := obj.DeepCopyObject().(client.Object)
	if !ok {
		return nil
	}
	if has {
		controllerutil.RemoveFinalizer(updated, finalizer)
	} else {
		controllerutil.AddFinalizer(updated, finalizer)
	}
	return client.IgnoreNotFound(c.client.Update(ctx, updated))
}

// used reports whether a pod on a node has the claim. What the cache does not know the server is asked, before a claim is let go.
func (c *Controller) used(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
	pods, err := c.pods.By(ctx, byClaim, claim.Namespace+"/"+claim.Name)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return holds(p, claim) }) {
		return true, nil
	}
	var fresh corev1.PodList
	if err := c.client.List(ctx, &fresh, client.InNamespace(claim.Namespace)); err != nil {
		return false, err
	}
	for i := range fresh.Items {
		if holds(&fresh.Items[i], claim) {
			return true, nil
		}
	}
	return false, nil
}

// holds reports whether a pod keeps a claim from going. A pod that was deleted by force, or that its kubelet is done with, holds the claims of its
// ephemeral volumes no more, for it may itself wait for them to go.
func holds(p *corev1.Pod, claim *corev1.PersistentVolumeClaim) bool {
	if p.Spec.NodeName == "" {
		return false
	}
	over := p.DeletionTimestamp != nil && p.DeletionGracePeriodSeconds != nil && *p.DeletionGracePeriodSeconds == 0
	return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim.Name ||
			!over && v.Ephemeral != nil && ephemeral.VolumeClaimName(p, &v) == claim.Name && ephemeral.VolumeIsForPod(p, claim) == nil
	})
}
