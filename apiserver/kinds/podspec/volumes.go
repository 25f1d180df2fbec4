package podspec

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

// podVolumes checks the volumes and notes the good ones for what refers to them.
func (c *check) podVolumes(podName string, path *field.Path) {
	c.volumes = make(map[string]*corev1.VolumeSource, len(c.spec.Volumes))
	claims := sets.New[string]()
	for i := range c.spec.Volumes {
		if claim := c.spec.Volumes[i].PersistentVolumeClaim; claim != nil {
			claims.Insert(claim.ClaimName)
		}
	}
	names := sets.New[string]()
	for i := range c.spec.Volumes {
		v, p := &c.spec.Volumes[i], path.Index(i)
		before := len(c.List)
		c.volumeSource(&v.VolumeSource, p)
		if v.Name == "" {
			c.Required(p.Child("name"), "")
		} else {
			c.DNSLabel(v.Name, p.Child("name"))
		}
		if names.Has(v.Name) {
			c.Duplicate(p.Child("name"), v.Name)
		}
		if len(c.List) == before {
			names.Insert(v.Name)
			c.volumes[v.Name] = &v.VolumeSource
		}
		if v.Ephemeral != nil && podName != "" {
			claim := podName + "-" + v.Name
			for _, message := range apivalidation.NameIsDNSSubdomain(claim, false) {
				c.Invalid(p.Child("name"), v.Name, fmt.Sprintf("PVC name %q: %s", claim, message))
			}
			if claims.Has(claim) {
				c.Invalid(p.Child("name"), v.Name, fmt.Sprintf("conflicting PVC name %q", claim))
			}
		}
	}
}

// union counts the members of a union that are set, of which there must be one.
type union struct {
	c     *check
	p     *field.Path
	count int
	text  string
}

// member checks a member, unless it is the second.
func (u *union) member(set bool, name string, checks func(p *field.Path)) {
	if !set {
		return
	}
	u.count++
	if u.count > 1 {
		u.c.Forbidden(u.p.Child(name), u.text)
		return
	}
	if checks != nil {
		checks(u.p.Child(name))
	}
}

