package scheduler

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/storage/ephemeral"
	volumehelper "k8s.io/component-helpers/storage/volume"
)

// CSIVolume is a volume of a CSI driver.
type CSIVolume struct {
	Driver string
	// Handle is the driver's name of it; for a claim that has no volume yet, one that no driver uses.
	Handle string
}

// DriverNodes is what the view knows of a CSI driver by Node.Index.
type DriverNodes struct {
	// Attached is the number of volumes that are, or will be, attached to the node: those of its pods and those of VolumeAttachments.
	Attached []int32
	// Limit is the greatest number of volumes on the node; below 0 for none.
	Limit []int32
	// Installed is set for nodes whose CSINode has the driver.
	Installed []bool
	// Limited is how many nodes have a limit.
	Limited int
}

func (d *DriverNodes) limit(slot int, n int32) {
	if d.Limit[slot] >= 0 {
		d.Limited--
	}
	if n >= 0 {
		d.Limited++
	}
	d.Limit[slot] = n
}

// attached counts volumes by driver and node.
type attached struct {
	users       map[string]*claimUse        // by claim
	claimsOf    map[string]map[string]bool  // keys of claims by the volume they name
	pods        map[types.UID]attachedPod   // those on nodes that have volumes of drivers
	presence    map[CSIVolume]map[int]*uses // by node index
	drivers     map[string]*DriverNodes
	slots       map[string]int // of nodes
	names       []string       // of nodes, by index
	attachments map[string]*storagev1.VolumeAttachment
	on          map[string]map[string]CSIVolume // what attachments count as, by node and name
}

// claimUse are the pods on nodes that use a claim.
type claimUse struct {
	direct int // not as an ephemeral volume
	pods   map[types.UID]*Pod
}

type attachedPod struct {
	slot    int
	volumes []CSIVolume
}

// uses of a volume on a node.
type uses struct{ pods, attachments int }

func newAttached() attached {
	return attached{
		users: map[string]*claimUse{}, claimsOf: map[string]map[string]bool{}, pods: map[types.UID]attachedPod{},
		presence: map[CSIVolume]map[int]*uses{}, drivers: map[string]*DriverNodes{}, slots: map[string]int{},
		attachments: map[string]*storagev1.VolumeAttachment{}, on: map[string]map[string]CSIVolume{},
	}
}

// fork is filled with what does not depend on pods; those are put on nodes by the caller.
func (a *attached) fork(v *View) {
	for key, claims := range a.claimsOf {
		v.attached.claimsOf[key] = maps.Clone(claims)
	}
	for slot, n := range v.nodes {
		if n != nil {
			v.attached.nodeSet(v, slot, n)
		}
	}
	for name, obj := range a.attachments {
		v.attached.attachmentSet(v, name, obj)
	}
}

// EachClaim calls f with the name of each of the pod's claims until it returns false.
func (p *Pod) EachClaim(f func(name string, ephemeral bool) bool) {
	for i := range p.Object.Spec.Volumes {
		v := &p.Object.Spec.Volumes[i]
		switch {
		case v.PersistentVolumeClaim != nil:
			if !f(v.PersistentVolumeClaim.ClaimName, false) {
				return
			}
		case v.Ephemeral != nil:
			if !f(ephemeral.VolumeClaimName(p.Object, v), true) {
				return
			}
		}
	}
}

// CSIVolumeOf returns the volume that a claim has or will have of a CSI driver; ok is false if it has none.
func (v *View) CSIVolumeOf(claim *corev1.PersistentVolumeClaim) (_ CSIVolume, ok bool) {
	if pv := v.storage.volumes[claim.Spec.VolumeName]; claim.Spec.VolumeName != "" && pv != nil {
		if pv.Spec.CSI == nil {
			return CSIVolume{}, false
		}
		return CSIVolume{pv.Spec.CSI.Driver, pv.Spec.CSI.VolumeHandle}, true
	}
	class := v.storage.classes[volumehelper.GetPersistentVolumeClaimClass(claim)]
	if class == nil {
		return CSIVolume{}, false
	}
	return CSIVolume{class.Provisioner, "\x00" + claim.Namespace + "/" + claim.Name}, true
}

// DriverNodes returns the columns of a CSI driver, nil if no node has it or its volumes.
func (v *View) DriverNodes(driver string) *DriverNodes {
	d := v.attached.drivers[driver]
	if d != nil {
		d.grow(len(v.nodes))
	}
	return d
}

