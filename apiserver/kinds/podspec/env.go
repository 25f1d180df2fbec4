package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

func (c *check) env(vars []corev1.EnvVar, path *field.Path) {
	for i := range vars {
		v, p := &vars[i], path.Index(i)
		if v.Name == "" {
			c.Required(p.Child("name"), "")
		} else {
			c.InvalidEach(p.Child("name"), v.Name, validation.IsRelaxedEnvVarName(v.Name))
		}
		c.valueFrom(v, p.Child("valueFrom"))
	}
}

func (c *check) valueFrom(v *corev1.EnvVar, p *field.Path) {
	from := v.ValueFrom
	if from == nil {
		return
	}
	sources := 0
	if from.FieldRef != nil {
		sources++
		c.fieldRef(from.FieldRef, envFieldPaths, p.Child("fieldRef"))
	}
	if from.ResourceFieldRef != nil {
		sources++
		c.resourceFieldRef(from.ResourceFieldRef, false, p.Child("resourceFieldRef"))
	}
	if from.ConfigMapKeyRef != nil {
		sources++
		c.keyRef(from.ConfigMapKeyRef.Name, from.ConfigMapKeyRef.Key, p.Child("configMapKeyRef"))
	}
	if from.SecretKeyRef != nil {
		sources++
		c.keyRef(from.SecretKeyRef.Name, from.SecretKeyRef.Key, p.Child("secretKeyRef"))
	}
	if from.FileKeyRef != nil {
		sources++
		c.fileKeyRef(from.FileKeyRef, p.Child("fileKeyRef"))
	}
	switch {
	case sources == 0:
		c.Invalid(p, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")
	case v.Value != "":
		c.Invalid(p, "", "may not be specified when `value` is not empty")
	case sources > 1:
		c.Invalid(p, "", "may not have more than one field specified at a time")
	}
}

func (c *check) keyRef(name, key string, p *field.Path) {
	c.Name(name, apivalidation.NameIsDNSSubdomain, p.Child("name"))
	if key == "" {
		c.Required(p.Child("key"), "")
	} else {
		c.InvalidEach(p.Child("key"), key, validation.IsConfigMapKey(key))
	}
}

func (c *check) fileKeyRef(ref *corev1.FileKeySelector, p *field.Path) {
	if ref.Key == "" {
		c.Required(p.Child("key"), "")
	} else {
		c.InvalidEach(p.Child("key"), ref.Key, validation.IsRelaxedEnvVarName(ref.Key))
	}
	if ref.VolumeName == "" {
		c.Required(p.Child("volumeName"), "")
	} else if volume, found := c.volumes[ref.VolumeName]; !found {
		c.NotFound(p.Child("volumeName"), ref.VolumeName)
	} else if volume.EmptyDir == nil {
		c.Invalid(p.Child("volumeName"), ref.VolumeName, "referenced volume must be of type emptyDir")
	}
	if ref.Path == "" {
		c.Required(p.Child("path"), "")
	} else {
		c.NoBackstep(ref.Path, p.Child("path"))
	}
}

func (c *check) envFrom(sources []corev1.EnvFromSource, path *field.Path) {
	for i, source := range sources {
		p := path.Index(i)
		if source.Prefix != "" {
			c.InvalidEach(p.Child("prefix"), source.Prefix, validation.IsRelaxedEnvVarName(source.Prefix))
		}
		n := 0
		if source.ConfigMapRef != nil {
			n++
			c.objectName(source.ConfigMapRef.Name, p.Child("configMapRef", "name"))
		}
		if source.SecretRef != nil {
			n++
			c.objectName(source.SecretRef.Name, p.Child("secretRef", "name"))
		}
		switch {
		case n == 0:
			c.Invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")
		case n > 1:
			c.Invalid(path, "", "may not have more than one field specified at a time")
		}
	}
}

// objectName checks the name of a ConfigMap or Secret that something refers to.
func (c *check) objectName(name string, p *field.Path) {
	if name == "" {
		c.Required(p, "")
		return
	}
	c.InvalidEach(p, name, apivalidation.NameIsDNSSubdomain(name, true))
}

var (
	// envFieldPaths and volumeFieldPaths are the fields that the downward API gives, in the order messages list them.
	envFieldPaths = []string{
		"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
	}
	volumeFieldPaths = []string{"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"}
	// fieldLabels are the field labels of pods of version v1.
	fieldLabels = sets.New(
		"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
		"spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "spec.schedulerName",
		"status.phase", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
	)
	resourceFields = []string{
		"limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory",
	}
)

func (c *check) fieldRef(ref *corev1.ObjectFieldSelector, allowed []string, p *field.Path) {
	if ref.APIVersion == "" {
		c.Required(p.Child("apiVersion"), "")
		return
	}
	if ref.FieldPath == "" {
		c.Required(p.Child("fieldPath"), "")
		return
	}
	name, subscript, subscripted := splitSubscript(ref.FieldPath)
	if err := convertible(ref.APIVersion, ref.FieldPath, name, subscripted); err != "" {
		c.Invalid(p.Child("fieldPath"), ref.FieldPath, "error converting fieldPath: "+err)
		return
	}
	switch {
	case subscripted && name == "metadata.annotations":
		c.InvalidEach(p, subscript, validation.IsQualifiedName(strings.ToLower(subscript)))
	case subscripted:
		c.InvalidEach(p, subscript, validation.IsQualifiedName(subscript))
	default:
		if name == "spec.host" {
			name = "spec.nodeName"
		}
		for _, a := range allowed {
			if a == name {
				return
			}
		}
		validate.NotSupported(&c.Errors, p.Child("fieldPath"), name, allowed...)
	}
}

// convertible says why a field of a pod cannot be read in a version, or "".
func convertible(version, path, name string, subscripted bool) string {
	switch {
	case version != "v1":
		return fmt.Sprintf("unsupported pod version: %s", version)
	case subscripted && name != "metadata.annotations" && name != "metadata.labels":
		return fmt.Sprintf("field label does not support subscript: %s", path)
	case !subscripted && name != "spec.host" && !fieldLabels.Has(name):
		return fmt.Sprintf("field label not supported: %s", path)
	}
	return ""
}

// splitSubscript splits metadata.labels['key'] into its path and key.
func splitSubscript(path string) (name, subscript string, ok bool) {
	inner, found := strings.CutSuffix(path, "']")
	if !found {
		return path, "", false
	}
	name, subscript, found = strings.Cut(inner, "['")
	if !found || name == "" {
		return path, "", false
	}
	return name, subscript, true
}

const hugepagesField = "hugepages-"

func (c *check) resourceFieldRef(ref *corev1.ResourceFieldSelector, volume bool, p *field.Path) {
	isHuge := strings.HasPrefix(ref.Resource, "limits."+hugepagesField) || strings.HasPrefix(ref.Resource, "requests."+hugepagesField)
	switch {
	case volume && ref.ContainerName == "":
		c.Required(p.Child("containerName"), "")
	case ref.Resource == "":
		c.Required(p.Child("resource"), "")
	case !isHuge:
		validate.OneOf(&c.Errors, p.Child("resource"), ref.Resource, resourceFields...)
	}
	if ref.Divisor.IsZero() {
		return
	}
	const byteUnits = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei"
	var what string
	switch {
	case strings.HasSuffix(ref.Resource, ".cpu"):
		if s := ref.Divisor.String(); s != "1m" && s != "1" {
			c.Invalid(p.Child("divisor"), ref.Resource, "only divisor's values 1m and 1 are supported with the cpu resource")
		}
		return
	case strings.HasSuffix(ref.Resource, ".memory"):
		what = "memory"
	case strings.HasSuffix(ref.Resource, ".ephemeral-storage"):
		what = "local ephemeral storage"
	case isHuge:
		what = "hugepages"
	default:
		return
	}
	for _, unit := range strings.Split(byteUnits, ", ") {
		if ref.Divisor.String() == unit {
			return
		}
	}
	c.Invalid(p.Child("divisor"), ref.Resource, fmt.Sprintf("only divisor's values %s are supported with the %s resource", byteUnits, what))
}
