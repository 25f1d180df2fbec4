package schedulertest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
)

// cluster is a random cluster's objects, as events have left them.
type cluster struct {
	r          *rand.Rand
	o          Options
	nodes      map[string]*corev1.Node
	placed     map[types.UID]*corev1.Pod // with their nodes' names
	namespaces map[string]*corev1.Namespace
	claims     map[string]*corev1.PersistentVolumeClaim
	volumes    map[string]*corev1.PersistentVolume
	created    int
}

func newCluster(o Options, seed uint64) *cluster {
	return &cluster{
		r: rand.New(rand.NewPCG(o.Seed, seed)), o: o, nodes: map[string]*corev1.Node{}, placed: map[types.UID]*corev1.Pod{},
		namespaces: map[string]*corev1.Namespace{}, claims: map[string]*corev1.PersistentVolumeClaim{}, volumes: map[string]*corev1.PersistentVolume{},
	}
}

// event changes the cluster at random and tells the engines. It returns what Hinters are told.
func (c *cluster) event(engines ...*scheduler.Engine) (changes []scheduler.ClusterChange, podsOnly bool) {
	each := func(f func(e *scheduler.Engine) []scheduler.ClusterChange) {
		for i, e := range engines {
			if got := f(e); i == 0 {
				changes = got
			}
		}
	}
	one := func(f func(e *scheduler.Engine) scheduler.ClusterChange) {
		each(func(e *scheduler.Engine) []scheduler.ClusterChange { return []scheduler.ClusterChange{f(e)} })
	}
	switch c.r.IntN(12) {
	case 0, 1, 2:
		n := c.node()
		c.nodes[n.Name] = n
		one(func(e *scheduler.Engine) scheduler.ClusterChange { return e.SetNode(n) })
	case 3:
		if name := anyKey(c.r, c.nodes); name != "" {
			delete(c.nodes, name)
			one(func(e *scheduler.Engine) scheduler.ClusterChange { return e.DeleteNode(name) })
		}
	case 4, 5, 6:
		if node := anyKey(c.r, c.nodes); node != "" {
			p := c.pod()
			p.Spec.NodeName = node
			c.placed[p.UID] = p
			one(func(e *scheduler.Engine) scheduler.ClusterChange { return assign(e, p) })
		}
		podsOnly = true
	case 7, 8:
		if uid := anyKey(c.r, c.placed); uid != "" {
			delete(c.placed, uid)
			one(func(e *scheduler.Engine) scheduler.ClusterChange {
				return scheduler.ClusterChange{FreedPod: e.Remove(uid)}
			})
		}
		podsOnly = true
	case 9:
		if uid := anyKey(c.r, c.placed); uid != "" {
			p := c.placed[uid].DeepCopy()
			p.Labels = c.labels()
			p.DeletionTimestamp = pick(c.r, nil, &metav1.Time{})
			c.placed[uid] = p
			each(func(e *scheduler.Engine) []scheduler.ClusterChange { return reassign(e, p) })
		}
		podsOnly = true
	case 10:
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: pick(c.r, "d", "e"), Labels: map[string]string{"team": pick(c.r, "x", "y")}}}
		c.namespaces[ns.Name] = ns
		one(func(e *scheduler.Engine) scheduler.ClusterChange { return e.SetNamespace(ns) })
	case 11:
		claim, volume := c.claim()
		c.claims[claim.Namespace+"/"+claim.Name], c.volumes[volume.Name] = claim, volume
		each(func(e *scheduler.Engine) []scheduler.ClusterChange {
			return []scheduler.ClusterChange{e.SetVolume(volume), e.SetClaim(claim)}
		})
	}
	return changes, podsOnly
}

func assign(e *scheduler.Engine, obj *corev1.Pod) scheduler.ClusterChange {
	p := scheduler.NewPod(obj)
	e.Assign(p, obj.Spec.NodeName)
	return scheduler.ClusterChange{AssignedPod: p}
}

