package persistentvolume

import (
	"cmp"
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	volumehelper "k8s.io/component-helpers/storage/volume"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/view"
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
	classes *view.View[*storagev1.StorageClass]
	pods    *view.View[*corev1.Pod]
}

var (
	volumeClass = view.Index{Name: "keelson.volumeclass", Values: func(o client.Object) []string {
		if pv, ok := o.(*corev1.PersistentVolume); ok {
			return []string{volumehelper.GetPersistentVolumeClass(pv)}
		}
		return nil
	}}
	// openClaims finds claims without volume by their class.
	openClaims = view.Index{Name: "keelson.openclaims", Values: func(o client.Object) []string {
		if c, ok := o.(*corev1.PersistentVolumeClaim); ok && !isBound(c) {
			return []string{volumehelper.GetPersistentVolumeClaimClass(c)}
		}
		return nil
	}}
	claimVolume = view.Index{Name: "keelson.claimvolume", Values: func(o client.Object) []string {
		if c, ok := o.(*corev1.PersistentVolumeClaim); ok && c.Spec.VolumeName != "" {
			return []string{c.Spec.VolumeName}
		}
		return nil
	}}
)

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	// Volumes are chosen one after the other: two claims must not both find the smallest free.
	o.Common = o.Common.WithDefaults(1)
	ctl := &Controller{client: c}
	r, err := controller.New("persistentvolume", c, cc, ctl, controller.Options{
		Common:    o.Common,
		Component: "persistentvolume-controller",
		Setup: func(ctx context.Context) error {
			return view.StartAll(ctx, ctl.claims, ctl.volumes, ctl.classes, ctl.pods)
		},
		Sources: []controller.Source{
			controller.Mapped(&corev1.PersistentVolumeClaim{}, func(_ context.Context, o client.Object) []controller.Request {
				out := []controller.Request{controller.RequestFor(o)}
				if c, ok := o.(*corev1.PersistentVolumeClaim); ok && c.Spec.VolumeName != "" {
					out = append(out, volumeRequest(c.Spec.VolumeName))
				}
				return out
			}),
			controller.Mapped(&corev1.PersistentVolume{}, ctl.forVolume),
			controller.Mapped(&storagev1.StorageClass{}, ctl.forClass),
			controller.Mapped(&corev1.Pod{}, func(context.Context, client.Object) []controller.Request { return nil }),
		},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.claims = view.New(c, cc, &corev1.PersistentVolumeClaim{}, openClaims, claimVolume)
	ctl.volumes = view.New(c, cc, &corev1.PersistentVolume{}, volumeClass)
	ctl.classes = view.New(c, cc, &storagev1.StorageClass{})
	ctl.pods = view.New(c, cc, &corev1.Pod{})
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

func volumeRequest(name string) controller.Request {
	return controller.Request{NamespacedName: types.NamespacedName{Name: name}}
}

// forVolume asks for the volume, the claims it is for, and, if it is free, those that it could be for.
func (c *Controller) forVolume(ctx context.Context, o client.Object) []controller.Request {
	pv, ok := o.(*corev1.PersistentVolume)
	if !ok {
		return nil
	}
	out := []controller.Request{controller.RequestFor(pv)}
	if ref := pv.Spec.ClaimRef; ref != nil {
		out = append(out, controller.Request{NamespacedName: types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}})
	} else if open, err := c.claims.By(ctx, openClaims, volumehelper.GetPersistentVolumeClass(pv)); err == nil {
		out = append(out, requestsFor(open)...)
	}
	if named, err := c.claims.By(ctx, claimVolume, pv.Name); err == nil {
		out = append(out, requestsFor(named)...)
	}
	return out
}

// forClass asks for the claims that wait for the class, and, if it is the default, for those that name none.
func (c *Controller) forClass(ctx context.Context, o client.Object) []controller.Request {
	open, err := c.claims.By(ctx, openClaims, o.GetName())
	if err != nil {
		return nil
	}
	if class, ok := o.(*storagev1.StorageClass); ok && isDefault(class) {
		if none, err := c.claims.By(ctx, openClaims, ""); err == nil {
			open = append(open, none...)
		}
	}
	return requestsFor(open)
}

func requestsFor(claims []*corev1.PersistentVolumeClaim) (out []controller.Request) {
	for _, c := range claims {
		out = append(out, controller.RequestFor(c))
	}
	return out
}

// Reconcile settles one claim or one volume.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	if req.Namespace == "" {
		pv, err := c.volumes.Get(ctx, "", req.Name)
		if err != nil {
			return controller.Result{}, client.IgnoreNotFound(err)
		}
		return controller.Result{}, c.syncVolume(ctx, pv)
	}
	claim, err := c.claims.Get(ctx, req.Namespace, req.Name)
	if err != nil {
		return controller.Result{}, client.IgnoreNotFound(err)
	}
	if isBound(claim) {
		return controller.Result{}, c.syncBound(ctx, claim)
	}
	return controller.Result{}, c.syncOpen(ctx, claim)
}

func isBound(c *corev1.PersistentVolumeClaim) bool {
	return metav1.HasAnnotation(c.ObjectMeta, volumehelper.AnnBindCompleted)
}

// The annotations by which a class is the default.
const (
	defaultMark     = "storageclass.kubernetes.io/is-default-class"
	betaDefaultMark = "storageclass.beta.kubernetes.io/is-default-class"
)

func isDefault(c *storagev1.StorageClass) bool {
	return c.Annotations[defaultMark] == "true" || c.Annotations[betaDefaultMark] == "true"
}

// defaultClass returns the newest class that is a default, nil if there is none.
func (c *Controller) defaultClass(ctx context.Context) (*storagev1.StorageClass, error) {
	all, err := c.classes.List(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s *storagev1.StorageClass) bool { return !isDefault(s) })
	if len(all) == 0 {
		return nil, nil
	}
	return slices.MinFunc(all, func(a, b *storagev1.StorageClass) int {
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	}), nil
}
