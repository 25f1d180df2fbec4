package plugins

import (
	"encoding/binary"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	volumehelper "k8s.io/component-helpers/storage/volume"

	"github.com/keelson/keelson/scheduler"
)

// delayedClaim is a claim that waits for its first consumer, with the volumes that it could have and the storage of which one could be made.
type delayedClaim struct {
	claim    *corev1.PersistentVolumeClaim
	selected string // the node that was selected for it before; then no volume is looked for
	class    *storagev1.StorageClass
	size     resource.Quantity
	// meant is the volume that is for this claim; then there is no other.
	meant *corev1.PersistentVolume
	from  *reach // nil: from all nodes
	// free are the volumes of the class, of which those that suit may be taken.
	free   *scheduler.Reach[*corev1.PersistentVolume]
	labels labels.Selector
	// room is the storage of the class, if the driver tells of it.
	room *scheduler.Reach[*storagev1.CSIStorageCapacity]
	told bool
}

// prepare returns why there can be no volume, if so.
func (d *delayedClaim) prepare(view *scheduler.View) string {
	var sized bool
	d.size, sized = d.claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if driver := view.CSIDriver(d.class.Provisioner); sized && driver != nil && driver.Spec.StorageCapacity != nil && *driver.Spec.StorageCapacity {
		d.told, d.room = true, view.StorageCapacities(d.class.Name)
	}
	if d.selected = d.claim.Annotations[volumehelper.AnnSelectedNode]; d.selected != "" {
		return ""
	}
	d.labels = labels.Everything()
	if d.claim.Spec.Selector != nil {
		sel, err := metav1.LabelSelectorAsSelector(d.claim.Spec.Selector)
		if err != nil {
			return "error creating internal label selector for claim: " + d.claim.Namespace + "/" + d.claim.Name + ": " + err.Error()
		}
		d.labels = sel
	}
	class := volumehelper.GetPersistentVolumeClaimClass(d.claim)
	for _, pv := range view.VolumesFor(d.claim.Namespace, d.claim.Name) {
		if volumehelper.GetPersistentVolumeClass(pv) == class && volumehelper.IsVolumeBoundToClaim(pv, d.claim) && pv.DeletionTimestamp == nil &&
			d.enough(pv) && d.fits(pv) && (d.meant == nil || pv.Name < d.meant.Name) {
			d.meant = pv
		}
	}
	if d.meant == nil {
		d.free = view.FreeVolumes(class)
	} else if a := d.meant.Spec.NodeAffinity; a != nil && a.Required != nil {
		r := reachOf(view, a.Required)
		d.from = &r
	}
	return ""
}

func (d *delayedClaim) enough(pv *corev1.PersistentVolume) bool {
	capacity := pv.Spec.Capacity[corev1.ResourceStorage]
	return capacity.Cmp(d.size) >= 0
}

func (d *delayedClaim) fits(pv *corev1.PersistentVolume) bool {
	return !volumehelper.CheckVolumeModeMismatches(&d.claim.Spec, &pv.Spec) &&
		attributesClass(d.claim.Spec.VolumeAttributesClassName) == attributesClass(pv.Spec.VolumeAttributesClassName)
}

func attributesClass(name *string) string {
	if name == nil {
		return ""
	}
	return *name
}

// smallest returns the smallest volume that can be reached from the node and is not taken, nil if there is none. If label isn't nil only those count
// that are found by the value of such a label.
func (d *delayedClaim) smallest(n *scheduler.Node, taken []string, label func(key string) bool) *corev1.PersistentVolume {
	if d.meant != nil {
		if slices.Contains(taken, d.meant.Name) || d.from != nil && !d.from.from(n) {
			return nil
		}
		return d.meant
	}
	pv, _ := d.free.First(n, d.enough, func(pv *corev1.PersistentVolume) bool {
		return d.fits(pv) && d.labels.Matches(labels.Set(pv.Labels)) && volumehelper.CheckAccessModes(d.claim, pv) && !slices.Contains(taken, pv.Name)
	}, label)
	return pv
}

// kind is the same for claims that the same volumes suit.
func (d *delayedClaim) kind() string {
	mode := corev1.PersistentVolumeFilesystem
	if d.claim.Spec.VolumeMode != nil {
		mode = *d.claim.Spec.VolumeMode
	}
	b := appendStrings(nil, volumehelper.GetPersistentVolumeClaimClass(d.claim), d.size.String(), string(mode), d.labels.String(), attributesClass(d.claim.Spec.VolumeAttributesClassName))
	for _, m := range d.claim.Spec.AccessModes {
		b = appendStrings(b, string(m))
	}
	return string(b)
}

// capacity finds room for the claim that can be reached from the node. Drivers that don't tell of their capacity are taken to have enough.
func (d *delayedClaim) capacity(n *scheduler.Node) (best *storagev1.CSIStorageCapacity, enough bool) {
	if !d.told {
		return nil, true
	}
	return d.room.First(n, nil, func(s *storagev1.CSIStorageCapacity) bool {
		limit := largestVolume(s)
		return limit != nil && limit.Value() >= d.size.Value()
	}, nil)
}