func (c *check) volumeSource(v *corev1.VolumeSource, path *field.Path) {
	u := &union{c: c, p: path, text: "may not specify more than 1 volume type"}
	u.member(v.EmptyDir != nil, "emptyDir", func(p *field.Path) {
		if limit := v.EmptyDir.SizeLimit; limit != nil && limit.Sign() < 0 {
			c.Forbidden(p.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity")
		}
	})
	u.member(v.HostPath != nil, "hostPath", func(p *field.Path) { HostPath(&c.Errors, v.HostPath, p) })
	u.member(v.GitRepo != nil, "gitRepo", func(p *field.Path) {
		c.RequireText(v.GitRepo.Repository, p.Child("repository"))
		c.LocalDescendingPath(v.GitRepo.Directory, p.Child("directory"))
	})
	u.member(v.GCEPersistentDisk != nil, "gcePersistentDisk", func(p *field.Path) {
		c.RequireText(v.GCEPersistentDisk.PDName, p.Child("pdName"))
		Partition(&c.Errors, v.GCEPersistentDisk.Partition, p)
	})
	u.member(v.AWSElasticBlockStore != nil, "awsElasticBlockStore", func(p *field.Path) {
		c.RequireText(v.AWSElasticBlockStore.VolumeID, p.Child("volumeID"))
		Partition(&c.Errors, v.AWSElasticBlockStore.Partition, p)
	})
	u.member(v.Secret != nil, "secret", func(p *field.Path) {
		c.RequireText(v.Secret.SecretName, p.Child("secretName"))
		c.Mode(v.Secret.DefaultMode, p.Child("defaultMode"))
		c.keysToPaths(v.Secret.Items, p.Child("items"))
	})
	u.member(v.NFS != nil, "nfs", func(p *field.Path) { NFS(&c.Errors, v.NFS, p) })
	u.member(v.ISCSI != nil, "iscsi", func(p *field.Path) {
		ISCSI(&c.Errors, v.ISCSI.TargetPortal, v.ISCSI.IQN, v.ISCSI.Lun, v.ISCSI.InitiatorName, p)
		if (v.ISCSI.DiscoveryCHAPAuth || v.ISCSI.SessionCHAPAuth) && v.ISCSI.SecretRef == nil {
			c.Required(p.Child("secretRef"), "")
		}
		if v.ISCSI.SecretRef != nil {
			c.RequireText(v.ISCSI.SecretRef.Name, p.Child("secretRef", "name"))
		}
	})
	u.member(v.Glusterfs != nil, "glusterfs", func(p *field.Path) {
		c.RequireText(v.Glusterfs.EndpointsName, p.Child("endpoints"))
		c.RequireText(v.Glusterfs.Path, p.Child("path"))
	})
	u.member(v.Flocker != nil, "flocker", func(p *field.Path) { Flocker(&c.Errors, v.Flocker, p) })
	u.member(v.PersistentVolumeClaim != nil, "persistentVolumeClaim", func(p *field.Path) {
		c.RequireText(v.PersistentVolumeClaim.ClaimName, p.Child("claimName"))
	})
	u.member(v.RBD != nil, "rbd", func(p *field.Path) {
		if len(v.RBD.CephMonitors) == 0 {
			c.Required(p.Child("monitors"), "")
		}
		c.RequireText(v.RBD.RBDImage, p.Child("image"))
	})
	u.member(v.Cinder != nil, "cinder", func(p *field.Path) {
		c.RequireText(v.Cinder.VolumeID, p.Child("volumeID"))
		if v.Cinder.SecretRef != nil {
			c.RequireText(v.Cinder.SecretRef.Name, p.Child("secretRef", "name"))
		}
	})
	u.member(v.CephFS != nil, "cephfs", func(p *field.Path) {
		if len(v.CephFS.Monitors) == 0 {
			c.Required(p.Child("monitors"), "")
		}
	})
	u.member(v.Quobyte != nil, "quobyte", func(p *field.Path) { Quobyte(&c.Errors, v.Quobyte, p) })
	u.member(v.DownwardAPI != nil, "downwardAPI", func(p *field.Path) {
		c.Mode(v.DownwardAPI.DefaultMode, p.Child("defaultMode"))
		for i := range v.DownwardAPI.Items {
			c.downwardFile(&v.DownwardAPI.Items[i], p.Child("items").Index(i))
		}
	})
	u.member(v.FC != nil, "fc", func(p *field.Path) { FibreChannel(&c.Errors, v.FC, p) })
	u.member(v.FlexVolume != nil, "flexVolume", func(p *field.Path) {
		FlexVolume(&c.Errors, v.FlexVolume.Driver, v.FlexVolume.Options, p)
	})
	u.member(v.ConfigMap != nil, "configMap", func(p *field.Path) {
		c.RequireText(v.ConfigMap.Name, p.Child("name"))
		c.Mode(v.ConfigMap.DefaultMode, p.Child("defaultMode"))
		c.keysToPaths(v.ConfigMap.Items, p.Child("items"))
	})
	u.member(v.AzureFile != nil, "azureFile", func(p *field.Path) {
		c.RequireText(v.AzureFile.SecretName, p.Child("secretName"))
		c.RequireText(v.AzureFile.ShareName, p.Child("shareName"))
	})
	u.member(v.VsphereVolume != nil, "vsphereVolume", func(p *field.Path) { c.RequireText(v.VsphereVolume.VolumePath, p.Child("volumePath")) })
	u.member(v.PhotonPersistentDisk != nil, "photonPersistentDisk", func(p *field.Path) { c.RequireText(v.PhotonPersistentDisk.PdID, p.Child("pdID")) })
	u.member(v.PortworxVolume != nil, "portworxVolume", func(p *field.Path) { c.RequireText(v.PortworxVolume.VolumeID, p.Child("volumeID")) })
	u.member(v.AzureDisk != nil, "azureDisk", func(p *field.Path) { AzureDisk(&c.Errors, v.AzureDisk, p) })
	u.member(v.StorageOS != nil, "storageos", func(p *field.Path) {
		StorageOS(&c.Errors, v.StorageOS.VolumeName, v.StorageOS.VolumeNamespace, p)
		if v.StorageOS.SecretRef != nil {
			c.RequireText(v.StorageOS.SecretRef.Name, p.Child("secretRef", "name"))
		}
	})
	u.member(v.Projected != nil, "projected", func(p *field.Path) { c.projected(v.Projected, p) })
	u.member(v.ScaleIO != nil, "scaleIO", func(p *field.Path) {
		c.RequireText(v.ScaleIO.Gateway, p.Child("gateway"))
		c.RequireText(v.ScaleIO.System, p.Child("system"))
		c.RequireText(v.ScaleIO.VolumeName, p.Child("volumeName"))
	})
	u.member(v.CSI != nil, "csi", func(p *field.Path) {
		CSIDriverName(&c.Errors, v.CSI.Driver, p.Child("driver"))
		if v.CSI.NodePublishSecretRef != nil {
			c.RequireText(v.CSI.NodePublishSecretRef.Name, p.Child("nodePublishSecretRef", "name"))
		}
	})
	u.member(v.Ephemeral != nil, "ephemeral", func(p *field.Path) { c.ephemeralVolume(v.Ephemeral, p) })
	u.member(v.Image != nil, "image", func(p *field.Path) {
		c.RequireText(v.Image.Reference, p.Child("reference"))
		validate.OneOf(&c.Errors, p.Child("pullPolicy"), v.Image.PullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
	})
	if u.count == 0 {
		c.Required(path, "must specify a volume type")
	}
}

func (c *check) keysToPaths(items []corev1.KeyToPath, path *field.Path) {
	for i := range items {
		p := path.Index(i)
		c.RequireText(items[i].Key, p.Child("key"))
		c.filePath(items[i].Path, p.Child("path"))
		c.Mode(items[i].Mode, p.Child("mode"))
	}
}

func (c *check) filePath(value string, p *field.Path) {
	c.RequireText(value, p)
	c.LocalNonReservedPath(value, p)
}

func (c *check) downwardFile(file *corev1.DownwardAPIVolumeFile, p *field.Path) {
	c.filePath(file.Path, p.Child("path"))
	switch {
	case file.FieldRef != nil:
		c.fieldRef(file.FieldRef, volumeFieldPaths, p.Child("fieldRef"))
		if file.ResourceFieldRef != nil {
			c.Invalid(p, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
		}
	case file.ResourceFieldRef != nil:
		c.resourceFieldRef(file.ResourceFieldRef, true, p.Child("resourceFieldRef"))
	default:
		c.Required(p, "one of fieldRef and resourceFieldRef is required")
	}
	c.Mode(file.Mode, p.Child("mode"))
}

func (c *check) projected(v *corev1.ProjectedVolumeSource, path *field.Path) {
	c.Mode(v.DefaultMode, path.Child("defaultMode"))
	taken := sets.New[string]()
	claim := func(p *field.Path, value any, name string) {
		if name == "" {
			return
		}
		if taken.Has(name) {
			c.Invalid(p, value, "conflicting duplicate paths")
		}
		taken.Insert(name)
	}
	for i := range v.Sources {
		source := &v.Sources[i]
		u := &union{c: c, p: path.Child("sources").Index(i), text: "may not specify more than 1 volume type"}
		u.member(source.Secret != nil, "secret", func(p *field.Path) {
			c.RequireText(source.Secret.Name, p.Child("name"))
			c.keysToPaths(source.Secret.Items, p.Child("items"))
			for _, item := range source.Secret.Items {
				claim(p, source.Secret.Name, item.Path)
			}
		})
		u.member(source.ConfigMap != nil, "configMap", func(p *field.Path) {
			c.RequireText(source.ConfigMap.Name, p.Child("name"))
			c.keysToPaths(source.ConfigMap.Items, p.Child("items"))
			for _, item := range source.ConfigMap.Items {
				claim(p, source.ConfigMap.Name, item.Path)
			}
		})
		u.member(source.DownwardAPI != nil, "downwardAPI", func(p *field.Path) {
			for j := range source.DownwardAPI.Items {
				c.downwardFile(&source.DownwardAPI.Items[j], p.Child("items").Index(j))
				claim(p, source.DownwardAPI.Items[j].Path, source.DownwardAPI.Items[j].Path)
			}
		})
		u.member(source.ServiceAccountToken != nil, "serviceAccountToken", func(p *field.Path) {
			token := source.ServiceAccountToken
			if seconds := token.ExpirationSeconds; seconds != nil {
				switch {
				case *seconds < 600:
					c.Invalid(p.Child("expirationSeconds"), *seconds, "may not specify a duration less than 10 minutes")
				case *seconds > 1<<32:
					c.Invalid(p.Child("expirationSeconds"), *seconds, "may not specify a duration larger than 2^32 seconds")
				}
			} else {
				c.Required(p.Child("expirationSeconds"), "")
			}
			c.filePath(token.Path, p.Child("path"))
			claim(p, token.Path, token.Path)
		})
		u.member(source.ClusterTrustBundle != nil, "clusterTrustBundle", func(p *field.Path) {
			c.filePath(source.ClusterTrustBundle.Path, p.Child("path"))
			claim(p, source.ClusterTrustBundle.Path, source.ClusterTrustBundle.Path)
		})
		u.member(source.PodCertificate != nil, "podCertificate", func(p *field.Path) {
			c.RequireText(source.PodCertificate.SignerName, p.Child("signerName"))
		})
		if u.count == 0 {
			c.Required(u.p, "must specify a projection type")
		}
	}
}

func (c *check) ephemeralVolume(v *corev1.EphemeralVolumeSource, p *field.Path) {
	template, p := v.VolumeClaimTemplate, p.Child("volumeClaimTemplate")
	if template == nil {
		c.Required(p, "")
		return
	}
	meta := p.Child("metadata")
	c.Add(apivalidation.ValidateAnnotations(template.Annotations, meta.Child("annotations")))
	c.Add(validateLabels(template.Labels, meta.Child("labels")))
	rest := template.ObjectMeta
	rest.Annotations, rest.Labels = nil, nil
	forbidUnlessZero(&c.Errors, rest, meta, "cannot be set for an ephemeral volume")
	c.Add(ValidateClaimSpec(&template.Spec, p.Child("spec")))
}

// Partition checks the number of a disk's partition.
func Partition(e *validate.Errors, partition int32, p *field.Path) {
	if partition < 0 || partition > 255 {
		e.Invalid(p.Child("partition"), partition, validation.InclusiveRangeError(0, 255))
	}
}

// HostPath checks a directory or file of the node.
func HostPath(e *validate.Errors, v *corev1.HostPathVolumeSource, p *field.Path) {
	if v.Path == "" {
		e.Required(p.Child("path"), "")
		return
	}
	e.NoBackstep(v.Path, p.Child("path"))
	if v.Type != nil && *v.Type != corev1.HostPathUnset {
		validate.OneOf(e, p.Child("type"), *v.Type, corev1.HostPathBlockDev, corev1.HostPathCharDev, corev1.HostPathDirectory,
			corev1.HostPathDirectoryOrCreate, corev1.HostPathFile, corev1.HostPathFileOrCreate, corev1.HostPathSocket)
	}
}

// NFS checks an NFS mount.
func NFS(e *validate.Errors, v *corev1.NFSVolumeSource, p *field.Path) {
	e.RequireText(v.Server, p.Child("server"))
	e.RequireText(v.Path, p.Child("path"))
	if !path.IsAbs(v.Path) {
		e.Invalid(p.Child("path"), v.Path, "must be an absolute path")
	}
}

var (
	iscsiIQN = regexp.MustCompile(`iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`)
	iscsiEUI = regexp.MustCompile(`^eui.[[:alnum:]]{16}$`)
	iscsiNAA = regexp.MustCompile(`^naa.[[:alnum:]]{32}$`)
)

// ISCSI checks what volumes and persistent volumes on iSCSI share.
func ISCSI(e *validate.Errors, portal, iqn string, lun int32, initiator *string, p *field.Path) {
	e.RequireText(portal, p.Child("targetPortal"))
	name := func(value string, p *field.Path) {
		switch {
		case !strings.HasPrefix(value, "iqn") && !strings.HasPrefix(value, "eui") && !strings.HasPrefix(value, "naa"),
			strings.HasPrefix(value, "iqn") && !iscsiIQN.MatchString(value),
			strings.HasPrefix(value, "eui") && !iscsiEUI.MatchString(value),
			strings.HasPrefix(value, "naa") && !iscsiNAA.MatchString(value):
			e.Invalid(p, value, "must be valid format")
		}
	}
	if iqn == "" {
		e.Required(p.Child("iqn"), "")
	} else {
		name(iqn, p.Child("iqn"))
	}
	if lun < 0 || lun > 255 {
		e.Invalid(p.Child("lun"), lun, validation.InclusiveRangeError(0, 255))
	}
	if initiator != nil {
		name(*initiator, p.Child("initiatorname"))
	}
}

// Flocker checks a Flocker dataset.
func Flocker(e *validate.Errors, v *corev1.FlockerVolumeSource, p *field.Path) {
	switch {
	case v.DatasetName == "" && v.DatasetUUID == "":
		e.Required(p, "one of datasetName and datasetUUID is required")
	case v.DatasetName != "" && v.DatasetUUID != "":
		e.Invalid(p, "resource", "datasetName and datasetUUID can not be specified simultaneously")
	}
	if strings.Contains(v.DatasetName, "/") {
		e.Invalid(p.Child("datasetName"), v.DatasetName, "must not contain '/'")
	}
}

// Quobyte checks a Quobyte volume.
func Quobyte(e *validate.Errors, v *corev1.QuobyteVolumeSource, p *field.Path) {
	if v.Registry == "" {
		e.Required(p.Child("registry"), "must be a host:port pair or multiple pairs separated by commas")
	}
	if len(v.Tenant) >= 65 {
		e.Required(p.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters")
	}
	e.RequireText(v.Volume, p.Child("volume"))
}

// FibreChannel checks a Fibre Channel volume: world wide names with a lun, or identifiers.
func FibreChannel(e *validate.Errors, v *corev1.FCVolumeSource, p *field.Path) {
	if len(v.TargetWWNs) == 0 && len(v.WWIDs) == 0 {
		e.Required(p.Child("targetWWNs"), "must specify either targetWWNs or wwids, but not both")
	}
	if len(v.TargetWWNs) > 0 && len(v.WWIDs) > 0 {
		e.Invalid(p.Child("targetWWNs"), v.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously")
	}
	if len(v.TargetWWNs) > 0 {
		if v.Lun == nil {
			e.Required(p.Child("lun"), "lun is required if targetWWNs is specified")
		} else if *v.Lun < 0 || *v.Lun > 255 {
			e.Invalid(p.Child("lun"), v.Lun, validation.InclusiveRangeError(0, 255))
		}
	}
}

// FlexVolume checks a volume of a FlexVolume driver.
func FlexVolume(e *validate.Errors, driver string, options map[string]string, p *field.Path) {
	e.RequireText(driver, p.Child("driver"))
	for key := range options {
		namespace, _, prefixed := strings.Cut(key, "/")
		if !prefixed {
			continue
		}
		normal := "." + strings.ToLower(namespace)
		if strings.HasSuffix(normal, ".kubernetes.io") || strings.HasSuffix(normal, ".k8s.io") {
			e.Invalid(p.Child("options").Key(key), key, "kubernetes.io and k8s.io namespaces are reserved")
		}
	}
}

// AzureDisk checks a disk of Azure.
func AzureDisk(e *validate.Errors, v *corev1.AzureDiskVolumeSource, p *field.Path) {
	e.RequireText(v.DiskName, p.Child("diskName"))
	e.RequireText(v.DataDiskURI, p.Child("diskURI"))
	if v.CachingMode != nil {
		validate.OneOfOrEmptyRefused(e, p.Child("cachingMode"), *v.CachingMode,
			corev1.AzureDataDiskCachingNone, corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)
	}
	if v.Kind == nil {
		return
	}
	validate.OneOfOrEmptyRefused(e, p.Child("kind"), *v.Kind, corev1.AzureDedicatedBlobDisk, corev1.AzureManagedDisk, corev1.AzureSharedBlobDisk)
	isManaged := *v.Kind == corev1.AzureManagedDisk
	if isManaged && !strings.HasPrefix(v.DataDiskURI, "/subscriptions/") {
		validate.NotSupported(e, p.Child("diskURI"), v.DataDiskURI, "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}")
	}
	if !isManaged && !strings.HasPrefix(v.DataDiskURI, "https://") {
		validate.NotSupported(e, p.Child("diskURI"), v.DataDiskURI, "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd")
	}
}

// StorageOS checks a StorageOS volume.
func StorageOS(e *validate.Errors, name, namespace string, p *field.Path) {
	if name == "" {
		e.Required(p.Child("volumeName"), "")
	} else {
		e.DNSLabel(name, p.Child("volumeName"))
	}
	if namespace != "" {
		e.DNSLabel(namespace, p.Child("volumeNamespace"))
	}
}

// CSIDriverName checks the name of a CSI driver.
func CSIDriverName(e *validate.Errors, name string, p *field.Path) {
	if name == "" {
		e.Required(p, "")
	}
	if len(name) > 63 {
		e.TooLong(p, name, 63)
	}
	e.DNSSubdomain(strings.ToLower(name), p)
}

func forbidUnlessZero(e *validate.Errors, meta metav1.ObjectMeta, p *field.Path, text string) {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"name", meta.Name != ""},
		{"generateName", meta.GenerateName != ""},
		{"namespace", meta.Namespace != ""},
		{"selfLink", meta.SelfLink != ""},
		{"uid", meta.UID != ""},
		{"resourceVersion", meta.ResourceVersion != ""},
		{"generation", meta.Generation != 0},
		{"creationTimestamp", !meta.CreationTimestamp.IsZero()},
		{"deletionTimestamp", meta.DeletionTimestamp != nil},
		{"deletionGracePeriodSeconds", meta.DeletionGracePeriodSeconds != nil},
		{"ownerReferences", meta.OwnerReferences != nil},
		{"finalizers", meta.Finalizers != nil},
		{"managedFields", meta.ManagedFields != nil},
	} {
		if f.set {
			e.Forbidden(p.Child(f.name), text)
		}
	}
}
