package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

func (c *check) volumeMounts(ctr *corev1.Container, path *field.Path) {
	devices, devicePaths := sets.New[string](), sets.New[string]()
	for _, device := range ctr.VolumeDevices {
		devices.Insert(device.Name)
		devicePaths.Insert(device.DevicePath)
	}
	points := sets.New[string]()
	for i := range ctr.VolumeMounts {
		m, p := &ctr.VolumeMounts[i], path.Index(i)
		if m.Name == "" {
			c.Required(p.Child("name"), "")
		}
		if _, found := c.volumes[m.Name]; !found {
			c.NotFound(p.Child("name"), m.Name)
		}
		c.RequireText(m.MountPath, p.Child("mountPath"))
		if points.Has(m.MountPath) {
			c.Invalid(p.Child("mountPath"), m.MountPath, "must be unique")
		}
		points.Insert(m.MountPath)
		if devices.Has(m.Name) {
			c.Invalid(p.Child("name"), m.Name, "must not already exist in volumeDevices")
		}
		if devicePaths.Has(m.MountPath) {
			c.Invalid(p.Child("mountPath"), m.MountPath, "must not already exist as a path in volumeDevices")
		}
		if m.SubPath != "" {
			c.LocalDescendingPath(m.SubPath, path.Child("subPath")) // without the index, as in kube-apiserver
		}
		if m.SubPathExpr != "" {
			if m.SubPath != "" {
				c.Invalid(p.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive")
			}
			c.LocalDescendingPath(m.SubPathExpr, p.Child("subPathExpr"))
		}
		c.propagation(m, ctr, path.Child("mountPropagation"))
		c.recursiveReadOnly(m, p.Child("recursiveReadOnly"))
	}
}

func (c *check) propagation(m *corev1.VolumeMount, ctr *corev1.Container, p *field.Path) {
	if m.MountPropagation == nil {
		return
	}
	validate.OneOfOrEmptyRefused(&c.Errors, p, *m.MountPropagation,
		corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)
	privileged := ctr.SecurityContext != nil && ctr.SecurityContext.Privileged != nil && *ctr.SecurityContext.Privileged
	if *m.MountPropagation == corev1.MountPropagationBidirectional && !privileged {
		c.Forbidden(p, "Bidirectional mount propagation is available only to privileged containers")
	}
}

func (c *check) recursiveReadOnly(m *corev1.VolumeMount, p *field.Path) {
	if m.RecursiveReadOnly == nil {
		return
	}
	validate.OneOfOrEmptyRefused(&c.Errors, p, *m.RecursiveReadOnly,
		corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible)
	if *m.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return
	}
	if !m.ReadOnly {
		c.Forbidden(p, "may only be specified when readOnly is true")
	}
	if m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
		c.Forbidden(p, "may only be specified when mountPropagation is None or not specified")
	}
}

func (c *check) volumeDevices(ctr *corev1.Container, path *field.Path) {
	mounts, mountPaths := sets.New[string](), sets.New[string]()
	for _, m := range ctr.VolumeMounts {
		mounts.Insert(m.Name)
		mountPaths.Insert(m.MountPath)
	}
	names, paths := sets.New[string](), sets.New[string]()
	for i, device := range ctr.VolumeDevices {
		p := path.Index(i)
		c.RequireText(device.Name, p.Child("name"))
		if names.Has(device.Name) {
			c.Invalid(p.Child("name"), device.Name, "must be unique")
		}
		if source, found := c.volumes[device.Name]; !found {
			c.NotFound(p.Child("name"), device.Name)
		} else if source.PersistentVolumeClaim == nil && source.Ephemeral == nil {
			c.Invalid(p.Child("name"), device.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode")
		}
		c.RequireText(device.DevicePath, p.Child("devicePath"))
		if paths.Has(device.DevicePath) {
			c.Invalid(p.Child("devicePath"), device.DevicePath, "must be unique")
		}
		before := len(c.List)
		c.NoBackstep(device.DevicePath, p.Child("devicePath"))
		if len(c.List) > before {
			c.List = c.List[:before]
			c.Invalid(p.Child("devicePath"), device.DevicePath, "can not contain backsteps ('..')")
		} else {
			paths.Insert(device.DevicePath)
		}
		if mounts.Has(device.Name) {
			c.Invalid(p.Child("name"), device.Name, "must not already exist in volumeMounts")
		}
		if mountPaths.Has(device.DevicePath) {
			c.Invalid(p.Child("devicePath"), device.DevicePath, "must not already exist as a path in volumeMounts")
		}
		if device.Name != "" {
			names.Insert(device.Name)
		}
	}
}
