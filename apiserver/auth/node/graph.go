package node

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/component-helpers/storage/ephemeral"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// kind of what pods use.
type kind uint8

const (
	unrelated kind = iota // to pods
	pods
	secrets
	configMaps
	claims
	accounts
	volumes
	attachments
	resourceClaims
)

// ref names an object.
type ref struct {
	kind            kind
	namespace, name string
}

// graph knows which nodes have to do with an object. It is changed object by object.
type graph struct {
	// pods are what each pod bound to a node uses, itself included; users counts the pods of each node that use an object.
	pods  map[ref]usage
	users map[ref]map[string]int
	// volumes have a claim and secrets; bySecret finds the volumes that need a secret.
	volumes  map[string]volume
	bySecret map[ref]map[string]bool
	// attachments are the nodes of VolumeAttachments.
	attachments map[string]string
}

type usage struct {
	node string
	uses []ref
}

type volume struct {
	claim   ref
	secrets []ref
}

func newGraph() graph {
	return graph{
		pods: map[ref]usage{}, users: map[ref]map[string]int{}, volumes: map[string]volume{}, bySecret: map[ref]map[string]bool{}, attachments: map[string]string{},
	}
}

func (g *graph) set(obj client.Object) {
	g.remove(obj)
	switch o := obj.(type) {
	case *corev1.Pod:
		if o.Spec.NodeName == "" {
			return
		}
		u := usage{o.Spec.NodeName, uses(o)}
		for _, r := range u.uses {
			if g.users[r] == nil {
				g.users[r] = map[string]int{}
			}
			g.users[r][u.node]++
		}
		g.pods[ref{pods, o.Namespace, o.Name}] = u
	case *corev1.PersistentVolume:
		if o.Spec.ClaimRef == nil {
			return
		}
		v := volume{claim: ref{claims, o.Spec.ClaimRef.Namespace, o.Spec.ClaimRef.Name}, secrets: volumeSecrets(o)}
		for _, s := range v.secrets {
			if g.bySecret[s] == nil {
				g.bySecret[s] = map[string]bool{}
			}
			g.bySecret[s][o.Name] = true
		}
		g.volumes[o.Name] = v
	case *storagev1.VolumeAttachment:
		g.attachments[o.Name] = o.Spec.NodeName
	}
}

func (g *graph) remove(obj client.Object) {
	switch o := obj.(type) {
	case *corev1.Pod:
		pod := ref{pods, o.Namespace, o.Name}
		u := g.pods[pod]
		delete(g.pods, pod)
		for _, r := range u.uses {
			if g.users[r][u.node]--; g.users[r][u.node] == 0 {
				delete(g.users[r], u.node)
			}
			if len(g.users[r]) == 0 {
				delete(g.users, r)
			}
		}
	case *corev1.PersistentVolume:
		for _, s := range g.volumes[o.Name].secrets {
			delete(g.bySecret[s], o.Name)
			if len(g.bySecret[s]) == 0 {
				delete(g.bySecret, s)
			}
		}
		delete(g.volumes, o.Name)
	case *storagev1.VolumeAttachment:
		delete(g.attachments, o.Name)
	}
}

// related reports whether node has to do with an object.
func (g *graph) related(node string, r ref) bool {
	switch r.kind {
	case volumes:
		v, ok := g.volumes[r.name]
		return ok && g.users[v.claim][node] > 0
	case attachments:
		n, ok := g.attachments[r.name]
		return ok && n == node
	case secrets:
		for name := range g.bySecret[r] {
			if g.users[g.volumes[name].claim][node] > 0 {
				return true
			}
		}
	}
	return g.users[r][node] > 0
}

// uses are a pod and what its node needs to run it. A mirror pod is a node's own word, and gives it nothing.
func uses(p *corev1.Pod) []ref {
	out := []ref{{pods, p.Namespace, p.Name}}
	if _, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return out
	}
	seen := map[ref]bool{}
	add := func(k kind, name string) {
		r := ref{k, p.Namespace, name}
		if name != "" && !seen[r] {
			seen[r] = true
			out = append(out, r)
		}
	}
	add(accounts, p.Spec.ServiceAccountName)
	for _, s := range p.Spec.ImagePullSecrets {
		add(secrets, s.Name)
	}
	for i := range p.Spec.InitContainers {
		environment(p.Spec.InitContainers[i].Env, p.Spec.InitContainers[i].EnvFrom, add)
	}
	for i := range p.Spec.Containers {
		environment(p.Spec.Containers[i].Env, p.Spec.Containers[i].EnvFrom, add)
	}
	for i := range p.Spec.EphemeralContainers {
		environment(p.Spec.EphemeralContainers[i].Env, p.Spec.EphemeralContainers[i].EnvFrom, add)
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		switch {
		case v.PersistentVolumeClaim != nil:
			add(claims, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			add(claims, ephemeral.VolumeClaimName(p, v))
		}
		volumeSource(&v.VolumeSource, add)
	}
	for _, c := range p.Spec.ResourceClaims {
		if c.ResourceClaimName != nil {
			add(resourceClaims, *c.ResourceClaimName)
		}
	}
	for _, c := range p.Status.ResourceClaimStatuses { // made from templates
		if c.ResourceClaimName != nil {
			add(resourceClaims, *c.ResourceClaimName)
		}
	}
	if c := p.Status.ExtendedResourceClaimStatus; c != nil {
		add(resourceClaims, c.ResourceClaimName)
	}
	return out
}

