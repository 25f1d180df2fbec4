// Package events records Kubernetes Events through a client.
//
//	rec, err := events.New(c, "widget-controller", events.Options{})
//	...
//	go rec.Run(ctx)
//	rec.Eventf(widget, corev1.EventTypeNormal, "Painted", "Painted %s", widget.Name)
//
// Repeated events are counted, similar ones aggregated and floods dropped, by
// the rules of client-go's EventCorrelator, as all Kubernetes components do.
// Recording never blocks: what can't be written in time is dropped.
package events
