package defaultstorageclass

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apiserver/pkg/admission"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kinds/storage"
)

// Name is the name of the plugin.
const Name = "DefaultStorageClass"

// Options of the plugin.
type Options struct{}

// Plugin implements admission.MutationInterface.
type Plugin struct {
	*admission.Handler
	classes client.Reader
}

var _ admission.MutationInterface = (*Plugin)(nil)

// New returns the plugin, which reads StorageClasses from reader.
func New(reader client.Reader, _ Options) (*Plugin, error) {
	if reader == nil {
		return nil, errors.New("defaultstorageclass: reader: expected one, got nil")
	}
	return &Plugin{Handler: admission.NewHandler(admission.Create), classes: reader}, nil
}

// Admit implements admission.MutationInterface.
func (p *Plugin) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	claim, ok := a.GetObject().(*corev1.PersistentVolumeClaim)
	if !ok || a.GetSubresource() != "" {
		return nil
	}
	if _, beta := claim.Annotations[corev1.BetaStorageClassAnnotation]; beta || claim.Spec.StorageClassName != nil {
		return nil
	}
	var classes storagev1.StorageClassList
	if err := p.classes.List(ctx, &classes); err != nil {
		return admission.NewForbidden(a, err)
	}
	// Of several defaults the newest wins, then the first by name.
	var found *storagev1.StorageClass
	for i := range classes.Items {
		c := &classes.Items[i]
		if !storage.IsDefault(c) {
			continue
		}
		if found == nil || found.CreationTimestamp.Before(&c.CreationTimestamp) ||
			(found.CreationTimestamp.Equal(&c.CreationTimestamp) && c.Name < found.Name) {
			found = c
		}
	}
	if found != nil {
		name := found.Name // what was read may be shared
		claim.Spec.StorageClassName = &name
	}
	return nil
}