// reassign tells of a changed pod as Scheduler does.
func reassign(e *scheduler.Engine, obj *corev1.Pod) []scheduler.ClusterChange {
	was := e.Remove(obj.UID)
	p := scheduler.NewPod(obj)
	e.Assign(p, obj.Spec.NodeName)
	return []scheduler.ClusterChange{{AssignedPod: p, OldPod: was}}
}

// engine builds one anew from the objects.
func (c *cluster) engine(p scheduler.Plugin) (*scheduler.Engine, error) {
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: scheduler.Profile{{Plugin: p}}, AnswerBytes: 600})
	if err != nil {
		return nil, err
	}
	late := storagev1.VolumeBindingWaitForFirstConsumer
	e.SetStorageClass(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "late"}, VolumeBindingMode: &late, Provisioner: "example.com/disk"})
	for _, name := range slices.Sorted(maps.Keys(c.namespaces)) {
		e.SetNamespace(c.namespaces[name])
	}
	for _, name := range slices.Sorted(maps.Keys(c.volumes)) {
		e.SetVolume(c.volumes[name])
	}
	for _, name := range slices.Sorted(maps.Keys(c.claims)) {
		e.SetClaim(c.claims[name])
	}
	for _, name := range slices.Sorted(maps.Keys(c.nodes)) {
		e.SetNode(c.nodes[name])
	}
	for _, uid := range slices.Sorted(maps.Keys(c.placed)) {
		assign(e, c.placed[uid])
	}
	return e, nil
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// anyKey is a key at random, "" of an empty map.
func anyKey[K ~string, V any](r *rand.Rand, m map[K]V) K {
	if len(m) == 0 {
		return ""
	}
	return pick(r, slices.Sorted(maps.Keys(m))...)
}

func (c *cluster) labels() map[string]string {
	return map[string]string{"app": pick(c.r, "a", "b"), "rev": pick(c.r, "1", "2")}
}

func quantities(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i+1 < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func (c *cluster) node() *corev1.Node {
	r := c.r
	name := fmt.Sprint("n", r.IntN(6))
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{}, Labels: map[string]string{
		corev1.LabelHostname: name, corev1.LabelTopologyZone: pick(r, "za", "zb"), "disk": pick(r, "ssd", "hdd"),
	}}}
	if r.IntN(6) == 0 {
		delete(n.Labels, pick(r, corev1.LabelHostname, corev1.LabelTopologyZone))
	}
	n.Spec.Unschedulable = r.IntN(6) == 0
	for range r.IntN(3) {
		effect := pick(r, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: pick(r, "k1", "k2"), Value: pick(r, "", "v"), Effect: effect})
	}
	n.Status.Allocatable = quantities("cpu", pick(r, "1", "4"), "memory", pick(r, "1Gi", "8Gi"), "pods", pick(r, "2", "20"))
	if r.IntN(3) == 0 {
		n.Status.Allocatable["example.com/gpu"] = resource.MustParse("2")
	}
	if r.IntN(2) == 0 {
		n.Status.Images = []corev1.ContainerImage{{Names: []string{"app:latest"}, SizeBytes: int64(r.IntN(2000)) << 20}}
	}
	if c.o.Node != nil {
		c.o.Node(r, n)
	}
	return n
}

