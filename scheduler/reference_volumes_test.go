package scheduler_test

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// volumeWorld is the storage of a cluster, and a plain reading of Kubernetes' rules for it: everything is looked up anew each time.
type volumeWorld struct {
	nodes      map[string]*corev1.Node
	volumes    map[string]*corev1.PersistentVolume
	claims     map[string]*corev1.PersistentVolumeClaim
	classes    map[string]*storagev1.StorageClass
	csiNodes   map[string]*storagev1.CSINode
	drivers    map[string]*storagev1.CSIDriver
	capacities map[string]*storagev1.CSIStorageCapacity
	attached   map[string]*storagev1.VolumeAttachment
	pods       map[types.UID]*corev1.Pod
}

func newVolumeWorld() *volumeWorld {
	return &volumeWorld{
		nodes: map[string]*corev1.Node{}, volumes: map[string]*corev1.PersistentVolume{}, claims: map[string]*corev1.PersistentVolumeClaim{},
		classes: map[string]*storagev1.StorageClass{}, csiNodes: map[string]*storagev1.CSINode{}, drivers: map[string]*storagev1.CSIDriver{},
		capacities: map[string]*storagev1.CSIStorageCapacity{}, attached: map[string]*storagev1.VolumeAttachment{}, pods: map[types.UID]*corev1.Pod{},
	}
}

func claimNames(p *corev1.Pod) (out []string) {
	for _, v := range p.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			out = append(out, v.PersistentVolumeClaim.ClaimName)
		}
	}
	return out
}

func storageOf(l corev1.ResourceList) int64 {
	q := l[corev1.ResourceStorage]
	return q.Value()
}

func isBound(c *corev1.PersistentVolumeClaim) bool {
	return c.Spec.VolumeName != "" && c.Annotations["pv.kubernetes.io/bind-completed"] != ""
}

func (w *volumeWorld) late(c *corev1.PersistentVolumeClaim) bool {
	s := w.classes[*c.Spec.StorageClassName]
	return s != nil && *s.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// refuses says why no node can take the pod.
func (w *volumeWorld) refuses(p *corev1.Pod) string {
	for _, name := range claimNames(p) {
		if w.claims[name] == nil {
			return fmt.Sprintf("persistentvolumeclaim %q not found", name)
		}
	}
	for _, name := range claimNames(p) {
		c := w.claims[name]
		if c.Status.Phase == corev1.ClaimLost {
			return fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, c.Spec.VolumeName)
		}
		if c.DeletionTimestamp != nil {
			return fmt.Sprintf("persistentvolumeclaim %q is being deleted", name)
		}
	}
	for _, name := range claimNames(p) {
		if c := w.claims[name]; !isBound(c) && (c.Spec.VolumeName != "" || !w.late(c)) {
			return "pod has unbound immediate PersistentVolumeClaims"
		}
	}
	for _, name := range claimNames(p) {
		if c := w.claims[name]; isBound(c) && w.volumes[c.Spec.VolumeName] == nil {
			return fmt.Sprintf("persistentvolume %q not found", c.Spec.VolumeName)
		}
	}
	return ""
}

func reaches(pv *corev1.PersistentVolume, n *corev1.Node) bool {
	if pv.Spec.NodeAffinity == nil {
		return true
	}
	for _, t := range pv.Spec.NodeAffinity.Required.NodeSelectorTerms {
		ok := len(t.MatchExpressions) > 0
		for _, e := range t.MatchExpressions {
			v, has := n.Labels[e.Key]
			switch e.Operator {
			case corev1.NodeSelectorOpIn:
				ok = ok && has && slices.Contains(e.Values, v)
			case corev1.NodeSelectorOpExists:
				ok = ok && has
			}
		}
		if ok {
			return true
		}
	}
	return false
}

