package decisions

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var classes = []string{"", "now", "late", "made", "told"}

func gib(n int) resource.Quantity { return *resource.NewQuantity(int64(n)<<30, resource.BinarySI) }

func (g *generator) volumes(p *corev1.Pod) {
	if !g.once(4) {
		return
	}
	seen := map[string]bool{}
	for i := range 1 + g.IntN(3) {
		v := corev1.Volume{Name: fmt.Sprint("v", i)}
		switch g.IntN(11) {
		case 0:
			v.GCEPersistentDisk = &corev1.GCEPersistentDiskVolumeSource{PDName: pick(g, "x", "y"), ReadOnly: g.once(2)}
		case 1:
			v.ISCSI = &corev1.ISCSIVolumeSource{TargetPortal: "10.0.0.1:1", IQN: pick(g, "iqn.x", "iqn.y"), Lun: 1, ReadOnly: g.once(2)}
		case 5:
			v.RBD = &corev1.RBDVolumeSource{CephMonitors: pick(g, []string{"m1", "m2"}, []string{"m2"}, []string{"m3"}), RBDPool: "pool", RBDImage: pick(g, "x", "y"), ReadOnly: g.once(2)}
		case 2:
			v.EmptyDir = &corev1.EmptyDirVolumeSource{}
		case 3:
			v.Image = &corev1.ImageVolumeSource{Reference: pick(g, "app", "other:1")}
		case 4:
			v.Ephemeral = &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: g.claim("").Spec}}
		default:
			name := fmt.Sprint("c", g.IntN(10))
			if seen[name] {
				continue
			}
			seen[name] = true
			v.PersistentVolumeClaim = &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}
		}
		p.Spec.Volumes = append(p.Spec.Volumes, v)
	}
}

func (g *generator) volume() *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("v", g.IntN(12)), Labels: map[string]string{"disk": pick(g, "ssd", "hdd")}}}
	pv.Spec.StorageClassName = pick(g, classes...)
	pv.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: gib(1 + g.IntN(5))}
	pv.Spec.AccessModes = pick(g, []corev1.PersistentVolumeAccessMode{"ReadWriteOnce", "ReadWriteOncePod"}, []corev1.PersistentVolumeAccessMode{"ReadWriteMany", "ReadWriteOnce"})
	pv.Status.Phase = pick(g, corev1.VolumeAvailable, corev1.VolumeAvailable, corev1.VolumeAvailable, corev1.VolumePending)
	pv.Spec.VolumeMode = ptr.To(pick(g, corev1.PersistentVolumeFilesystem, corev1.PersistentVolumeFilesystem, corev1.PersistentVolumeFilesystem, corev1.PersistentVolumeBlock))
	if g.once(2) {
		pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: pick(g, "d1", "d2"), VolumeHandle: pick(g, pv.Name, pv.Name, "shared")}
	} else {
		pv.Spec.NFS = &corev1.NFSVolumeSource{Server: "x", Path: "/"}
	}
	req := func(key string, values ...string) corev1.NodeSelectorRequirement {
		return corev1.NodeSelectorRequirement{Key: key, Operator: corev1.NodeSelectorOpIn, Values: values}
	}
	term := func(reqs ...corev1.NodeSelectorRequirement) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchExpressions: reqs}
	}
	var terms []corev1.NodeSelectorTerm
	switch g.IntN(12) {
	case 0, 4:
		terms = []corev1.NodeSelectorTerm{term(req(corev1.LabelHostname, g.nodeName()))}
	case 5:
		terms = []corev1.NodeSelectorTerm{term(req(corev1.LabelHostname, g.nodeName(), g.nodeName()), corev1.NodeSelectorRequirement{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpNotIn, Values: []string{"za"}})}
	case 6:
		terms = []corev1.NodeSelectorTerm{term(), {MatchFields: []corev1.NodeSelectorRequirement{req("metadata.name", g.nodeName())}}}
	case 7:
		terms = []corev1.NodeSelectorTerm{term(corev1.NodeSelectorRequirement{Key: "size", Operator: corev1.NodeSelectorOpGt, Values: []string{"2"}}), term(req(corev1.LabelHostname, g.nodeName()))}
	case 1:
		terms = []corev1.NodeSelectorTerm{term(req(corev1.LabelTopologyZone, pick(g, "za", "zb", "nowhere")))}
	case 2:
		terms = []corev1.NodeSelectorTerm{term(req(corev1.LabelTopologyZone, "za", "zb"), req(corev1.LabelHostname, "n1", "n2")), term(req(corev1.LabelHostname, "n3"))}
	case 3:
		terms = []corev1.NodeSelectorTerm{term(corev1.NodeSelectorRequirement{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpExists})}
	}
	if terms != nil {
		pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: terms}}
	}
	if g.once(3) {
		pv.Labels[pick(g, corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaRegion)] = pick(g, "za", "zb", "za__zb", "za__", "")
	}
	if g.once(6) {
		pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: pick(g, "d", "d", "e"), Name: fmt.Sprint("c", g.IntN(10))}
		if g.once(3) {
			pv.Spec.ClaimRef.UID = types.UID(fmt.Sprint(pv.Spec.ClaimRef.Name, "-", g.made-g.IntN(10)))
		}
	}
	if g.once(10) {
		pv.Spec.VolumeAttributesClassName = ptr.To(pick(g, "fast", ""))
	}
	if g.once(12) {
		pv.Annotations = map[string]string{corev1.BetaStorageClassAnnotation: pick(g, classes...)}
	}
	if g.once(15) {
		pv.DeletionTimestamp = &metav1.Time{Time: pv.CreationTimestamp.Time}
	}
	return pv
}

