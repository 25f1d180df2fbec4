package resize

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apiserver/pkg/admission"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Name is the name of the plugin.
const Name = "PersistentVolumeClaimResize"

// Options of the plugin.
type Options struct{}

// Plugin implements admission.ValidationInterface.
type Plugin struct {
	*admission.Handler
	classes client.Reader
}

var _ admission.ValidationInterface = (*Plugin)(nil)

// New returns the plugin, which reads StorageClasses from reader.
func New(reader client.Reader, _ Options) (*Plugin, error) {
	if reader == nil {
		return nil, errors.New("resize: reader: expected one, got nil")
	}
	return &Plugin{Handler: admission.NewHandler(admission.Update), classes: reader}, nil
}

// Validate implements admission.ValidationInterface.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	claim, ok := a.GetObject().(*corev1.PersistentVolumeClaim)
	old, had := a.GetOldObject().(*corev1.PersistentVolumeClaim)
	if !ok || !had || a.GetSubresource() != "" {
		return nil
	}
	size, before := claim.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	if size.Cmp(before) <= 0 {
		return nil
	}
	if old.Status.Phase != corev1.ClaimBound {
		return admission.NewForbidden(a, errors.New("only bound persistent volume claims can be expanded"))
	}
	name := claim.Annotations[corev1.BetaStorageClassAnnotation]
	if name == "" && claim.Spec.StorageClassName != nil {
		name = *claim.Spec.StorageClassName
	}
	if name != "" {
		var class storagev1.StorageClass
		err := p.classes.Get(ctx, client.ObjectKey{Name: name}, &class)
		if err == nil && class.AllowVolumeExpansion != nil && *class.AllowVolumeExpansion {
			return nil
		}
	}
	return admission.NewForbidden(a, errors.New("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"))
}