// driverOf is the driver and the handle of a claim's volume.
func (w *volumeWorld) driverOf(c *corev1.PersistentVolumeClaim) (driver, handle string) {
	if pv := w.volumes[c.Spec.VolumeName]; pv != nil {
		if pv.Spec.CSI == nil {
			return "", ""
		}
		return pv.Spec.CSI.Driver, pv.Spec.CSI.VolumeHandle
	}
	if s := w.classes[*c.Spec.StorageClassName]; s != nil {
		return s.Provisioner, "claim " + c.Name
	}
	return "", ""
}

// exceeds reports whether a driver has no room for the pod's volumes, or is not there though it must be.
func (w *volumeWorld) exceeds(p *corev1.Pod, node string) string {
	own := map[[2]string]bool{}
	for _, name := range claimNames(p) {
		if d, h := w.driverOf(w.claims[name]); d != "" {
			own[[2]string{d, h}] = true
		}
	}
	for _, d := range []string{"d1", "d2"} {
		uses := false
		for v := range own {
			uses = uses || v[0] == d
		}
		if obj := w.drivers[d]; uses && obj != nil && obj.Spec.PreventPodSchedulingIfMissing != nil && *obj.Spec.PreventPodSchedulingIfMissing {
			if n := w.csiNodes[node]; n == nil || !slices.ContainsFunc(n.Spec.Drivers, func(x storagev1.CSINodeDriver) bool { return x.Name == d }) {
				return d + " CSI driver is not installed on the node"
			}
		}
	}
	n := w.csiNodes[node]
	if n == nil {
		return ""
	}
	there := map[[2]string]bool{}
	for _, other := range w.pods {
		if other.Spec.NodeName != node {
			continue
		}
		for _, name := range claimNames(other) {
			if c := w.claims[name]; c != nil {
				if d, h := w.driverOf(c); d != "" {
					there[[2]string{d, h}] = true
					delete(own, [2]string{d, h})
				}
			}
		}
	}
	for _, a := range w.attached {
		if pv := w.volumes[*a.Spec.Source.PersistentVolumeName]; a.Spec.NodeName == node && pv != nil && pv.Spec.CSI != nil {
			there[[2]string{a.Spec.Attacher, pv.Spec.CSI.VolumeHandle}] = true
		}
	}
	for _, d := range n.Spec.Drivers {
		more, has := 0, 0
		for v := range own {
			if v[0] == d.Name {
				more++
			}
		}
		for v := range there {
			if v[0] == d.Name {
				has++
			}
		}
		if more > 0 && d.Allocatable != nil && d.Allocatable.Count != nil && has+more > int(*d.Allocatable.Count) {
			return "node(s) exceed max volume count"
		}
	}
	return ""
}

// plan is what a node has for the pod's claims that wait for it.
type plan struct {
	bind map[string]string // volume by claim
	make map[string]*storagev1.CSIStorageCapacity
	made []string // the claims of make, in order: of a class, the last one's capacity counts
}