// claim has a name by which pods mount it, or that of an ephemeral volume.
func (g *generator) claim(name string) *corev1.PersistentVolumeClaim {
	g.made++
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: pick(g, "d", "d", "e"), Name: name, UID: types.UID(fmt.Sprint(name, "-", g.made))}}
	c.Spec.StorageClassName = ptr.To(pick(g, classes...))
	c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: gib(1 + g.IntN(4))}
	c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{pick(g, corev1.ReadWriteOnce, corev1.ReadWriteOnce, corev1.ReadWriteOncePod, corev1.ReadWriteMany)}
	c.Spec.VolumeMode = ptr.To(pick(g, corev1.PersistentVolumeFilesystem, corev1.PersistentVolumeFilesystem, corev1.PersistentVolumeFilesystem, corev1.PersistentVolumeBlock))
	if g.once(10) {
		c.Spec.VolumeAttributesClassName = ptr.To(pick(g, "fast", ""))
	}
	switch g.IntN(15) {
	case 0:
		c.Spec.StorageClassName = nil
	case 1:
		c.Annotations = map[string]string{corev1.BetaStorageClassAnnotation: pick(g, classes...)}
	case 2:
		c.Spec.VolumeMode = nil
	case 3:
		c.Spec.AccessModes = append(c.Spec.AccessModes, corev1.ReadOnlyMany)
	case 4:
		c.Spec.Selector = &metav1.LabelSelector{}
	}
	if g.once(5) {
		c.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"disk": pick(g, "ssd", "hdd")}}
	}
	if g.once(3) {
		c.Spec.VolumeName = fmt.Sprint("v", g.IntN(12))
		if !g.once(5) {
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, "pv.kubernetes.io/bind-completed", "yes")
		}
	} else if g.once(8) {
		metav1.SetMetaDataAnnotation(&c.ObjectMeta, "volume.kubernetes.io/selected-node", g.nodeName())
	}
	switch g.IntN(20) {
	case 0:
		c.DeletionTimestamp = &metav1.Time{}
	case 1:
		c.Status.Phase = corev1.ClaimLost
	}
	return c
}