func (c *cluster) pod() *corev1.Pod {
	r := c.r
	c.created++
	name := fmt.Sprint("p", c.created)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: name, Namespace: pick(r, "d", "d", "e"), UID: types.UID(name), Labels: c.labels(), Annotations: map[string]string{},
	}}
	container := corev1.Container{Name: "c", Image: pick(r, "app", "other:1")}
	container.Resources.Requests = pick(r, nil, quantities("cpu", pick(r, "100m", "1500m"), "memory", "300Mi"), quantities("cpu", "200m", "example.com/gpu", "1"))
	if r.IntN(5) == 0 {
		container.Ports = []corev1.ContainerPort{{HostPort: int32(8000 + r.IntN(2)), HostIP: pick(r, "", "10.0.0.1", "10.0.0.2")}}
	}
	p.Spec.Containers = []corev1.Container{container}
	priority := int32(r.IntN(3))
	p.Spec.Priority = &priority
	if r.IntN(4) == 0 {
		p.Spec.NodeSelector = map[string]string{"disk": pick(r, "ssd", "hdd")}
	}
	if r.IntN(3) == 0 {
		p.Spec.Tolerations = []corev1.Toleration{{Key: pick(r, "k1", "k2", ""), Operator: corev1.TolerationOpExists, Effect: pick(r, "", corev1.TaintEffectNoSchedule)}}
	}
	if r.IntN(10) == 0 {
		p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}}
	}
	if r.IntN(12) == 0 {
		p.Spec.NodeName = fmt.Sprint("n", r.IntN(6))
	}
	if r.IntN(5) == 0 {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: fmt.Sprint("c", r.IntN(3))},
		}}}
	}
	c.affinity(p)
	if c.o.Pod != nil {
		c.o.Pod(r, p)
	}
	return p
}

func (c *cluster) affinity(p *corev1.Pod) {
	r := c.r
	selector := func() *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick(r, "a", "b")}}
	}
	key := func() string { return pick(r, corev1.LabelHostname, corev1.LabelTopologyZone) }
	term := func() corev1.PodAffinityTerm {
		t := corev1.PodAffinityTerm{LabelSelector: selector(), TopologyKey: key()}
		if r.IntN(4) == 0 {
			t.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": pick(r, "x", "y")}}
		}
		return t
	}
	a := &corev1.Affinity{}
	weight := int32(1 + r.IntN(100))
	switch r.IntN(10) {
	case 0:
		a.PodAffinity = &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term()}}
	case 1:
		a.PodAntiAffinity = &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term()}}
	case 2:
		a.PodAffinity = &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: weight, PodAffinityTerm: term()}}}
	case 3:
		a.PodAntiAffinity = &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: weight, PodAffinityTerm: term()}}}
	case 4, 5:
		ssd := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{"ssd"}}}}
		a.NodeAffinity = &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: weight, Preference: ssd}}}
		if r.IntN(2) == 0 {
			a.NodeAffinity = &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{ssd}}}
		}
	default:
		a = nil
	}
	p.Spec.Affinity = a
	if r.IntN(4) == 0 {
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: int32(1 + r.IntN(2)), TopologyKey: key(), LabelSelector: selector(), WhenUnsatisfiable: pick(r, corev1.DoNotSchedule, corev1.ScheduleAnyway),
		}}
	}
}

// claim is one of three, bound, waiting or neither, and the volume it is, or may be, bound to.
func (c *cluster) claim() (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
	r := c.r
	i := r.IntN(3)
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: fmt.Sprint("c", i), UID: types.UID(fmt.Sprint("c", i))}}
	claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{pick(r, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)}
	claim.Spec.Resources.Requests = quantities("storage", "1Gi")
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("v", i), Labels: map[string]string{}}}
	volume.Spec.AccessModes, volume.Spec.Capacity = claim.Spec.AccessModes, quantities("storage", pick(r, "1Gi", "2Gi"))
	volume.Status.Phase = corev1.VolumeAvailable
	if r.IntN(2) == 0 {
		volume.Labels[corev1.LabelTopologyZone] = pick(r, "za", "zb")
	}
	switch r.IntN(3) {
	case 0:
		claim.Spec.VolumeName, claim.Status.Phase = volume.Name, corev1.ClaimBound
		claim.Annotations = map[string]string{"pv.kubernetes.io/bind-completed": "yes"}
		volume.Spec.ClaimRef = &corev1.ObjectReference{Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID}
		volume.Status.Phase = corev1.VolumeBound
	case 1:
		late := "late"
		claim.Spec.StorageClassName, volume.Spec.StorageClassName = &late, late
	}
	return claim, volume
}
