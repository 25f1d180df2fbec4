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

	own *owner
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
	users       shared[string, *claimUse]      // by claim
	claimsOf    shared[string, []string]       // keys of claims by the volume they name; the slices never change
	pods        shared[types.UID, attachedPod] // those on nodes that have volumes of drivers
	presence    shared[string, *presence]      // by CSIVolume.key
	drivers     map[string]*DriverNodes
	slots       shared[string, int] // of nodes
	names       []string            // of nodes, by index
	namesLent   bool
	attachments shared[string, *storagev1.VolumeAttachment]
	on          shared[string, map[string]CSIVolume] // what attachments count as, by node and name; the inner maps never change
}

// claimUse are the pods on nodes that use a claim.
type claimUse struct {
	own    *owner
	direct int // not as an ephemeral volume
	pods   map[types.UID]*Pod
}

type attachedPod struct {
	slot    int
	volumes []CSIVolume
}

// presence of a volume, by node index.
type presence struct {
	own *owner
	on  map[int]uses
}

// uses of a volume on a node.
type uses struct{ pods, attachments int }

// key is the same for the same volume.
func (c CSIVolume) key() string { return c.Driver + "\x00" + c.Handle }

func (a *attached) fork() attached {
	a.namesLent = true
	return attached{
		users: a.users.fork(), claimsOf: a.claimsOf.fork(), pods: a.pods.fork(), presence: a.presence.fork(), drivers: maps.Clone(a.drivers), slots: a.slots.fork(),
		names: a.names, namesLent: true, attachments: a.attachments.fork(), on: a.on.fork(),
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
	if pv := v.storage.volumes.of(claim.Spec.VolumeName); claim.Spec.VolumeName != "" && pv != nil {
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
	if d != nil && len(d.Installed) < len(v.nodes) {
		d = v.driver(driver, len(v.nodes)-1)
	}
	return d
}

// VolumeUsed reports whether a pod on the node of that index uses the volume.
func (v *View) VolumeUsed(volume CSIVolume, index int) bool {
	p := v.attached.presence.of(volume.key())
	return p != nil && p.on[index].pods > 0
}

// VolumeNodes are the nodes with pods that use the volume, in no order.
func (v *View) VolumeNodes(volume CSIVolume) (nodes []*Node) {
	p := v.attached.presence.of(volume.key())
	if p == nil {
		return nil
	}
	for slot, u := range p.on {
		if u.pods > 0 && v.nodes[slot] != nil {
			nodes = append(nodes, v.nodes[slot])
		}
	}
	return nodes
}

// VolumeUsedAnywhere reports whether a pod on any node uses the volume, or it is attached to one.
func (v *View) VolumeUsedAnywhere(volume CSIVolume) bool {
	return v.attached.presence.of(volume.key()) != nil
}

func (d *DriverNodes) grow(n int) {
	d.Attached = grown(d.Attached, n)
	for len(d.Limit) < n {
		d.Limit = append(d.Limit, -1)
	}
	for len(d.Installed) < n {
		d.Installed = append(d.Installed, false)
	}
}

// driver is a driver's columns, to be changed.
func (v *View) driver(name string, slot int) *DriverNodes {
	d := v.attached.drivers[name]
	switch {
	case d == nil:
		d = &DriverNodes{own: v.own}
		v.attached.drivers[name] = d
	case d.own != v.own:
		c := *d
		c.own, c.Attached, c.Limit, c.Installed = v.own, slices.Clone(d.Attached), slices.Clone(d.Limit), slices.Clone(d.Installed)
		d = &c
		v.attached.drivers[name] = d
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
		u := a.user(v.own, key)
		if !ephemeral {
			u.direct += sign
		}
		if sign > 0 {
			u.pods[p.key()] = p
		} else if delete(u.pods, p.key()); len(u.pods) == 0 {
			a.users.delete(key)
		}
		return true
	})
	if !any {
		return
	}
	if sign > 0 {
		a.attach(v, p, slot)
	} else {
		a.detach(v, p.key())
	}
}

// user is who uses a claim, to be changed.
func (a *attached) user(own *owner, key string) *claimUse {
	u := a.users.of(key)
	switch {
	case u == nil:
		u = &claimUse{own: own, pods: map[types.UID]*Pod{}}
		a.users.set(key, u)
	case u.own != own:
		u = &claimUse{own, u.direct, maps.Clone(u.pods)}
		a.users.set(key, u)
	}
	return u
}

func (a *attached) attach(v *View, p *Pod, slot int) {
	var volumes []CSIVolume
	p.EachClaim(func(name string, ephemeral bool) bool {
		claim := v.storage.claims.of(p.Object.Namespace + "/" + name)
		if claim == nil || ephemeral && !metav1.IsControlledBy(claim, p.Object) {
			return true
		}
		if vol, ok := v.CSIVolumeOf(claim); ok && !slices.Contains(volumes, vol) {
			volumes = append(volumes, vol)
		}
		return true
	})
	a.pods.set(p.key(), attachedPod{slot, volumes})
	for _, vol := range volumes {
		a.use(v, vol, slot, 1, 0)
	}
}

func (a *attached) detach(v *View, uid types.UID) {
	p, ok := a.pods.get(uid)
	if !ok {
		return
	}
	a.pods.delete(uid)
	for _, vol := range p.volumes {
		a.use(v, vol, p.slot, -1, 0)
	}
}

func (a *attached) use(v *View, vol CSIVolume, slot, pods, attachments int) {
	key := vol.key()
	p := a.presence.of(key)
	switch {
	case p == nil:
		p = &presence{v.own, map[int]uses{}}
		a.presence.set(key, p)
	case p.own != v.own:
		p = &presence{v.own, maps.Clone(p.on)}
		a.presence.set(key, p)
	}
	was, there := p.on[slot]
	is := uses{was.pods + pods, was.attachments + attachments}
	if !there {
		v.driver(vol.Driver, slot).Attached[slot]++
	}
	if is.pods+is.attachments > 0 {
		p.on[slot] = is
		return
	}
	v.driver(vol.Driver, slot).Attached[slot]--
	if delete(p.on, slot); len(p.on) == 0 {
		a.presence.delete(key)
	}
}

// again counts the volumes of the pods that use a claim anew.
func (a *attached) again(v *View, key string) {
	u := a.users.of(key)
	if u == nil {
		return
	}
	for uid, p := range u.pods {
		slot := a.pods.of(uid).slot
		a.detach(v, uid)
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
		left := slices.DeleteFunc(slices.Clone(a.claimsOf.of(was)), func(k string) bool { return k == key })
		if a.claimsOf.set(was, left); len(left) == 0 {
			a.claimsOf.delete(was)
		}
	}
	if now := a.claimsOf.of(is); is != "" && !slices.Contains(now, key) {
		a.claimsOf.set(is, append(slices.Clip(now), key))
	}
	a.again(v, key)
}

// volumeSet is told of each change of a volume; now is nil for one that is gone.
func (a *attached) volumeSet(v *View, name string, old, now *corev1.PersistentVolume) {
	if old != nil && now != nil && csiOf(old) == csiOf(now) {
		return
	}
	for _, key := range a.claimsOf.of(name) {
		a.again(v, key)
	}
	var again []*storagev1.VolumeAttachment
	for _, obj := range a.attachments.all() {
		if p := obj.Spec.Source.PersistentVolumeName; p != nil && *p == name {
			again = append(again, obj)
		}
	}
	for _, obj := range again {
		a.attachmentSet(v, obj.Name, obj)
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
	var of []string
	for key := range a.users.all() {
		if claim := v.storage.claims.of(key); claim != nil && volumehelper.GetPersistentVolumeClaimClass(claim) == name {
			of = append(of, key)
		}
	}
	for _, key := range of {
		a.again(v, key)
	}
}

// limitsSet is told of each change of a CSINode; obj is nil for one that is gone.
func (a *attached) limitsSet(v *View, node string, obj *storagev1.CSINode) {
	slot, ok := a.slots.get(node)
	if !ok {
		return
	}
	for name, d := range a.drivers {
		if slot < len(d.Limit) && (d.Limit[slot] >= 0 || d.Installed[slot]) {
			d = v.driver(name, slot)
			d.limit(slot, -1)
			d.Installed[slot] = false
		}
	}
	v.touch(slot)
	if obj == nil {
		return
	}
	for i := range obj.Spec.Drivers {
		from := &obj.Spec.Drivers[i]
		d := v.driver(from.Name, slot)
		d.Installed[slot] = true
		if from.Allocatable != nil && from.Allocatable.Count != nil {
			d.limit(slot, *from.Allocatable.Count)
		}
	}
}

// nodeSet is told of each change of a node; n is nil for one that is gone.
func (a *attached) nodeSet(v *View, slot int, n *Node) {
	was, name := "", ""
	if slot < len(a.names) {
		was = a.names[slot]
	}
	if n != nil {
		name = n.Object.Name
	}
	if was == name {
		return
	}
	if a.namesLent {
		a.names, a.namesLent = slices.Clone(a.names), false
	}
	for len(a.names) <= slot {
		a.names = append(a.names, "")
	}
	if was != "" {
		a.limitsSet(v, was, nil)
		for _, vol := range a.on.of(was) {
			a.use(v, vol, slot, 0, -1)
		}
		a.slots.delete(was)
	}
	a.names[slot] = name
	if name != "" {
		a.slots.set(name, slot)
		a.limitsSet(v, name, v.storage.csiNodes.of(name))
		for _, vol := range a.on.of(name) {
			a.use(v, vol, slot, 0, 1)
		}
	}
}

// attachmentSet is told of each change of a VolumeAttachment, or of its volume; obj is nil for one that is gone.
func (a *attached) attachmentSet(v *View, name string, obj *storagev1.VolumeAttachment) {
	if old := a.attachments.of(name); old != nil {
		on := a.on.of(old.Spec.NodeName)
		if vol, ok := on[name]; ok {
			on = maps.Clone(on)
			delete(on, name)
			if a.on.set(old.Spec.NodeName, on); len(on) == 0 {
				a.on.delete(old.Spec.NodeName)
			}
			if slot, ok := a.slots.get(old.Spec.NodeName); ok {
				a.use(v, vol, slot, 0, -1)
				v.touch(slot)
			}
		}
	}
	if obj == nil {
		a.attachments.delete(name)
		return
	}
	a.attachments.set(name, obj)
	if obj.Spec.Attacher == "" || obj.Spec.Source.PersistentVolumeName == nil {
		return
	}
	pv := v.storage.volumes.of(*obj.Spec.Source.PersistentVolumeName)
	if pv == nil || pv.Spec.CSI == nil {
		return
	}
	vol := CSIVolume{obj.Spec.Attacher, pv.Spec.CSI.VolumeHandle}
	on := maps.Clone(a.on.of(obj.Spec.NodeName))
	if on == nil {
		on = map[string]CSIVolume{}
	}
	on[name] = vol
	a.on.set(obj.Spec.NodeName, on)
	if slot, ok := a.slots.get(obj.Spec.NodeName); ok {
		a.use(v, vol, slot, 0, 1)
		v.touch(slot)
	}
}

// touch says that what is known of a node changed, though neither its object did nor its pods.
func (v *View) touch(slot int) {
	v.engine.log.add(slot, false)
}
