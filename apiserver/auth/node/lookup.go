package node

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// lookup answers related from what the reader has now: a kubelet may ask for a pod's Secret before the informers' events of the pod have come.
func (a *Authorizer) lookup(ctx context.Context, node string, r ref) (bool, error) {
	if a.opts.Reader == nil {
		return false, nil
	}
	g := newGraph()
	if r.kind == attachments {
		var va storagev1.VolumeAttachment
		if err := a.opts.Reader.Get(ctx, client.ObjectKey{Name: r.name}, &va); err != nil {
			return false, ignore(err)
		}
		g.set(&va)
		return g.related(node, r), nil
	}
	var bound corev1.PodList
	if err := a.opts.Reader.List(ctx, &bound, client.MatchingFields{"spec.nodeName": node}); err != nil {
		return false, ignore(err)
	}
	claimed := false
	for i := range bound.Items {
		for _, u := range g.set(&bound.Items[i]) {
			claimed = claimed || u.kind == claims
		}
	}
	if g.related(node, r) {
		return true, nil
	}
	if !claimed || r.kind != volumes && r.kind != secrets {
		return false, nil
	}
	var all corev1.PersistentVolumeList
	if err := a.opts.Reader.List(ctx, &all); err != nil {
		return false, ignore(err)
	}
	for i := range all.Items {
		g.set(&all.Items[i])
	}
	return g.related(node, r), nil
}

// ignore turns the absence of an object or a kind into none found.
func ignore(err error) error {
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		return nil
	}
	return fmt.Errorf("node: %w", err)
}