// find returns why the node can't have the pod, or how.
func (w *volumeWorld) find(p *corev1.Pod, n *corev1.Node) (why []string, found plan) {
	found = plan{bind: map[string]string{}, make: map[string]*storagev1.CSIStorageCapacity{}}
	for _, name := range claimNames(p) {
		if c := w.claims[name]; isBound(c) && !reaches(w.volumes[c.Spec.VolumeName], n) {
			why = []string{"node(s) didn't match PersistentVolume's node affinity"}
		}
	}
	var open []*corev1.PersistentVolumeClaim
	for _, name := range claimNames(p) {
		if c := w.claims[name]; !isBound(c) && !slices.Contains(open, c) {
			open = append(open, c)
		}
	}
	slices.SortStableFunc(open, func(a, b *corev1.PersistentVolumeClaim) int {
		return cmp.Compare(storageOf(a.Spec.Resources.Requests), storageOf(b.Spec.Resources.Requests))
	})
	for _, c := range open {
		if at := c.Annotations["volume.kubernetes.io/selected-node"]; at != "" && at != n.Name {
			return append(why, "node(s) didn't find available persistent volumes to bind"), found
		}
	}
	taken := map[string]bool{}
	var toMake []*corev1.PersistentVolumeClaim
	for _, c := range open {
		if c.Annotations["volume.kubernetes.io/selected-node"] != "" {
			toMake = append(toMake, c)
		}
	}
	for _, c := range open {
		if c.Annotations["volume.kubernetes.io/selected-node"] != "" {
			continue
		}
		if pv := w.match(c, n, taken); pv != nil {
			taken[pv.Name] = true
			found.bind[c.Name] = pv.Name
		} else {
			toMake = append(toMake, c)
		}
	}
	for _, c := range toMake {
		s := w.classes[*c.Spec.StorageClassName]
		zoneOK := len(s.AllowedTopologies) == 0
		for _, t := range s.AllowedTopologies {
			e := t.MatchLabelExpressions[0]
			zoneOK = zoneOK || slices.Contains(e.Values, n.Labels[e.Key])
		}
		if s.Provisioner == "kubernetes.io/no-provisioner" || !zoneOK {
			return append(why, "node(s) didn't find available persistent volumes to bind"), found
		}
		found.make[c.Name], found.made = nil, append(found.made, c.Name)
		if d := w.drivers[s.Provisioner]; d == nil || d.Spec.StorageCapacity == nil || !*d.Spec.StorageCapacity {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(w.capacities)) {
			k := w.capacities[name]
			room := k.Capacity
			if k.MaximumVolumeSize != nil {
				room = k.MaximumVolumeSize
			}
			if k.StorageClassName == s.Name && room.Value() >= storageOf(c.Spec.Resources.Requests) && labels.SelectorFromSet(k.NodeTopology.MatchLabels).Matches(labels.Set(n.Labels)) {
				found.make[c.Name] = k
				break
			}
		}
		if found.make[c.Name] == nil {
			return append(why, "node(s) did not have enough free storage"), found
		}
	}
	return why, found
}

// match is the volume meant for the claim, or the smallest that fits.
func (w *volumeWorld) match(c *corev1.PersistentVolumeClaim, n *corev1.Node, taken map[string]bool) (best *corev1.PersistentVolume) {
	for _, name := range slices.Sorted(maps.Keys(w.volumes)) {
		pv := w.volumes[name]
		if taken[name] || pv.Spec.StorageClassName != *c.Spec.StorageClassName || storageOf(pv.Spec.Capacity) < storageOf(c.Spec.Resources.Requests) ||
			(pv.Spec.VolumeMode == nil) != (c.Spec.VolumeMode == nil) || pv.DeletionTimestamp != nil {
			continue
		}
		if ref := pv.Spec.ClaimRef; ref != nil {
			if ref.Name != c.Name || ref.UID != "" && ref.UID != c.UID {
				continue
			}
			if !reaches(pv, n) {
				return nil
			}
			return pv
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.volumes)) {
		pv := w.volumes[name]
		if taken[name] || pv.Spec.StorageClassName != *c.Spec.StorageClassName || storageOf(pv.Spec.Capacity) < storageOf(c.Spec.Resources.Requests) ||
			(pv.Spec.VolumeMode == nil) != (c.Spec.VolumeMode == nil) || pv.DeletionTimestamp != nil || pv.Spec.ClaimRef != nil ||
			pv.Status.Phase != corev1.VolumeAvailable || !reaches(pv, n) ||
			c.Spec.Selector != nil && pv.Labels["disk"] != c.Spec.Selector.MatchLabels["disk"] || !slices.Contains(pv.Spec.AccessModes, c.Spec.AccessModes[0]) {
			continue
		}
		if best == nil || storageOf(pv.Spec.Capacity) < storageOf(best.Spec.Capacity) {
			best = pv
		}
	}
	return best
}

// zoned reports whether the labels of a volume send the pod elsewhere.
func (w *volumeWorld) zoned(p *corev1.Pod, n *corev1.Node) bool {
	value, ok := n.Labels[zoneKey]
	for _, name := range claimNames(p) {
		if c := w.claims[name]; isBound(c) {
			if zones := w.volumes[c.Spec.VolumeName].Labels[zoneKey]; zones != "" && ok && !slices.Contains(strings.Split(zones, "__"), value) {
				return true
			}
		}
	}
	return false
}