func environment(vars []corev1.EnvVar, from []corev1.EnvFromSource, add func(kind, string)) {
	for _, e := range vars {
		if f := e.ValueFrom; f != nil && f.SecretKeyRef != nil {
			add(secrets, f.SecretKeyRef.Name)
		} else if f != nil && f.ConfigMapKeyRef != nil {
			add(configMaps, f.ConfigMapKeyRef.Name)
		}
	}
	for _, e := range from {
		if e.SecretRef != nil {
			add(secrets, e.SecretRef.Name)
		}
		if e.ConfigMapRef != nil {
			add(configMaps, e.ConfigMapRef.Name)
		}
	}
}

func volumeSource(v *corev1.VolumeSource, add func(kind, string)) {
	local := func(r *corev1.LocalObjectReference) {
		if r != nil {
			add(secrets, r.Name)
		}
	}
	switch {
	case v.Secret != nil:
		add(secrets, v.Secret.SecretName)
	case v.ConfigMap != nil:
		add(configMaps, v.ConfigMap.Name)
	case v.AzureFile != nil:
		add(secrets, v.AzureFile.SecretName)
	case v.CephFS != nil:
		local(v.CephFS.SecretRef)
	case v.Cinder != nil:
		local(v.Cinder.SecretRef)
	case v.FlexVolume != nil:
		local(v.FlexVolume.SecretRef)
	case v.RBD != nil:
		local(v.RBD.SecretRef)
	case v.ScaleIO != nil:
		local(v.ScaleIO.SecretRef)
	case v.ISCSI != nil:
		local(v.ISCSI.SecretRef)
	case v.StorageOS != nil:
		local(v.StorageOS.SecretRef)
	case v.CSI != nil:
		local(v.CSI.NodePublishSecretRef)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.Secret != nil {
				add(secrets, s.Secret.Name)
			}
			if s.ConfigMap != nil {
				add(configMaps, s.ConfigMap.Name)
			}
		}
	}
}

// volumeSecrets are those that a kubelet needs to mount a volume; not those of the controllers that provision and attach it.
func volumeSecrets(v *corev1.PersistentVolume) []ref {
	var out []ref
	add := func(namespace, name string) {
		if namespace == "" {
			namespace = v.Spec.ClaimRef.Namespace
		}
		if name != "" {
			out = append(out, ref{secrets, namespace, name})
		}
	}
	of := func(r *corev1.SecretReference) {
		if r != nil {
			add(r.Namespace, r.Name)
		}
	}
	switch s := &v.Spec.PersistentVolumeSource; {
	case s.AzureFile != nil:
		namespace := ""
		if s.AzureFile.SecretNamespace != nil {
			namespace = *s.AzureFile.SecretNamespace
		}
		add(namespace, s.AzureFile.SecretName)
	case s.CephFS != nil:
		of(s.CephFS.SecretRef)
	case s.Cinder != nil:
		of(s.Cinder.SecretRef)
	case s.FlexVolume != nil:
		of(s.FlexVolume.SecretRef)
	case s.RBD != nil:
		of(s.RBD.SecretRef)
	case s.ScaleIO != nil:
		of(s.ScaleIO.SecretRef)
	case s.ISCSI != nil:
		of(s.ISCSI.SecretRef)
	case s.StorageOS != nil && s.StorageOS.SecretRef != nil:
		add(s.StorageOS.SecretRef.Namespace, s.StorageOS.SecretRef.Name)
	case s.CSI != nil:
		of(s.CSI.NodePublishSecretRef)
		of(s.CSI.NodeStageSecretRef)
		of(s.CSI.NodeExpandSecretRef)
	}
	return out
}