// storage is anything of what volumes need.
func (g *generator) storage() client.Object {
	switch g.IntN(12) {
	case 0, 1, 2:
		return g.volume()
	case 3, 4, 5, 6:
		c := g.claim(fmt.Sprint("c", g.IntN(10)))
		if g.once(4) && g.made > 0 {
			n := 1 + g.IntN(g.made)
			c.Name = fmt.Sprintf("p%d-v%d", n, g.IntN(2))
			c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: fmt.Sprint("p", n), UID: types.UID(fmt.Sprint("u", n)), Controller: ptr.To(true)}}
		}
		return c
	case 7:
		s := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: pick(g, "now", "late", "made", "told")}}
		mode := storagev1.VolumeBindingWaitForFirstConsumer
		if s.Name == "now" {
			mode = storagev1.VolumeBindingImmediate
		}
		s.VolumeBindingMode = &mode
		s.Provisioner = map[string]string{"now": "d1", "late": "kubernetes.io/no-provisioner", "made": "d1", "told": "d2"}[s.Name]
		for range pick(g, 0, 0, 0, 1, 1, 2) {
			term := corev1.TopologySelectorTerm{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: corev1.LabelTopologyZone, Values: []string{pick(g, "za", "zb")}}}}
			switch g.IntN(4) {
			case 0:
				term.MatchLabelExpressions[0] = corev1.TopologySelectorLabelRequirement{Key: corev1.LabelHostname, Values: []string{g.nodeName(), g.nodeName()}}
			case 1:
				term.MatchLabelExpressions = append(term.MatchLabelExpressions, corev1.TopologySelectorLabelRequirement{Key: "disk", Values: []string{"ssd"}})
			case 2:
				term.MatchLabelExpressions = term.MatchLabelExpressions[:g.IntN(2)]
			}
			s.AllowedTopologies = append(s.AllowedTopologies, term)
		}
		if g.once(15) {
			s.Provisioner = pick(g, "d1", "d2")
		}
		return s
	case 8:
		n := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: g.nodeName()}}
		for _, d := range []string{"d1", "d2"} {
			if g.once(5) {
				continue
			}
			x := storagev1.CSINodeDriver{Name: d, NodeID: n.Name}
			if count := int32(g.IntN(4)); !g.once(3) {
				x.Allocatable = &storagev1.VolumeNodeResources{Count: &count}
			}
			n.Spec.Drivers = append(n.Spec.Drivers, x)
		}
		return n
	case 9:
		d := &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: pick(g, "d1", "d2")}}
		d.Spec.StorageCapacity = ptr.To(d.Name == "d2" != g.once(6))
		if g.once(3) {
			d.Spec.PreventPodSchedulingIfMissing = ptr.To(true)
		}
		return d
	case 10:
		k := &storagev1.CSIStorageCapacity{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: fmt.Sprint("k", g.IntN(8))}, StorageClassName: pick(g, "told", "told", "told", "made"), Capacity: ptr.To(gib(1 + g.IntN(10)))}
		if g.once(10) {
			k.Capacity = nil
		}
		switch g.IntN(8) {
		case 0, 1:
			k.NodeTopology = &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelTopologyZone: pick(g, "za", "zb")}}
		case 2, 3, 4:
			k.NodeTopology = &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelHostname: g.nodeName()}}
		case 5:
			k.NodeTopology = &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelHostname: g.nodeName(), "disk": "ssd"}}
		case 6:
			k.NodeTopology = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "disk", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"hdd"}}}}
		}
		if g.once(3) {
			k.MaximumVolumeSize = ptr.To(gib(1 + g.IntN(4)))
		}
		return k
	}
	a := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("a", g.IntN(4))}}
	a.Spec = storagev1.VolumeAttachmentSpec{Attacher: pick(g, "d1", "d2"), NodeName: g.nodeName(), Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr.To(fmt.Sprint("v", g.IntN(12)))}}
	return a
}