// only returns the nodes of which alone the pod's volumes can be reached, if that is known without looking at all nodes.
func (c *claims) only() (nodes []*scheduler.Node, ok bool) {
	for _, d := range c.delayed {
		if d.selected != "" {
			if n := c.view.Node(d.selected); n != nil {
				return []*scheduler.Node{n}, true
			}
			return []*scheduler.Node{}, true
		}
	}
	for _, r := range c.bound {
		if nodes, ok = r.only(c.view); ok {
			return nodes, true
		}
	}
	return nil, false
}

// features tell apart the nodes between which claims see a difference.
type features struct {
	view *scheduler.View
	keys []string
	id   []byte
	sums []scheduler.DomainSum
}

// coarse tells nodes apart by labels; it reports false if there are too many values of one.
func (f *features) coarse(keys []string) bool {
	for _, key := range keys {
		if slices.Contains(f.keys, key) {
			continue
		}
		if !f.view.Coarse(key) {
			return false
		}
		f.keys = append(f.keys, key)
	}
	return true
}

func (f *features) fine(key string) bool { return !f.view.Coarse(key) }

// sum tells nodes apart by an amount that is the same for all pods with the same id.
func (f *features) sum(id string, amount func(n *scheduler.Node) (int64, bool)) {
	f.id = appendStrings(f.id, id)
	f.sums = append(f.sums, scheduler.DomainSum{Amount: amount})
}

// domains are by what the nodes differ for the claims; nil if that takes to look at each.
func (c *claims) domains() *scheduler.DomainJudgement {
	f := &features{view: c.view}
	for _, r := range c.bound {
		if !f.coarse(r.labels()) {
			return nil
		}
	}
	for i, d := range c.delayed {
		if d.selected != "" || d.from != nil && !f.coarse(d.from.labels()) || !f.volumes(c.delayed, i) || !f.topologies(d) || !f.capacity(d) {
			return nil
		}
	}
	slices.Sort(f.keys)
	j := &scheduler.DomainJudgement{}
	for _, key := range f.keys {
		j.Sums = append(j.Sums, scheduler.DomainSum{Key: key, Apart: true, Amount: func(*scheduler.Node) (int64, bool) { return 0, false }})
	}
	j.Sums = append(j.Sums, f.sums...)
	j.ID = "volumes " + string(append(appendStrings(binary.AppendUvarint(nil, uint64(len(f.keys))), f.keys...), f.id...))
	return j
}

// volumes tells nodes apart by the free volumes for the i-th of the claims: by the size of those that few nodes reach.
func (f *features) volumes(all []*delayedClaim, i int) bool {
	d := all[i]
	single, others := d.free.Labels()
	fine := false
	for _, key := range single {
		if f.view.Coarse(key) {
			fine = !f.coarse([]string{key}) || fine
		} else {
			fine = true
		}
	}
	if !f.coarse(others) {
		return false
	}
	if !fine {
		return true
	}
	nth := 0 // claims of one kind take one volume after the other
	for _, o := range all[:i] {
		switch {
		case o.free != d.free:
		case o.kind() != d.kind():
			return false // they may be after the same volume
		default:
			nth++
		}
	}
	f.sum("volume\x00"+string(binary.AppendUvarint(nil, uint64(nth)))+d.kind(), func(n *scheduler.Node) (int64, bool) {
		var taken []string
		for {
			pv := d.smallest(n, taken, f.fine)
			if pv == nil {
				return 0, false
			}
			if taken = append(taken, pv.Name); len(taken) > nth {
				capacity := pv.Spec.Capacity[corev1.ResourceStorage]
				return capacity.Value(), true
			}
		}
	})
	return true
}

// topologies tells nodes apart by the class's allowed topologies.
func (f *features) topologies(d *delayedClaim) bool {
	var keys []string
	id := []byte("topology\x00")
	for i := range d.class.AllowedTopologies {
		terms := d.class.AllowedTopologies[i].MatchLabelExpressions
		id = binary.AppendUvarint(id, uint64(len(terms)))
		for k := range terms {
			keys = append(keys, terms[k].Key)
			id = binary.AppendUvarint(appendStrings(id, terms[k].Key), uint64(len(terms[k].Values)))
			id = appendStrings(id, terms[k].Values...)
		}
	}
	if f.coarse(keys) {
		return true
	}
	allowed := d.class.AllowedTopologies
	f.sum(string(id), func(n *scheduler.Node) (int64, bool) { return 0, allows(allowed, n.Object.Labels) })
	return true
}

// capacity tells nodes apart by the storage there is for a claim: where few nodes reach it, by how much that is.
func (f *features) capacity(d *delayedClaim) bool {
	if !d.told {
		return true
	}
	single, others := d.room.Labels()
	if !f.coarse(others) {
		return false
	}
	if !slices.ContainsFunc(single, f.fine) {
		return f.coarse(single)
	}
	if d.room.Rest() || slices.ContainsFunc(single, f.view.Coarse) {
		return false // the first by name counts, wherever it is
	}
	f.sum("capacity\x00"+string(appendStrings(nil, d.class.Name, d.size.String())), func(n *scheduler.Node) (int64, bool) {
		best, ok := d.capacity(n)
		if !ok || best.Capacity == nil {
			return -1, ok
		}
		return best.Capacity.Value(), true
	})
	return true
}