// reasons says why node can't take the pod, nil if it can, and what it scores.
func (w *volumeWorld) reasons(p *corev1.Pod, n *corev1.Node) ([]string, int64) {
	for _, v := range p.Spec.Volumes {
		for _, other := range w.pods {
			for _, o := range other.Spec.Volumes {
				if other.Spec.NodeName == n.Name && v.GCEPersistentDisk != nil && o.GCEPersistentDisk != nil && v.GCEPersistentDisk.PDName == o.GCEPersistentDisk.PDName &&
					(!v.GCEPersistentDisk.ReadOnly || !o.GCEPersistentDisk.ReadOnly) {
					return []string{"node(s) had no available disk"}, 0
				}
			}
		}
	}
	for _, name := range claimNames(p) {
		if w.claims[name].Spec.AccessModes[0] == corev1.ReadWriteOncePod && w.users(name) > 0 {
			return []string{"node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"}, 0
		}
	}
	if why := w.exceeds(p, n.Name); why != "" {
		return []string{why}, 0
	}
	why, found := w.find(p, n)
	if len(why) > 0 {
		return why, 0
	}
	if w.zoned(p, n) {
		return []string{"node(s) had no available volume zone"}, 0
	}
	return nil, w.score(found)
}

// users counts the pods on nodes that exist.
func (w *volumeWorld) users(claim string) (n int) {
	for _, p := range w.pods {
		if w.nodes[p.Spec.NodeName] != nil && slices.Contains(claimNames(p), claim) {
			n++
		}
	}
	return n
}

func (w *volumeWorld) score(found plan) int64 {
	used, room := map[string]int64{}, map[string]int64{}
	for claim, pv := range found.bind {
		class := w.volumes[pv].Spec.StorageClassName
		used[class] += storageOf(w.claims[claim].Spec.Resources.Requests)
		room[class] += storageOf(w.volumes[pv].Spec.Capacity)
	}
	if len(found.bind) == 0 {
		for _, claim := range found.made {
			if k := found.make[claim]; k != nil {
				used[k.StorageClassName] += storageOf(w.claims[claim].Spec.Resources.Requests)
				room[k.StorageClassName] = k.Capacity.Value()
			}
		}
	}
	if len(room) == 0 {
		return 0
	}
	sum := 0.0
	for class := range room {
		percent := int64(100)
		if room[class] >= used[class] && room[class] > 0 {
			percent = 100 * used[class] / room[class]
		}
		sum += float64(100 - percent)
	}
	return int64(math.Round(sum / float64(len(room))))
}

// viewKeeper lets the test see the view.
type viewKeeper struct{ view *scheduler.View }

func (*viewKeeper) Name() string { return "Keeper" }

func (k *viewKeeper) Prepare(_ *scheduler.Pod, v *scheduler.View) (scheduler.Judgement, *scheduler.Rejection) {
	k.view = v
	return scheduler.Judgement{}, nil
}