// VolumeUsed reports whether a pod on the node of that index uses the volume.
func (v *View) VolumeUsed(volume CSIVolume, index int) bool {
	u := v.attached.presence[volume][index]
	return u != nil && u.pods > 0
}

// VolumeNodes are the nodes with pods that use the volume, in no order.
func (v *View) VolumeNodes(volume CSIVolume) (nodes []*Node) {
	for slot, u := range v.attached.presence[volume] {
		if u.pods > 0 && v.nodes[slot] != nil {
			nodes = append(nodes, v.nodes[slot])
		}
	}
	return nodes
}

// VolumeUsedAnywhere reports whether a pod on any node uses the volume, or it is attached to one.
func (v *View) VolumeUsedAnywhere(volume CSIVolume) bool { return len(v.attached.presence[volume]) > 0 }

func (d *DriverNodes) grow(n int) {
	d.Attached = grown(d.Attached, n)
	for len(d.Limit) < n {
		d.Limit = append(d.Limit, -1)
	}
	for len(d.Installed) < n {
		d.Installed = append(d.Installed, false)
	}
}

func (a *attached) driver(name string, slot int) *DriverNodes {
	d := a.drivers[name]
	if d == nil {
		d = &DriverNodes{}
		a.drivers[name] = d
	}
	d.grow(slot + 1)
	return d
}

// put counts the volumes of a pod on a node (sign 1), or no longer (-1).
func (a *attached) put(v *View, p *Pod, slot, sign int) {
	any := false
	p.EachClaim(func(name string, ephemeral bool) bool {
		any = true
		key := p.Object.Namespace + "/" + name
		u := a.users[key]
		if u == nil {
			u = &claimUse{pods: map[types.UID]*Pod{}}
			a.users[key] = u
		}
		if !ephemeral {
			u.direct += sign
		}
		if sign > 0 {
			u.pods[p.key()] = p
		} else if delete(u.pods, p.key()); len(u.pods) == 0 {
			delete(a.users, key)
		}
		return true
	})
	if !any {
		return
	}
	if sign > 0 {
		a.attach(v, p, slot)
	} else {
		a.detach(p.key())
	}
}

func (a *attached) attach(v *View, p *Pod, slot int) {
	var volumes []CSIVolume
	p.EachClaim(func(name string, ephemeral bool) bool {
		claim := v.storage.claims[p.Object.Namespace+"/"+name]
		if claim == nil || ephemeral && !metav1.IsControlledBy(claim, p.Object) {
			return true
		}
		if vol, ok := v.CSIVolumeOf(claim); ok && !slices.Contains(volumes, vol) {
			volumes = append(volumes, vol)
		}
		return true
	})
	a.pods[p.key()] = attachedPod{slot, volumes}
	for _, vol := range volumes {
		a.use(vol, slot, 1, 0)
	}
}

func (a *attached) detach(uid types.UID) {
	p, ok := a.pods[uid]
	if !ok {
		return
	}
	delete(a.pods, uid)
	for _, vol := range p.volumes {
		a.use(vol, p.slot, -1, 0)
	}
}

func (a *attached) use(vol CSIVolume, slot, pods, attachments int) {
	on := a.presence[vol]
	if on == nil {
		on = map[int]*uses{}
		a.presence[vol] = on
	}
	u := on[slot]
	if u == nil {
		u = &uses{}
		on[slot] = u
		a.driver(vol.Driver, slot).Attached[slot]++
	}
	u.pods += pods
	u.attachments += attachments
	if u.pods+u.attachments > 0 {
		return
	}
	a.driver(vol.Driver, slot).Attached[slot]--
	if delete(on, slot); len(on) == 0 {
		delete(a.presence, vol)
	}
}

// again counts the volumes of the pods that use a claim anew.
func (a *attached) again(v *View, key string) {
	u := a.users[key]
	if u == nil {
		return
	}
	for uid, p := range u.pods {
		slot := a.pods[uid].slot
		a.detach(uid)
		a.attach(v, p, slot)
		v.touch(slot)
	}
}

// claimSet is told of each change of a claim; now is nil for one that is gone.
func (a *attached) claimSet(v *View, key string, old, now *corev1.PersistentVolumeClaim) {
	if old != nil && now != nil && old.Spec.VolumeName == now.Spec.VolumeName &&
		volumehelper.GetPersistentVolumeClaimClass(old) == volumehelper.GetPersistentVolumeClaimClass(now) && old.UID == now.UID {
		return
	}
	var was, is string
	if old != nil {
		was = old.Spec.VolumeName
	}
	if now != nil {
		is = now.Spec.VolumeName
	}
	if was != is && was != "" {
		deleteNested(a.claimsOf, was, key)
	}
	if is != "" {
		putNested(a.claimsOf, is, key, true)
	}
	a.again(v, key)
}

