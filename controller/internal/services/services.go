// Package services finds the pods of a Service and the Services of a pod.
package services

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	endpointutil "k8s.io/endpointslice/util"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/view"
)

// Pods returns the pods that a service selects.
func Pods(ctx context.Context, v *view.View[*corev1.Pod], svc *corev1.Service) ([]*corev1.Pod, error) {
	if len(svc.Spec.Selector) == 0 {
		return v.Namespace(ctx, svc.Namespace)
	}
	var least []*corev1.Pod
	first := true
	for k, val := range svc.Spec.Selector {
		ps, err := v.By(ctx, view.Label(), view.LabelValue(svc.Namespace, k, val))
		if err != nil {
			return nil, err
		}
		if first || len(ps) < len(least) {
			least, first = ps, false
		}
	}
	s := labels.Set(svc.Spec.Selector).AsSelectorPreValidated()
	out := least[:0:0]
	for _, p := range least {
		if s.Matches(labels.Set(p.Labels)) {
			out = append(out, p)
		}
	}
	return out, nil
}

// PodHandler enqueues the services whose endpoints an event of a pod may change.
func PodHandler(v *view.View[*corev1.Service], failed func(error)) handler.EventHandler {
	enqueue := func(ctx context.Context, old, cur client.Object, q controller.Queue) {
		var a, b any
		if old != nil {
			a = old
		}
		if cur != nil {
			b = cur
		}
		key := endpointutil.GetPodUpdateProjectionKey(a, b)
		if key == nil {
			return
		}
		svcs, err := v.Namespace(ctx, key.Namespace)
		if err != nil {
			failed(err)
			return
		}
		for _, s := range svcs {
			if len(s.Spec.Selector) == 0 {
				continue
			}
			sel := labels.ValidatedSetSelector(s.Spec.Selector)
			is := sel.Matches(key.Labels)
			was := key.OldLabels != nil && sel.Matches(key.OldLabels)
			if key.OldLabels == nil && is || key.OldLabels != nil && (is != was || is && key.PodChanged) {
				q.Add(controller.Request{NamespacedName: types.NamespacedName{Namespace: s.Namespace, Name: s.Name}})
			}
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q controller.Queue) { enqueue(ctx, nil, e.Object, q) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q controller.Queue) {
			enqueue(ctx, e.ObjectOld, e.ObjectNew, q)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q controller.Queue) { enqueue(ctx, e.Object, nil, q) },
	}
}
