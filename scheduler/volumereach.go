package scheduler

import (
	"cmp"
	"slices"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	volumehelper "k8s.io/component-helpers/storage/volume"
)

// Reach holds what can be reached from some nodes only, in an order: volumes, or storage to make them of. What asks for one label to have one of some values
// is found by the node's value, without looking at the rest. The nil Reach is empty.
type Reach[T any] struct {
	order   func(a, b T) int
	byLabel map[string]map[string][]reached[T]
	rest    []reached[T]
	others  map[string]int
}

type reached[T any] struct {
	it      T
	matches func(labels map[string]string) bool // nil: all
}

// origin says from where something can be reached: from nodes whose label of that key has one of the values, "" for all; and of those from
// the ones that match, unless that is nil, which depends on other labels.
type origin struct {
	key     string
	values  []string
	matches func(labels map[string]string) bool
	others  []string
}

func newReach[T any](order func(a, b T) int) *Reach[T] {
	return &Reach[T]{order: order, byLabel: map[string]map[string][]reached[T]{}, others: map[string]int{}}
}

func (r *Reach[T]) put(it T, at origin, sign int) {
	change := func(in []reached[T]) []reached[T] {
		i, _ := slices.BinarySearchFunc(in, it, func(a reached[T], b T) int { return r.order(a.it, b) })
		if sign < 0 {
			return slices.Delete(in, i, i+1)
		}
		return slices.Insert(in, i, reached[T]{it, at.matches})
	}
	for _, key := range at.others {
		if r.others[key] += sign; r.others[key] == 0 {
			delete(r.others, key)
		}
	}
	if at.key == "" {
		r.rest = change(r.rest)
		return
	}
	for _, value := range at.values {
		if r.byLabel[at.key] == nil {
			r.byLabel[at.key] = map[string][]reached[T]{}
		}
		if in := change(r.byLabel[at.key][value]); len(in) > 0 {
			r.byLabel[at.key][value] = in
		} else {
			if delete(r.byLabel[at.key], value); len(r.byLabel[at.key]) == 0 {
				delete(r.byLabel, at.key)
			}
		}
	}
}

// Labels are those of nodes by which it is decided what can be reached: first those where one value is enough to find it, then those that must be looked at
// besides. They are in no order.
func (r *Reach[T]) Labels() (single, others []string) {
	if r == nil {
		return nil, nil
	}
	for key := range r.byLabel {
		single = append(single, key)
	}
	for key := range r.others {
		others = append(others, key)
	}
	return single, others
}

// Rest reports whether there is anything that is not found by the value of one label.
func (r *Reach[T]) Rest() bool { return r != nil && len(r.rest) > 0 }

// First is the first that can be reached from the node and suits. Those in order before the first for which enough is true don't; nil: all are enough.
// If label isn't nil only what is found by the value of such a label counts.
func (r *Reach[T]) First(n *Node, enough, suits func(T) bool, label func(key string) bool) (best T, ok bool) {
	if r == nil {
		return best, false
	}
	look := func(in []reached[T]) {
		from := 0
		if enough != nil {
			from = sort.Search(len(in), func(i int) bool { return enough(in[i].it) })
		}
		for i := from; i < len(in); i++ {
			it := &in[i]
			if ok && r.order(best, it.it) <= 0 {
				return
			}
			if (it.matches == nil || it.matches(n.Object.Labels)) && suits(it.it) {
				best, ok = it.it, true
				return
			}
		}
	}
	for key, values := range r.byLabel {
		if label != nil && !label(key) {
			continue
		}
		if value, has := n.Object.Labels[key]; has {
			look(values[value])
		}
	}
	if label == nil {
		look(r.rest)
	}
	return best, ok
}

// reaches holds what of storage is looked for by node. It is made when it is first asked for.
type reaches struct {
	shown   map[string]*corev1.PersistentVolume   // as counted here; nil if nothing is made yet
	meant   map[string][]*corev1.PersistentVolume // by the claim they are for
	free    map[string]*Reach[*corev1.PersistentVolume]
	storage map[string]*Reach[*storagev1.CSIStorageCapacity]
}

func (v *View) reaches() *reaches {
	r := &v.storage.reaches
	if r.shown == nil {
		*r = reaches{
			shown: map[string]*corev1.PersistentVolume{}, meant: map[string][]*corev1.PersistentVolume{},
			free: map[string]*Reach[*corev1.PersistentVolume]{}, storage: map[string]*Reach[*storagev1.CSIStorageCapacity]{},
		}
		for name := range v.storage.volumes.all() {
			v.volumeMoved(name)
		}
		for _, c := range v.storage.capacities.all() {
			v.capacityMoved(nil, c)
		}
	}
	return r
}

// FreeVolumes are the volumes of a class that are available and of no claim, the smallest first.
func (v *View) FreeVolumes(class string) *Reach[*corev1.PersistentVolume] {
	return v.reaches().free[class]
}

// VolumesFor are those that name a claim as theirs, whether it names them or not, in no order. The slice must not be modified.
func (v *View) VolumesFor(namespace, claim string) []*corev1.PersistentVolume {
	return v.reaches().meant[namespace+"/"+claim]
}