// TestVolumesAgainstReference changes a small cluster at random and compares every decision, on every node.
func TestVolumesAgainstReference(t *testing.T) {
	decisions, fits := 0, 0
	for seed := range seeds(t, 1200) {
		r := rand.New(rand.NewPCG(seed, 7))
		w, keep := newVolumeWorld(), &viewKeeper{}
		e, err := scheduler.NewEngine(scheduler.EngineOptions{Seed: seed + 1, Profile: scheduler.Profile{
			{Plugin: keep},
			{Plugin: plugins.NodeName{}},
			{Plugin: plugins.VolumeRestrictions{}},
			{Plugin: plugins.NodeVolumeLimits{}},
			{Plugin: plugins.VolumeBinding{}},
			{Plugin: plugins.VolumeZone{}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		h := &volumeHistory{rand: r, world: w, engine: e, zonal: seed%2 == 0}
		for step := range 200 {
			if h.change(); r.IntN(3) > 0 {
				continue
			}
			p := h.pod(step)
			decisions++
			want, why := map[string]int64{}, map[string]int{}
			refused := w.refuses(p)
			for _, n := range w.nodes {
				if refused != "" {
					break
				}
				reasons, score := w.reasons(p, n)
				if reasons == nil {
					want[n.Name] = score
				}
				for _, reason := range reasons {
					why[reason]++
				}
			}
			if refused != "" {
				why[refused] = 0
			}
			d := e.Decide(scheduler.NewPod(p))
			if d.Fits() != (len(want) > 0) || d.Fits() && d.Feasible != len(want) || !d.Fits() && len(w.nodes) > 0 && !maps.Equal(d.Reasons, why) {
				t.Fatalf("seed %d step %d: %+v, want %v for %v", seed, step, d, want, why)
			}
			for _, n := range w.nodes {
				only := p.DeepCopy()
				only.Spec.NodeName = n.Name
				one := e.Decide(scheduler.NewPod(only))
				if score, ok := want[n.Name]; one.Fits() != ok || ok && one.Score != score {
					t.Fatalf("seed %d step %d node %s: %+v, want %v", seed, step, n.Name, one, want)
				}
			}
			if !d.Fits() {
				continue
			}
			fits++
			if best := slices.Max(slices.Collect(maps.Values(want))); d.Score != best || want[d.Node] != best {
				t.Fatalf("seed %d step %d: chose %s with %d of %v", seed, step, d.Node, d.Score, want)
			}
			if err := h.place(p, d.Node, keep.view); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			if r.IntN(10) == 0 {
				h.engine = e.Fork()
				e = h.engine
			}
			h.check(t, p)
		}
	}
	if decisions < 5000 || fits < decisions/8 {
		t.Errorf("%d decisions, of which %d fit", decisions, fits)
	}
}

// volumeHistory makes the same changes to a world and an engine.
type volumeHistory struct {
	rand     *rand.Rand
	world    *volumeWorld
	engine   *scheduler.Engine
	versions int
	// zonal: capacities are of zones; else of nodes, as local volumes then are, too.
	zonal bool
}

// check holds what must hold once a pod is placed: no claim has two volumes, and one for one pod has no other.
func (h *volumeHistory) check(t *testing.T, placed *corev1.Pod) {
	t.Helper()
	by := map[string]string{}
	for _, pv := range h.world.volumes {
		if ref := pv.Spec.ClaimRef; ref != nil && ref.UID != "" && pv.Annotations["pv.kubernetes.io/bound-by-controller"] != "" {
			if by[string(ref.UID)] != "" {
				t.Fatalf("claim %s has volumes %s and %s", ref.Name, by[string(ref.UID)], pv.Name)
			}
			by[string(ref.UID)] = pv.Name
		}
	}
	for _, name := range claimNames(placed) {
		if c := h.world.claims[name]; c.Spec.AccessModes[0] == corev1.ReadWriteOncePod && h.world.users(name) > 1 {
			t.Fatalf("claim %s is used by %d pods", name, h.world.users(name))
		}
	}
}

func (h *volumeHistory) version() string {
	h.versions++
	return fmt.Sprint(h.versions)
}

func (h *volumeHistory) setVolume(pv *corev1.PersistentVolume) {
	pv.ResourceVersion = h.version()
	h.world.volumes[pv.Name] = pv
	h.engine.SetVolume(pv)
}

func (h *volumeHistory) setClaim(c *corev1.PersistentVolumeClaim) {
	c.ResourceVersion = h.version()
	h.world.claims[c.Name] = c
	h.engine.SetClaim(c)
}

// place assigns a pod and reserves its volumes; then all comes true, or nothing, or stays as it is assumed to be.
func (h *volumeHistory) place(p *corev1.Pod, node string, view *scheduler.View) error {
	pod, binding := scheduler.NewPod(p), plugins.VolumeBinding{}
	_, found := h.world.find(p, h.world.nodes[node])
	h.engine.Assign(pod, node)
	if err := binding.Reserve(pod, h.engine.Node(node), view); err != nil {
		return err
	}
	plan := h.engine.VolumePlan(p.UID)
	got := map[string]string{}
	if plan != nil {
		for _, m := range plan.Bind {
			got[m.Claim.Name] = m.Volume.Name
		}
		for _, c := range plan.Provision {
			if c.Annotations["volume.kubernetes.io/selected-node"] != node {
				return fmt.Errorf("claim %s has annotations %v", c.Name, c.Annotations)
			}
			got[c.Name] = ""
		}
	}
	want := maps.Clone(found.bind)
	for name := range found.make {
		want[name] = ""
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("plan %v, want %v", got, want)
	}
	if plan != nil && h.rand.IntN(3) == 0 {
		binding.Unreserve(pod, node, view)
		h.engine.Remove(p.UID)
		return nil
	}
	p.Spec.NodeName = node
	h.world.pods[p.UID] = p
	done := h.rand.IntN(2) == 0
	for claim, volume := range want {
		c := h.world.claims[claim].DeepCopy()
		if volume == "" {
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, "volume.kubernetes.io/selected-node", node)
			if h.world.claims[claim] = c; done {
				h.setClaim(c)
			}
			continue
		}
		pv := h.world.volumes[volume].DeepCopy()
		if pv.Spec.ClaimRef == nil {
			metav1.SetMetaDataAnnotation(&pv.ObjectMeta, "pv.kubernetes.io/bound-by-controller", "yes")
		}
		pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "d", Name: claim, UID: c.UID}
		if h.world.volumes[volume] = pv; done {
			h.setVolume(pv)
			c.Spec.VolumeName = volume
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, "pv.kubernetes.io/bind-completed", "yes")
			h.setClaim(c)
		}
	}
	return nil
}

func (h *volumeHistory) pod(step int) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: fmt.Sprint("p", step), UID: types.UID(fmt.Sprint("u", step))}}
	for i := range 1 + h.rand.IntN(3) {
		v := corev1.Volume{Name: fmt.Sprint("v", i)}
		switch h.rand.IntN(8) {
		case 0:
			v.GCEPersistentDisk = &corev1.GCEPersistentDiskVolumeSource{PDName: pick(h.rand, "x", "y"), ReadOnly: h.rand.IntN(2) == 0}
		case 1:
			v.EmptyDir = &corev1.EmptyDirVolumeSource{}
		default:
			name := fmt.Sprint("c", h.rand.IntN(14))
			if slices.Contains(claimNames(p), name) {
				continue
			}
			v.PersistentVolumeClaim = &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}
		}
		p.Spec.Volumes = append(p.Spec.Volumes, v)
	}
	return p
}

