package core

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

func persistentVolume(opts Options) *kind.Kind {
	return &kind.Kind{
		GVK:        corev1.SchemeGroupVersion.WithKind("PersistentVolume"),
		Resource:   "persistentvolumes",
		Singular:   "persistentvolume",
		ShortNames: []string{"pv"},

		Default: typed.Default(defaultPersistentVolume),
		PrepareForCreate: typed.Prepare(func(_ context.Context, pv *corev1.PersistentVolume) {
			now := metav1.NewTime(opts.Clock.Now())
			pv.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending, LastPhaseTransitionTime: &now}
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(_ context.Context, pv, old *corev1.PersistentVolume) { pv.Status = old.Status }),
		Validate:         typed.Validate(validatePersistentVolume),
		ValidateUpdate:   typed.ValidateUpdate(validatePersistentVolumeUpdate),
		Warnings: typed.Warnings(func(_ context.Context, pv, old *corev1.PersistentVolume) []string {
			if old != nil {
				return nil
			}
			return persistentVolumeWarnings(pv)
		}),
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
		Status: &kind.Subresource{
			Prepare: typed.PrepareUpdate(func(_ context.Context, pv, old *corev1.PersistentVolume) {
				pv.Spec = old.Spec
				pv.Labels, pv.Finalizers, pv.OwnerReferences = old.Labels, old.Finalizers, old.OwnerReferences
				if pv.Status.Phase != old.Status.Phase && equality.Semantic.DeepEqual(pv.Status.LastPhaseTransitionTime, old.Status.LastPhaseTransitionTime) {
					now := metav1.NewTime(opts.Clock.Now())
					pv.Status.LastPhaseTransitionTime = &now
				}
			}),
			Validate: typed.ValidateUpdate(func(pv, _ *corev1.PersistentVolume) field.ErrorList {
				e := &validate.Errors{}
				if pv.ResourceVersion == "" {
					e.Required(field.NewPath("resourceVersion"), "")
				}
				return e.List
			}),
		},
		// Old clients spell the selector for the name so.
		Fields: map[string]func(client.Object) string{"name": func(obj client.Object) string { return obj.GetName() }},
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Capacity", corev1.PersistentVolumeSpec{}.SwaggerDoc()["capacity"]),
			table.Text("Access Modes", corev1.PersistentVolumeSpec{}.SwaggerDoc()["accessModes"]),
			table.Text("Reclaim Policy", corev1.PersistentVolumeSpec{}.SwaggerDoc()["persistentVolumeReclaimPolicy"]),
			table.Text("Status", corev1.PersistentVolumeStatus{}.SwaggerDoc()["phase"]),
			table.Text("Claim", corev1.PersistentVolumeSpec{}.SwaggerDoc()["claimRef"]),
			table.Text("StorageClass", "StorageClass of the pv"),
			table.Text("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
			table.Text("Reason", corev1.PersistentVolumeStatus{}.SwaggerDoc()["reason"]),
			table.Age(),
			table.Wide(table.Text("VolumeMode", corev1.PersistentVolumeSpec{}.SwaggerDoc()["volumeMode"])),
		},
		Row: typed.Row(func(pv *corev1.PersistentVolume, now time.Time) []any {
			claim := ""
			if ref := pv.Spec.ClaimRef; ref != nil {
				claim = ref.Namespace + "/" + ref.Name
			}
			phase := string(pv.Status.Phase)
			if pv.DeletionTimestamp != nil {
				phase = "Terminating"
			}
			return []any{
				pv.Name, storageOf(pv.Spec.Capacity), accessModes(pv.Spec.AccessModes), string(pv.Spec.PersistentVolumeReclaimPolicy), phase, claim,
				classOf(pv, pv.Spec.StorageClassName), ptr.Deref(pv.Spec.VolumeAttributesClassName, "<unset>"), pv.Status.Reason,
				table.Since(pv.CreationTimestamp, now), volumeMode(pv.Spec.VolumeMode),
			}
		}),
	}
}

func storageOf(list corev1.ResourceList) string {
	quantity := list[corev1.ResourceStorage]
	return quantity.String()
}

// classOf prefers the annotation that older releases had for the field.
func classOf(obj client.Object, class string) string {
	if value, set := obj.GetAnnotations()[corev1.BetaStorageClassAnnotation]; set {
		return value
	}
	return class
}

func volumeMode(mode *corev1.PersistentVolumeMode) string {
	if mode == nil {
		return "<unset>"
	}
	return string(*mode)
}

