package core

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/warning"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
)

// wipeSystemFields removes what only the server sets.
func wipeSystemFields(obj client.Object) {
	obj.SetCreationTimestamp(metav1.Time{})
	obj.SetUID("")
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetSelfLink("")
}

func (c *Core) fillSystemFields(obj client.Object) {
	obj.SetCreationTimestamp(c.now())
	obj.SetUID(uuid.NewUUID())
}

// now is the time in the resolution of the API, in which it is also stored.
func (c *Core) now() metav1.Time { return metav1.NewTime(c.opts.Clock.Now()).Rfc3339Copy() }

// matchNamespace sets the request's namespace, or rejects another one.
func matchNamespace(t Target, obj client.Object) error {
	want := t.Namespace
	if !t.Resource.Namespaced {
		want = ""
	}
	switch ns := obj.GetNamespace(); {
	case ns == want:
	case ns == "":
		obj.SetNamespace(want)
	case want == "":
		obj.SetNamespace("")
	default:
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

// matchName rejects an update whose body names another object.
func matchName(t Target, obj client.Object) error {
	if n := obj.GetName(); n != t.Name {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", n, t.Name))
	}
	return matchNamespace(t, obj)
}

const (
	duplicateOwners = ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: %v"

	duplicateOwnersAdmitted = ".metadata.ownerReferences contains duplicate entries after mutating admission happens; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: %v"
)

// dedupOwners drops owner references that say the same twice, with a warning.
func dedupOwners(ctx context.Context, obj client.Object, format string) {
	refs := obj.GetOwnerReferences()
	if len(refs) < 2 {
		return
	}
	var keep []metav1.OwnerReference
	var dropped []string
	for _, r := range refs {
		dup := false
		for i := range keep {
			dup = dup || keep[i].UID == r.UID && equality.Semantic.DeepEqual(keep[i], r)
		}
		if dup {
			dropped = append(dropped, string(r.UID))
		} else {
			keep = append(keep, r)
		}
	}
	if len(dropped) > 0 {
		warning.AddWarning(ctx, "", fmt.Sprintf(format, strings.Join(dropped, ", ")))
		obj.SetOwnerReferences(keep)
	}
}

// prepareCreate is Kind.PrepareForCreate or its default.
func (s *stored) prepareCreate(ctx context.Context, obj client.Object) {
	if s.kind.PrepareForCreate != nil {
		s.kind.PrepareForCreate(ctx, obj)
		return
	}
	if s.kind.Status != nil {
		s.shape.clearStatus(obj)
		obj.SetGeneration(1)
	}
}

// prepareUpdate is Kind.PrepareForUpdate or its default.
func (s *stored) prepareUpdate(ctx context.Context, obj, old client.Object) {
	if s.kind.PrepareForUpdate != nil {
		s.kind.PrepareForUpdate(ctx, obj, old)
		return
	}
	if s.kind.Status != nil {
		s.shape.copyStatus(obj, old)
		if !s.shape.sameRest(obj, old) {
			obj.SetGeneration(old.GetGeneration() + 1)
		}
	}
}

// prepareSubresource is Subresource.Prepare or its default: nothing but the status, for status.
func (s *stored) prepareSubresource(ctx context.Context, name string, sub *kind.Subresource, obj, old client.Object) {
	if sub != nil && sub.Prepare != nil {
		sub.Prepare(ctx, obj, old)
		return
	}
	if name == "status" {
		s.shape.copyRest(obj, old)
		keepMetadata(obj, old)
	}
}

// keepMetadata makes all metadata that of old but for managed fields and resourceVersion.
func keepMetadata(obj, old client.Object) {
	c := old.DeepCopyObject().(client.Object)
	obj.SetGenerateName(c.GetGenerateName())
	obj.SetUID(c.GetUID())
	obj.SetGeneration(c.GetGeneration())
	obj.SetCreationTimestamp(c.GetCreationTimestamp())
	obj.SetDeletionTimestamp(c.GetDeletionTimestamp())
	obj.SetDeletionGracePeriodSeconds(c.GetDeletionGracePeriodSeconds())
	obj.SetLabels(c.GetLabels())
	obj.SetAnnotations(c.GetAnnotations())
	obj.SetFinalizers(c.GetFinalizers())
	obj.SetOwnerReferences(c.GetOwnerReferences())
}

// keepSystemFields carries over what an update can neither change nor has to repeat.
func keepSystemFields(obj, old client.Object) {
	if obj.GetUID() == "" {
		obj.SetUID(old.GetUID())
	}
	if t := old.GetCreationTimestamp(); !t.IsZero() {
		obj.SetCreationTimestamp(t)
	}
	if t := old.GetDeletionTimestamp(); !t.IsZero() {
		obj.SetDeletionTimestamp(t.DeepCopy())
	}
	if g := old.GetDeletionGracePeriodSeconds(); g != nil && obj.GetDeletionGracePeriodSeconds() == nil {
		v := *g
		obj.SetDeletionGracePeriodSeconds(&v)
	}
}

var metadataPath = field.NewPath("metadata")

func (s *stored) nameValidation() apivalidation.ValidateNameFunc {
	if s.kind.NameValidation != nil {
		return s.kind.NameValidation
	}
	return apivalidation.NameIsDNSSubdomain
}

func (s *stored) invalid(name string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(s.kind.GVK.GroupKind(), name, errs)
}

func (s *stored) validateCreate(ctx context.Context, obj client.Object) error {
	errs := apivalidation.ValidateObjectMetaAccessor(obj, s.kind.Namespaced, s.nameValidation(), metadataPath)
	errs = append(errs, kind.ValidateFinalizers(obj.GetFinalizers(), metadataPath.Child("finalizers"))...)
	if s.kind.Validate != nil {
		errs = append(errs, s.kind.Validate(ctx, obj)...)
	}
	return s.invalid(obj.GetName(), errs)
}

func (s *stored) validateUpdate(ctx context.Context, sub *kind.Subresource, obj, old client.Object) error {
	// Names cannot change, so one that an older version accepted stays valid.
	errs := apivalidation.ValidateObjectMetaAccessor(obj, s.kind.Namespaced, anyName, metadataPath)
	errs = append(errs, apivalidation.ValidateObjectMetaAccessorUpdate(obj, old, metadataPath)...)
	errs = append(errs, kind.ValidateFinalizers(obj.GetFinalizers(), metadataPath.Child("finalizers"))...)
	switch {
	case sub != nil:
		if sub.Validate != nil {
			errs = append(errs, sub.Validate(ctx, obj, old)...)
		}
	case s.kind.ValidateUpdate != nil:
		errs = append(errs, s.kind.ValidateUpdate(ctx, obj, old)...)
	}
	return s.invalid(obj.GetName(), errs)
}

// validateVersion checks what only the version asks for through which an object is written.
func (s *stored) validateVersion(ctx context.Context, r *Resource, obj, old client.Object) error {
	if r.Version == nil || r.Version.Validate == nil {
		return nil
	}
	return s.invalid(obj.GetName(), r.Version.Validate(ctx, obj, old))
}

func anyName(string, bool) []string { return nil }

func addWarnings(ctx context.Context, texts []string) {
	for _, t := range texts {
		warning.AddWarning(ctx, "", t)
	}
}

func isDryRun(list []string) bool { return len(list) > 0 }