var volumeClasses = []string{"", "now", "late", "made", "told"}

// change does one thing at random.
func (h *volumeHistory) change() {
	r, w, e := h.rand, h.world, h.engine
	yes := true
	switch r.IntN(20) {
	case 0, 1, 2:
		n := testNode(fmt.Sprint("n", r.IntN(5)), pick(r, "a", "b", ""))
		w.nodes[n.Name] = n
		e.SetNode(n)
	case 3:
		name := fmt.Sprint("n", r.IntN(5))
		if r.IntN(3) == 0 {
			delete(w.nodes, name)
			e.DeleteNode(name)
		}
	case 4, 5, 6, 7:
		name := fmt.Sprint("v", r.IntN(14))
		if old := w.volumes[name]; old != nil && old.Spec.ClaimRef != nil && r.IntN(3) > 0 {
			return
		}
		h.setVolume(h.volume(name))
	case 8:
		name := fmt.Sprint("v", r.IntN(14))
		delete(w.volumes, name)
		e.DeleteVolume(name)
	case 9, 10, 11:
		name := fmt.Sprint("c", r.IntN(14))
		if w.users(name) > 0 && r.IntN(3) > 0 {
			return
		}
		h.setClaim(h.claim(name))
	case 12:
		name := fmt.Sprint("c", r.IntN(14))
		if r.IntN(3) == 0 {
			delete(w.claims, name)
			e.DeleteClaim("d", name)
		}
	case 13:
		name := pick(r, "now", "late", "made", "told")
		if r.IntN(6) == 0 && name != "late" {
			delete(w.classes, name)
			e.DeleteStorageClass(name)
			return
		}
		mode := storagev1.VolumeBindingWaitForFirstConsumer
		if name == "now" {
			mode = storagev1.VolumeBindingImmediate
		}
		s := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, VolumeBindingMode: &mode}
		s.Provisioner = map[string]string{"now": "d1", "late": "kubernetes.io/no-provisioner", "made": "d1", "told": "d2"}[name]
		if r.IntN(3) == 0 {
			s.AllowedTopologies = []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: zoneKey, Values: []string{pick(r, "a", "b")}}}}}
			if !h.zonal {
				s.AllowedTopologies[0].MatchLabelExpressions[0] = corev1.TopologySelectorLabelRequirement{Key: corev1.LabelHostname, Values: []string{"n1", fmt.Sprint("n", r.IntN(5))}}
			}
		}
		w.classes[name] = s
		e.SetStorageClass(s)
	case 14:
		n := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", r.IntN(5))}}
		for _, d := range []string{"d1", "d2"} {
			if r.IntN(5) == 0 {
				continue
			}
			x := storagev1.CSINodeDriver{Name: d}
			if count := int32(r.IntN(4)); r.IntN(3) > 0 {
				x.Allocatable = &storagev1.VolumeNodeResources{Count: &count}
			}
			n.Spec.Drivers = append(n.Spec.Drivers, x)
		}
		if w.csiNodes[n.Name] = n; r.IntN(4) == 0 {
			delete(w.csiNodes, n.Name)
			e.DeleteCSINode(n.Name)
			return
		}
		e.SetCSINode(n)
	case 15:
		d := &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: pick(r, "d1", "d2")}}
		if d.Name == "d2" {
			d.Spec.StorageCapacity = &yes
		}
		if r.IntN(3) == 0 {
			d.Spec.PreventPodSchedulingIfMissing = &yes
		}
		if w.drivers[d.Name] = d; r.IntN(4) == 0 {
			delete(w.drivers, d.Name)
			e.DeleteCSIDriver(d.Name)
			return
		}
		e.SetCSIDriver(d)
	case 16:
		room := gib(1 + r.IntN(10))
		k := &storagev1.CSIStorageCapacity{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: fmt.Sprint("k", r.IntN(6))}, StorageClassName: "told", Capacity: &room}
		if k.NodeTopology = (&metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelHostname: fmt.Sprint("n", r.IntN(5))}}); h.zonal {
			k.NodeTopology = &metav1.LabelSelector{MatchLabels: map[string]string{zoneKey: pick(r, "a", "b")}}
		}
		if largest := gib(1 + r.IntN(4)); r.IntN(3) == 0 {
			k.MaximumVolumeSize = &largest
		}
		if w.capacities[k.Name] = k; r.IntN(6) == 0 {
			delete(w.capacities, k.Name)
			e.DeleteStorageCapacity(k)
			return
		}
		e.SetStorageCapacity(k)
	case 17:
		volume := fmt.Sprint("v", r.IntN(14))
		a := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("a", r.IntN(4))}}
		a.Spec = storagev1.VolumeAttachmentSpec{Attacher: pick(r, "d1", "d2"), NodeName: fmt.Sprint("n", r.IntN(5)), Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &volume}}
		if w.attached[a.Name] = a; r.IntN(3) == 0 {
			delete(w.attached, a.Name)
			e.DeleteVolumeAttachment(a.Name)
			return
		}
		e.SetVolumeAttachment(a)
	default:
		for _, uid := range slices.Sorted(maps.Keys(w.pods)) {
			if r.IntN(4) == 0 {
				delete(w.pods, uid)
				e.Remove(uid)
				return
			}
		}
	}
}