func accessModes(modes []corev1.PersistentVolumeAccessMode) string {
	var out []string
	for _, known := range []struct {
		mode  corev1.PersistentVolumeAccessMode
		short string
	}{{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"}} {
		for _, mode := range modes {
			if mode == known.mode {
				out = append(out, known.short)
				break
			}
		}
	}
	return strings.Join(out, ",")
}

func defaultPersistentVolume(pv *corev1.PersistentVolume) {
	if pv.Status.Phase == "" {
		pv.Status.Phase = corev1.VolumePending
	}
	s := &pv.Spec
	if s.PersistentVolumeReclaimPolicy == "" {
		s.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	}
	if s.VolumeMode == nil {
		s.VolumeMode = ptr.To(corev1.PersistentVolumeFilesystem)
	}
	podspec.RoundResources(s.Capacity)
	text := func(value *string, def string) {
		if *value == "" {
			*value = def
		}
	}
	if s.HostPath != nil && s.HostPath.Type == nil {
		s.HostPath.Type = ptr.To(corev1.HostPathUnset)
	}
	if s.RBD != nil {
		text(&s.RBD.RBDPool, "rbd")
		text(&s.RBD.RadosUser, "admin")
		text(&s.RBD.Keyring, "/etc/ceph/keyring")
	}
	if s.ISCSI != nil {
		text(&s.ISCSI.ISCSIInterface, "default")
	}
	if s.AzureDisk != nil {
		podspec.DefaultAzureDisk(s.AzureDisk)
	}
	if s.ScaleIO != nil {
		text(&s.ScaleIO.StorageMode, "ThinProvisioned")
		text(&s.ScaleIO.FSType, "xfs")
	}
}

func validatePersistentVolume(pv *corev1.PersistentVolume) field.ErrorList {
	e := &validate.Errors{}
	s, p := &pv.Spec, field.NewPath("spec")
	if len(s.AccessModes) == 0 {
		e.Required(p.Child("accessModes"), "")
	}
	podspec.AccessModes(e, s.AccessModes, p.Child("accessModes"))
	capacity := p.Child("capacity")
	if len(s.Capacity) == 0 {
		e.Required(capacity, "")
	} else if _, storage := s.Capacity[corev1.ResourceStorage]; !storage || len(s.Capacity) > 1 {
		e.Add(field.ErrorList{field.NotSupported(capacity, s.Capacity, []corev1.ResourceName{corev1.ResourceStorage})})
	}
	for _, name := range sets.List(sets.KeySet(s.Capacity)) {
		e.PositiveQuantity(s.Capacity[name], capacity.Key(string(name)))
	}
	if s.PersistentVolumeReclaimPolicy != "" {
		validate.OneOf(e, p.Child("persistentVolumeReclaimPolicy"), s.PersistentVolumeReclaimPolicy,
			corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)
	}
	bound := s.NodeAffinity != nil
	if bound {
		if s.NodeAffinity.Required == nil {
			e.Required(p.Child("nodeAffinity", "required"), "must specify required node constraints")
		} else {
			e.Add(podspec.ValidateNodeSelector(s.NodeAffinity.Required, p.Child("nodeAffinity", "required")))
		}
	}
	persistentSource(e, &s.PersistentVolumeSource, p)
	if s.Local != nil && !bound {
		e.Required(p.Child("nodeAffinity"), "Local volume requires node affinity")
	}
	if s.HostPath != nil && s.HostPath.Path == "/" && s.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		e.Forbidden(p.Child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'")
	}
	if s.StorageClassName != "" {
		e.DNSSubdomain(s.StorageClassName, p.Child("storageClassName"))
	}
	podspec.VolumeMode(e, s.VolumeMode, p.Child("volumeMode"))
	if class := s.VolumeAttributesClassName; class != nil {
		if *class == "" {
			e.Required(p.Child("volumeAttributesClassName"), "an empty string is disallowed")
		} else {
			e.DNSSubdomain(*class, p.Child("volumeAttributesClassName"))
		}
		if s.CSI == nil {
			e.Required(p.Child("csi"), "has to be specified when using volumeAttributesClassName")
		}
	}
	return e.List
}

// persistentSource checks that there is exactly one source, and it.
func persistentSource(e *validate.Errors, v *corev1.PersistentVolumeSource, p *field.Path) {
	count := 0
	member := func(set bool, name string, checks func(p *field.Path)) {
		if !set {
			return
		}
		if count++; count > 1 {
			e.Forbidden(p.Child(name), "may not specify more than 1 volume type")
			return
		}
		checks(p.Child(name))
	}
	secret := func(ref *corev1.SecretReference, p *field.Path) {
		if ref != nil {
			e.RequireText(ref.Name, p.Child("name"))
			e.RequireText(ref.Namespace, p.Child("namespace"))
		}
	}
	named := func(ref *corev1.SecretReference, p *field.Path) {
		if ref != nil {
			e.RequireText(ref.Name, p.Child("name"))
		}
	}
	member(v.HostPath != nil, "hostPath", func(p *field.Path) { podspec.HostPath(e, v.HostPath, p) })
	member(v.GCEPersistentDisk != nil, "gcePersistentDisk", func(p *field.Path) {
		e.RequireText(v.GCEPersistentDisk.PDName, p.Child("pdName"))
		podspec.Partition(e, v.GCEPersistentDisk.Partition, p)
	})
	member(v.AWSElasticBlockStore != nil, "awsElasticBlockStore", func(p *field.Path) {
		e.RequireText(v.AWSElasticBlockStore.VolumeID, p.Child("volumeID"))
		podspec.Partition(e, v.AWSElasticBlockStore.Partition, p)
	})
	member(v.Glusterfs != nil, "glusterfs", func(p *field.Path) {
		e.RequireText(v.Glusterfs.EndpointsName, p.Child("endpoints"))
		e.RequireText(v.Glusterfs.Path, p.Child("path"))
		if v.Glusterfs.EndpointsNamespace != nil {
			e.DNSLabel(*v.Glusterfs.EndpointsNamespace, p.Child("endpointsNamespace"))
		}
	})
	member(v.Flocker != nil, "flocker", func(p *field.Path) { podspec.Flocker(e, v.Flocker, p) })
	member(v.NFS != nil, "nfs", func(p *field.Path) { podspec.NFS(e, v.NFS, p) })
	member(v.RBD != nil, "rbd", func(p *field.Path) {
		if len(v.RBD.CephMonitors) == 0 {
			e.Required(p.Child("monitors"), "")
		}
		e.RequireText(v.RBD.RBDImage, p.Child("image"))
	})
	member(v.Quobyte != nil, "quobyte", func(p *field.Path) { podspec.Quobyte(e, v.Quobyte, p) })
	member(v.CephFS != nil, "cephfs", func(p *field.Path) {
		if len(v.CephFS.Monitors) == 0 {
			e.Required(p.Child("monitors"), "")
		}
	})
	member(v.ISCSI != nil, "iscsi", func(p *field.Path) {
		podspec.ISCSI(e, v.ISCSI.TargetPortal, v.ISCSI.IQN, v.ISCSI.Lun, v.ISCSI.InitiatorName, p)
		if (v.ISCSI.DiscoveryCHAPAuth || v.ISCSI.SessionCHAPAuth) && v.ISCSI.SecretRef == nil {
			e.Required(p.Child("secretRef"), "")
		}
		named(v.ISCSI.SecretRef, p.Child("secretRef"))
	})
	member(v.Cinder != nil, "cinder", func(p *field.Path) {
		e.RequireText(v.Cinder.VolumeID, p.Child("volumeID"))
		secret(v.Cinder.SecretRef, p.Child("secretRef"))
	})
	member(v.FC != nil, "fc", func(p *field.Path) { podspec.FibreChannel(e, v.FC, p) })
	member(v.FlexVolume != nil, "flexVolume", func(p *field.Path) { podspec.FlexVolume(e, v.FlexVolume.Driver, v.FlexVolume.Options, p) })
	member(v.AzureFile != nil, "azureFile", func(p *field.Path) {
		e.RequireText(v.AzureFile.SecretName, p.Child("secretName"))
		e.RequireText(v.AzureFile.ShareName, p.Child("shareName"))
		if v.AzureFile.SecretNamespace != nil && *v.AzureFile.SecretNamespace == "" {
			e.Required(p.Child("secretNamespace"), "")
		}
	})
	member(v.VsphereVolume != nil, "vsphereVolume", func(p *field.Path) { e.RequireText(v.VsphereVolume.VolumePath, p.Child("volumePath")) })
	member(v.PhotonPersistentDisk != nil, "photonPersistentDisk", func(p *field.Path) { e.RequireText(v.PhotonPersistentDisk.PdID, p.Child("pdID")) })
	member(v.PortworxVolume != nil, "portworxVolume", func(p *field.Path) { e.RequireText(v.PortworxVolume.VolumeID, p.Child("volumeID")) })
	member(v.AzureDisk != nil, "azureDisk", func(p *field.Path) { podspec.AzureDisk(e, v.AzureDisk, p) })
	member(v.ScaleIO != nil, "scaleIO", func(p *field.Path) {
		e.RequireText(v.ScaleIO.Gateway, p.Child("gateway"))
		e.RequireText(v.ScaleIO.System, p.Child("system"))
		e.RequireText(v.ScaleIO.VolumeName, p.Child("volumeName"))
	})
	member(v.Local != nil, "local", func(p *field.Path) {
		if v.Local.Path == "" {
			e.Required(p.Child("path"), "")
			return
		}
		e.NoBackstep(v.Local.Path, p.Child("path"))
	})
	member(v.StorageOS != nil, "storageos", func(p *field.Path) {
		podspec.StorageOS(e, v.StorageOS.VolumeName, v.StorageOS.VolumeNamespace, p)
	})
	member(v.CSI != nil, "csi", func(p *field.Path) {
		podspec.CSIDriverName(e, v.CSI.Driver, p.Child("driver"))
		e.RequireText(v.CSI.VolumeHandle, p.Child("volumeHandle"))
		secret(v.CSI.ControllerPublishSecretRef, p.Child("controllerPublishSecretRef"))
		secret(v.CSI.ControllerExpandSecretRef, p.Child("controllerExpandSecretRef"))
		secret(v.CSI.NodePublishSecretRef, p.Child("nodePublishSecretRef"))
		secret(v.CSI.NodeExpandSecretRef, p.Child("nodeExpandSecretRef"))
	})
	if count == 0 {
		e.Required(p, "must specify a volume type")
	}
}

func validatePersistentVolumeUpdate(pv, old *corev1.PersistentVolume) field.ErrorList {
	e := &validate.Errors{}
	e.Add(validatePersistentVolume(pv))
	spec := field.NewPath("spec")
	now, before := pv.Spec.PersistentVolumeSource.DeepCopy(), old.Spec.PersistentVolumeSource.DeepCopy()
	if now.CSI != nil && before.CSI != nil && before.CSI.ControllerExpandSecretRef == nil {
		now.CSI.ControllerExpandSecretRef = nil // may be added later
	}
	if !equality.Semantic.DeepEqual(now, before) {
		e.Forbidden(spec.Child("persistentvolumesource"),
			fmt.Sprintf("spec.persistentvolumesource is immutable after creation\n%v", diff.Diff(old.Spec.PersistentVolumeSource, pv.Spec.PersistentVolumeSource)))
	}
	e.Immutable(pv.Spec.VolumeMode, old.Spec.VolumeMode, spec.Child("volumeMode"))
	if old.Spec.NodeAffinity != nil {
		e.Immutable(pv.Spec.NodeAffinity, old.Spec.NodeAffinity, spec.Child("nodeAffinity"))
	}
	return e.List
}

func persistentVolumeWarnings(pv *corev1.PersistentVolume) []string {
	var out []string
	for _, deprecated := range []struct {
		set  bool
		text string
	}{
		{pv.Spec.PhotonPersistentDisk != nil, "spec.photonPersistentDisk: deprecated in v1.11, non-functional in v1.16+"},
		{pv.Spec.ScaleIO != nil, "spec.scaleIO: deprecated in v1.16, non-functional in v1.22+"},
		{pv.Spec.Flocker != nil, "spec.flocker: deprecated in v1.22, non-functional in v1.25+"},
		{pv.Spec.StorageOS != nil, "spec.storageOS: deprecated in v1.22, non-functional in v1.25+"},
		{pv.Spec.Quobyte != nil, "spec.quobyte: deprecated in v1.22, non-functional in v1.25+"},
		{pv.Spec.Glusterfs != nil, "spec.glusterfs: deprecated in v1.25, non-functional in v1.26+"},
		{pv.Spec.CephFS != nil, "spec.cephfs: deprecated in v1.28, non-functional in v1.31+"},
		{pv.Spec.RBD != nil, "spec.rbd: deprecated in v1.28, non-functional in v1.31+"},
	} {
		if deprecated.set {
			out = append(out, deprecated.text)
		}
	}
	if _, set := pv.Annotations[corev1.BetaStorageClassAnnotation]; set {
		out = append(out, fmt.Sprintf("metadata.annotations[%s]: deprecated since v1.8; use \"storageClassName\" attribute instead", corev1.BetaStorageClassAnnotation))
	}
	if pv.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		out = append(out, "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.")
	}
	if a := pv.Spec.NodeAffinity; a != nil && a.Required != nil {
		for i, term := range a.Required.NodeSelectorTerms {
			for j, r := range term.MatchExpressions {
				if text := podspec.NodeLabelWarning(r.Key); text != "" {
					p := field.NewPath("spec", "nodeAffinity", "required", "nodeSelectorTerms").Index(i).Child("matchExpressions").Index(j).Child("key")
					out = append(out, fmt.Sprintf("%s: %s is %s", p, r.Key, text))
				}
			}
		}
	}
	return out
}
