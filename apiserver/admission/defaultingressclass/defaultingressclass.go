package defaultingressclass

import (
	"context"
	"errors"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apiserver/pkg/admission"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Name is the name of the plugin.
const Name = "DefaultIngressClass"

const legacyAnnotation = "kubernetes.io/ingress.class"

// Options of the plugin.
type Options struct{}

// Plugin implements admission.MutationInterface.
type Plugin struct {
	*admission.Handler
	classes client.Reader
}

var _ admission.MutationInterface = (*Plugin)(nil)

// New returns the plugin, which reads IngressClasses from reader.
func New(reader client.Reader, _ Options) (*Plugin, error) {
	if reader == nil {
		return nil, errors.New("defaultingressclass: reader: expected one, got nil")
	}
	return &Plugin{Handler: admission.NewHandler(admission.Create), classes: reader}, nil
}

// Admit implements admission.MutationInterface.
func (p *Plugin) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	ingress, ok := a.GetObject().(*networkingv1.Ingress)
	if !ok || a.GetSubresource() != "" || ingress.Spec.IngressClassName != nil {
		return nil
	}
	if _, ok := ingress.Annotations[legacyAnnotation]; ok {
		return nil
	}
	var classes networkingv1.IngressClassList
	if err := p.classes.List(ctx, &classes); err != nil {
		return admission.NewForbidden(a, err)
	}
	// Of several defaults the newest wins, then the first by name.
	var found *networkingv1.IngressClass
	for i := range classes.Items {
		c := &classes.Items[i]
		if c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] != "true" {
			continue
		}
		if found == nil || found.CreationTimestamp.Before(&c.CreationTimestamp) ||
			(found.CreationTimestamp.Equal(&c.CreationTimestamp) && c.Name < found.Name) {
			found = c
		}
	}
	if found != nil {
		name := found.Name // what was read may be shared
		ingress.Spec.IngressClassName = &name
	}
	return nil
}