func (h *volumeHistory) volume(name string) *corev1.PersistentVolume {
	r := h.rand
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"disk": pick(r, "ssd", "hdd")}}}
	pv.Spec.StorageClassName = pick(r, volumeClasses...)
	pv.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: *resource.NewQuantity(int64(1+r.IntN(5))<<30, resource.BinarySI)}
	pv.Spec.AccessModes = pick(r, []corev1.PersistentVolumeAccessMode{"ReadWriteOnce", "ReadWriteOncePod"}, []corev1.PersistentVolumeAccessMode{"ReadWriteMany", "ReadWriteOnce"})
	pv.Status.Phase = pick(r, corev1.VolumeAvailable, corev1.VolumeAvailable, corev1.VolumeAvailable, corev1.VolumePending)
	if block := corev1.PersistentVolumeBlock; r.IntN(8) == 0 {
		pv.Spec.VolumeMode = &block
	}
	if r.IntN(2) == 0 {
		pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: pick(r, "d1", "d2"), VolumeHandle: pick(r, name, name, "shared")}
	}
	req := func(key string, values ...string) corev1.NodeSelectorRequirement {
		return corev1.NodeSelectorRequirement{Key: key, Operator: corev1.NodeSelectorOpIn, Values: values}
	}
	var terms []corev1.NodeSelectorTerm
	kind := r.IntN(7)
	if !h.zonal && kind != 1 {
		kind = 0
	}
	switch kind {
	case 0:
		terms = []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{req(corev1.LabelHostname, fmt.Sprint("n", r.IntN(5)))}}}
	case 1:
		terms = []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{req(zoneKey, pick(r, "a", "b", "nowhere"))}}}
	case 2:
		terms = []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{req(zoneKey, "a", "b"), req(corev1.LabelHostname, "n1", "n2")}}, {MatchExpressions: []corev1.NodeSelectorRequirement{req(corev1.LabelHostname, "n3")}}}
	case 3:
		terms = []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: zoneKey, Operator: corev1.NodeSelectorOpExists}}}}
	}
	if terms != nil {
		pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: terms}}
	}
	if r.IntN(3) == 0 {
		pv.Labels[zoneKey] = pick(r, "a", "b", "a__b")
	}
	if r.IntN(8) == 0 {
		pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "d", Name: fmt.Sprint("c", r.IntN(14))}
	}
	if r.IntN(12) == 0 {
		pv.DeletionTimestamp = &metav1.Time{}
	}
	return pv
}