// volumeSet is told of each change of a volume; now is nil for one that is gone.
func (a *attached) volumeSet(v *View, name string, old, now *corev1.PersistentVolume) {
	if old != nil && now != nil && csiOf(old) == csiOf(now) {
		return
	}
	for key := range a.claimsOf[name] {
		a.again(v, key)
	}
	for _, obj := range a.attachments {
		if p := obj.Spec.Source.PersistentVolumeName; p != nil && *p == name {
			a.attachmentSet(v, obj.Name, obj)
		}
	}
}

func csiOf(pv *corev1.PersistentVolume) CSIVolume {
	if pv.Spec.CSI == nil {
		return CSIVolume{}
	}
	return CSIVolume{pv.Spec.CSI.Driver, pv.Spec.CSI.VolumeHandle}
}

// classSet is told when a class has another provisioner.
func (a *attached) classSet(v *View, name string) {
	for key := range a.users {
		if claim := v.storage.claims[key]; claim != nil && volumehelper.GetPersistentVolumeClaimClass(claim) == name {
			a.again(v, key)
		}
	}
}

// limitsSet is told of each change of a CSINode; obj is nil for one that is gone.
func (a *attached) limitsSet(v *View, node string, obj *storagev1.CSINode) {
	slot, ok := a.slots[node]
	if !ok {
		return
	}
	for _, d := range a.drivers {
		d.grow(slot + 1)
		d.limit(slot, -1)
		d.Installed[slot] = false
	}
	v.touch(slot)
	if obj == nil {
		return
	}
	for i := range obj.Spec.Drivers {
		from := &obj.Spec.Drivers[i]
		d := a.driver(from.Name, slot)
		d.Installed[slot] = true
		if from.Allocatable != nil && from.Allocatable.Count != nil {
			d.limit(slot, *from.Allocatable.Count)
		}
	}
}

// nodeSet is told of each change of a node; n is nil for one that is gone.
func (a *attached) nodeSet(v *View, slot int, n *Node) {
	for len(a.names) <= slot {
		a.names = append(a.names, "")
	}
	name := ""
	if n != nil {
		name = n.Object.Name
	}
	was := a.names[slot]
	if was == name {
		return
	}
	if was != "" {
		a.limitsSet(v, was, nil)
		for _, vol := range a.on[was] {
			a.use(vol, slot, 0, -1)
		}
		delete(a.slots, was)
	}
	a.names[slot] = name
	if name != "" {
		a.slots[name] = slot
		a.limitsSet(v, name, v.storage.csiNodes[name])
		for _, vol := range a.on[name] {
			a.use(vol, slot, 0, 1)
		}
	}
}

// attachmentSet is told of each change of a VolumeAttachment, or of its volume; obj is nil for one that is gone.
func (a *attached) attachmentSet(v *View, name string, obj *storagev1.VolumeAttachment) {
	if old := a.attachments[name]; old != nil {
		if vol, ok := a.on[old.Spec.NodeName][name]; ok {
			deleteNested(a.on, old.Spec.NodeName, name)
			if slot, ok := a.slots[old.Spec.NodeName]; ok {
				a.use(vol, slot, 0, -1)
				v.touch(slot)
			}
		}
	}
	if obj == nil {
		delete(a.attachments, name)
		return
	}
	a.attachments[name] = obj
	if obj.Spec.Attacher == "" || obj.Spec.Source.PersistentVolumeName == nil {
		return
	}
	pv := v.storage.volumes[*obj.Spec.Source.PersistentVolumeName]
	if pv == nil || pv.Spec.CSI == nil {
		return
	}
	vol := CSIVolume{obj.Spec.Attacher, pv.Spec.CSI.VolumeHandle}
	putNested(a.on, obj.Spec.NodeName, name, vol)
	if slot, ok := a.slots[obj.Spec.NodeName]; ok {
		a.use(vol, slot, 0, 1)
		v.touch(slot)
	}
}

// touch says that what is known of a node changed, though neither its object did nor its pods.
func (v *View) touch(slot int) {
	if v.engine != nil { // a fork isn't complete yet
		v.engine.log.add(slot, false)
	}
}