// StorageCapacities are those of a StorageClass, by namespace and name.
func (v *View) StorageCapacities(class string) *Reach[*storagev1.CSIStorageCapacity] {
	return v.reaches().storage[class]
}

// volumeMoved counts a volume anew, as it is shown now.
func (v *View) volumeMoved(name string) {
	r := &v.storage.reaches
	if r.shown == nil {
		return
	}
	was, is := r.shown[name], v.Volume(name)
	if was == is {
		return
	}
	v.countVolume(was, -1)
	v.countVolume(is, 1)
	if r.shown[name] = is; is == nil {
		delete(r.shown, name)
	}
}

func (v *View) countVolume(pv *corev1.PersistentVolume, sign int) {
	if pv == nil {
		return
	}
	r := &v.storage.reaches
	if ref := pv.Spec.ClaimRef; ref != nil {
		key := ref.Namespace + "/" + ref.Name
		if sign > 0 {
			r.meant[key] = append(slices.Clip(r.meant[key]), pv)
		} else if r.meant[key] = slices.DeleteFunc(slices.Clone(r.meant[key]), func(o *corev1.PersistentVolume) bool { return o == pv }); len(r.meant[key]) == 0 {
			delete(r.meant, key)
		}
		return
	}
	if pv.Status.Phase != corev1.VolumeAvailable || pv.DeletionTimestamp != nil {
		return
	}
	class := volumehelper.GetPersistentVolumeClass(pv)
	if r.free[class] == nil {
		r.free[class] = newReach(bySize)
	}
	at := v.reachOf(pv)
	r.free[class].put(pv, at, sign)
	v.touchReach(at)
}

// bySize orders volumes by their size, and then by name.
func bySize(a, b *corev1.PersistentVolume) int {
	x, y := a.Spec.Capacity[corev1.ResourceStorage], b.Spec.Capacity[corev1.ResourceStorage]
	return cmp.Or(x.Cmp(y), strings.Compare(a.Name, b.Name))
}

func byName(a, b *storagev1.CSIStorageCapacity) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// capacityMoved counts a CSIStorageCapacity anew.
func (v *View) capacityMoved(was, is *storagev1.CSIStorageCapacity) {
	r := &v.storage.reaches
	if r.shown == nil {
		return
	}
	count := func(c *storagev1.CSIStorageCapacity, sign int) {
		if c == nil || c.NodeTopology == nil {
			return // it can be reached from nowhere
		}
		if r.storage[c.StorageClassName] == nil {
			r.storage[c.StorageClassName] = newReach(byName)
		}
		at := v.reachOfCapacity(c)
		r.storage[c.StorageClassName].put(c, at, sign)
		v.touchReach(at)
	}
	count(was, -1)
	count(is, 1)
}

// touchReach says that something changed that can be reached from few nodes.
func (v *View) touchReach(at origin) {
	if at.key == "" || v.Coarse(at.key) {
		return
	}
	for _, value := range at.values {
		for _, n := range v.NodesWith(at.key, value) {
			v.touch(n.slot)
		}
	}
}

// reachOf reads a volume's node affinity, of which only labels count.
func (v *View) reachOf(pv *corev1.PersistentVolume) (at origin) {
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return at
	}
	terms := pv.Spec.NodeAffinity.Required.NodeSelectorTerms
	simple := len(terms) == 1 && len(terms[0].MatchFields) == 0
	if simple {
		for _, e := range terms[0].MatchExpressions {
			if e.Operator == corev1.NodeSelectorOpIn && len(e.Values) > 0 && (at.key == "" || at.key != corev1.LabelHostname && e.Key == corev1.LabelHostname) {
				at.key, at.values = e.Key, distinct(e.Values)
			}
		}
		if at.key != "" && len(terms[0].MatchExpressions) == 1 {
			return at
		}
	}
	for i := range terms {
		for _, e := range terms[i].MatchExpressions {
			if e.Key != at.key {
				at.others = append(at.others, e.Key)
			}
		}
	}
	compiled, err := nodeaffinity.NewNodeSelector(pv.Spec.NodeAffinity.Required)
	seen := &corev1.Node{}
	at.matches = func(labels map[string]string) bool {
		seen.Labels = labels
		return err == nil && compiled.Match(seen)
	}
	return at
}

func distinct(values []string) []string {
	values = slices.Clone(values)
	slices.Sort(values)
	return slices.Compact(values)
}

// reachOfCapacity reads the topology of a CSIStorageCapacity.
func (v *View) reachOfCapacity(c *storagev1.CSIStorageCapacity) (at origin) {
	sel := c.NodeTopology
	for key, value := range sel.MatchLabels {
		if at.key == "" || at.key != corev1.LabelHostname && (key == corev1.LabelHostname || key < at.key) {
			at.key, at.values = key, []string{value}
		}
	}
	if len(sel.MatchLabels) == 1 && len(sel.MatchExpressions) == 0 {
		return at
	}
	for key := range sel.MatchLabels {
		if key != at.key {
			at.others = append(at.others, key)
		}
	}
	for _, e := range sel.MatchExpressions {
		if e.Key != at.key {
			at.others = append(at.others, e.Key)
		}
	}
	compiled, err := metav1.LabelSelectorAsSelector(sel)
	at.matches = func(set map[string]string) bool { return err == nil && compiled.Matches(labels.Set(set)) }
	return at
}