func (h *volumeHistory) claim(name string) *corev1.PersistentVolumeClaim {
	r := h.rand
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: name, UID: types.UID(fmt.Sprint(name, "-", h.versions))}}
	class := pick(r, volumeClasses...)
	c.Spec.StorageClassName = &class
	c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: *resource.NewQuantity(int64(1+r.IntN(4))<<30, resource.BinarySI)}
	c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{pick(r, corev1.ReadWriteOnce, corev1.ReadWriteOnce, corev1.ReadWriteOncePod, corev1.ReadWriteMany)}
	if block := corev1.PersistentVolumeBlock; r.IntN(8) == 0 {
		c.Spec.VolumeMode = &block
	}
	if r.IntN(5) == 0 {
		c.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"disk": pick(r, "ssd", "hdd")}}
	}
	if r.IntN(3) == 0 {
		c.Spec.VolumeName = fmt.Sprint("v", r.IntN(14))
		if r.IntN(5) > 0 {
			c.Annotations = map[string]string{"pv.kubernetes.io/bind-completed": "yes"}
		}
	}
	switch r.IntN(20) {
	case 0:
		c.DeletionTimestamp = &metav1.Time{}
	case 1:
		c.Status.Phase = corev1.ClaimLost
	}
	return c
}

func gib(n int) resource.Quantity { return *resource.NewQuantity(int64(n)<<30, resource.BinarySI) }
