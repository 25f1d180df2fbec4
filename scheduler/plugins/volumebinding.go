package plugins

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/storage/ephemeral"
	volumehelper "k8s.io/component-helpers/storage/volume"

	"github.com/keelson/keelson/scheduler"
)

// VolumeBinding keeps pods to nodes from which their volumes can be reached. Claims that wait for their first consumer are given a volume that
// is there and fits, the smallest, or else one that can be made for the node; which is decided with the node, and written by the runner before
// the pod is bound. Nodes are preferred whose storage would be used less.
type VolumeBinding struct {
	// BindTimeout bounds the wait for volumes to be bound. Default 10 minutes.
	BindTimeout time.Duration
	// Shape says what a used part of the storage, in percent, is worth, from 0 to MaxScore. Between the points, which are in the order of
	// Used, it is linear. Default: 100 for nothing used, 0 for all.
	Shape []UsedPoint
}

// UsedPoint is a point of a Shape.
type UsedPoint struct {
	Used, Score int64
}

// DefaultBindTimeout is that of VolumeBinding.
const DefaultBindTimeout = 10 * time.Minute

const (
	noVolumeToBind  = "node(s) didn't find available persistent volumes to bind"
	volumeElsewhere = "node(s) didn't match PersistentVolume's node affinity"
	storageFull     = "node(s) did not have enough free storage"
	volumeMissing   = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
)

// Name implements scheduler.Plugin.
func (VolumeBinding) Name() string { return "VolumeBinding" }

// Prepare implements scheduler.ClusterPlugin.
func (p VolumeBinding) Prepare(pod *scheduler.Pod, view *scheduler.View) (j scheduler.Judgement, _ *scheduler.Rejection) {
	need, r := claimsOf(pod, view)
	if r != nil || need == nil || !need.any() {
		return j, r
	}
	score := func(n *scheduler.Node) int64 {
		found := need.find(n)
		return p.score(&found)
	}
	only, confined := need.only()
	if d := need.domains(); d != nil && !confined {
		d.Filter = func(at *scheduler.Place) *scheduler.Rejection { return need.filter(at.Node()) }
		if len(need.delayed) > 0 {
			d.Scores = func(places []scheduler.Place, scores []int64) {
				for i := range places {
					scores[i] = score(places[i].Node())
				}
			}
		}
		j.Domains = d
		return j, nil
	}
	j.Filter, j.Only = need.filter, only
	if len(need.delayed) > 0 {
		j.Scores = func(nodes []*scheduler.Node, scores []int64) {
			for i, n := range nodes {
				scores[i] = score(n)
			}
		}
	}
	return j, nil
}

// Reserve implements scheduler.ReservePlugin: the volumes that were found for the node are for nobody else from now on.
func (p VolumeBinding) Reserve(pod *scheduler.Pod, node *scheduler.Node, view *scheduler.View) error {
	need, r := claimsOf(pod, view)
	if r != nil {
		return fmt.Errorf("%s", strings.Join(r.Reasons, ", "))
	}
	if need == nil || len(need.delayed) == 0 {
		return nil
	}
	found := need.find(node)
	if len(found.reasons) > 0 {
		return fmt.Errorf("%s", strings.Join(found.reasons, ", "))
	}
	plan := &scheduler.VolumePlan{Node: node.Object.Name, Bind: found.bind, Timeout: p.BindTimeout}
	if plan.Timeout == 0 {
		plan.Timeout = DefaultBindTimeout
	}
	for _, made := range found.provision {
		plan.Provision = append(plan.Provision, made.claim)
	}
	return view.AssumeVolumes(pod, plan)
}

// Unreserve implements scheduler.ReservePlugin.
func (VolumeBinding) Unreserve(pod *scheduler.Pod, _ string, view *scheduler.View) {
	view.ForgetVolumes(pod.Object.UID)
}

// claims are what a pod needs of storage, found out once in a decision.
type claims struct {
	view *scheduler.View
	// bound says where the volumes of bound claims can be reached from, up to the first that does not exist, if one is missing.
	bound   []reach
	missing bool
	// delayed claims wait for their first consumer, the smallest first.
	delayed []*delayedClaim
}

func (c *claims) any() bool { return c.missing || len(c.bound)+len(c.delayed) > 0 }

// claimsOf is nil for pods without claims.
func claimsOf(pod *scheduler.Pod, view *scheduler.View) (*claims, *scheduler.Rejection) {
	var need *claims
	var why string
	immediate := false
	pod.EachClaim(func(name string, inline bool) bool {
		if need == nil {
			need = &claims{view: view}
		}
		claim := view.Claim(pod.Object.Namespace, name)
		if why = unusable(pod.Object, claim, name, inline); why != "" {
			return false
		}
		if bound(claim) {
			need.addBound(view.Volume(claim.Spec.VolumeName))
			return true
		}
		var class *storagev1.StorageClass
		if of := volumehelper.GetPersistentVolumeClaimClass(claim); of != "" {
			class = view.StorageClass(of)
		}
		switch {
		case class != nil && class.VolumeBindingMode == nil:
			why = fmt.Sprintf("VolumeBindingMode not set for StorageClass %q", class.Name)
			return false
		case class != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer && claim.Spec.VolumeName == "":
			need.delayed = append(need.delayed, &delayedClaim{claim: claim, class: class})
		default:
			immediate = true
		}
		return true
	})
	switch {
	case why != "":
		return nil, scheduler.Reject(why)
	case immediate:
		return nil, scheduler.Reject("pod has unbound immediate PersistentVolumeClaims")
	case need == nil:
		return nil, nil
	}
	slices.SortStableFunc(need.delayed, func(a, b *delayedClaim) int { return requested(a.claim).Cmp(*requested(b.claim)) })
	for _, d := range need.delayed {
		if why = d.prepare(view); why != "" {
			return nil, scheduler.Reject(why)
		}
	}
	return need, nil
}

// unusable says why the pod can't have the claim, "" if it can.
func unusable(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim, name string, inline bool) string {
	switch {
	case claim == nil && inline:
		return fmt.Sprintf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name)
	case claim == nil:
		return claimNotFound(name)
	case claim.Status.Phase == corev1.ClaimLost:
		return fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, claim.Spec.VolumeName)
	case claim.DeletionTimestamp != nil:
		return fmt.Sprintf("persistentvolumeclaim %q is being deleted", name)
	case inline:
		if err := ephemeral.VolumeIsForPod(pod, claim); err != nil {
			return err.Error()
		}
	}
	return ""
}

func claimNotFound(name string) string {
	return fmt.Sprintf("persistentvolumeclaim %q not found", name)
}

// bound reports that the claim's volume is settled by both sides.
func bound(claim *corev1.PersistentVolumeClaim) bool {
	_, completed := claim.Annotations[volumehelper.AnnBindCompleted]
	return claim.Spec.VolumeName != "" && completed
}

func requested(claim *corev1.PersistentVolumeClaim) *resource.Quantity {
	q := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	return &q
}

func (c *claims) addBound(pv *corev1.PersistentVolume) {
	switch {
	case c.missing:
	case pv == nil:
		c.missing = true
	case pv.Spec.NodeAffinity != nil && pv.Spec.NodeAffinity.Required != nil:
		c.bound = append(c.bound, reachOf(c.view, pv.Spec.NodeAffinity.Required))
	}
}

// found is what a node has for a pod's claims.
type found struct {
	reasons   []string
	bind      []scheduler.VolumeMatch
	provision []provision
}

// provision is a claim to make a volume for, and the capacity there is; nil if that is not known.
type provision struct {
	claim    *corev1.PersistentVolumeClaim
	capacity *storagev1.CSIStorageCapacity
}

func (c *claims) filter(n *scheduler.Node) *scheduler.Rejection {
	if found := c.find(n); len(found.reasons) > 0 {
		return scheduler.Reject(found.reasons...)
	}
	return nil
}

// find looks for volumes for all claims.
func (c *claims) find(n *scheduler.Node) (f found) {
	elsewhere := slices.ContainsFunc(c.bound, func(r reach) bool { return !r.from(n) })
	if elsewhere {
		f.reasons = append(f.reasons, volumeElsewhere)
	}
	if why := c.findDelayed(n, &f); why != "" {
		f.reasons = append(f.reasons, why)
	}
	if c.missing && !elsewhere {
		f.reasons = append(f.reasons, volumeMissing)
	}
	return f
}

func (c *claims) findDelayed(n *scheduler.Node, f *found) string {
	if len(c.delayed) == 0 {
		return ""
	}
	for _, d := range c.delayed {
		if d.selected != "" && d.selected != n.Object.Name {
			return noVolumeToBind
		}
	}
	var make []*delayedClaim
	for _, d := range c.delayed {
		if d.selected != "" {
			make = append(make, d)
		}
	}
	var taken []string
	for _, d := range c.delayed {
		if d.selected != "" {
			continue
		}
		pv := d.smallest(n, taken, nil)
		if pv == nil {
			make = append(make, d)
			continue
		}
		taken = append(taken, pv.Name)
		f.bind = append(f.bind, scheduler.VolumeMatch{Volume: pv, Claim: d.claim})
	}
	for _, d := range make {
		if p := d.class.Provisioner; p == "" || p == volumehelper.NotSupportedProvisioner || !allows(d.class.AllowedTopologies, n.Object.Labels) {
			return noVolumeToBind
		}
		capacity, enough := d.capacity(n)
		if !enough {
			return storageFull
		}
		f.provision = append(f.provision, provision{d.claim, capacity})
	}
	return ""
}

// allows reports whether one of the terms matches, or there is none.
func allows(terms []corev1.TopologySelectorTerm, labels map[string]string) bool {
	if len(terms) == 0 {
		return true
	}
	return slices.ContainsFunc(terms, func(t corev1.TopologySelectorTerm) bool {
		for i := range t.MatchLabelExpressions {
			e := &t.MatchLabelExpressions[i]
			if v, ok := labels[e.Key]; !ok || !slices.Contains(e.Values, v) {
				return false
			}
		}
		return len(t.MatchLabelExpressions) > 0
	})
}

func largestVolume(c *storagev1.CSIStorageCapacity) *resource.Quantity {
	if c.MaximumVolumeSize != nil {
		return c.MaximumVolumeSize
	}
	return c.Capacity
}

// score averages over the storage classes what the used part is worth: of the volumes to be bound, or else of the capacity for those to be made.
func (p VolumeBinding) score(f *found) int64 {
	type use struct{ requested, capacity int64 }
	classes := map[string]*use{}
	of := func(class string) *use {
		if classes[class] == nil {
			classes[class] = &use{}
		}
		return classes[class]
	}
	for _, m := range f.bind {
		u := of(m.Volume.Spec.StorageClassName)
		capacity := m.Volume.Spec.Capacity[corev1.ResourceStorage]
		u.requested += requested(m.Claim).Value()
		u.capacity += capacity.Value()
	}
	if len(f.bind) == 0 {
		for _, made := range f.provision {
			if made.capacity == nil || made.capacity.Capacity == nil {
				continue
			}
			u := of(volumehelper.GetPersistentVolumeClaimClass(made.claim))
			u.capacity = made.capacity.Capacity.Value()
			u.requested += requested(made.claim).Value()
		}
	}
	if len(classes) == 0 {
		return 0
	}
	var sum int64
	for _, u := range classes {
		used := int64(100)
		if u.capacity != 0 && u.requested <= u.capacity {
			used = u.requested * 100 / u.capacity
		}
		sum += p.worth(used)
	}
	return int64(math.Round(float64(sum) / float64(len(classes))))
}

func (p VolumeBinding) worth(used int64) int64 {
	if len(p.Shape) == 0 {
		return scheduler.MaxScore - used
	}
	for i, at := range p.Shape {
		if used > at.Used {
			continue
		}
		if i == 0 {
			return at.Score
		}
		before := p.Shape[i-1]
		return before.Score + (at.Score-before.Score)*(used-before.Used)/(at.Used-before.Used)
	}
	return p.Shape[len(p.Shape)-1].Score
}

// Hint implements scheduler.Hinter.
func (VolumeBinding) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) bool {
	switch {
	case c.Claim != nil:
		return usesClaim(pod, c.Claim, true)
	case c.Volume != nil:
		return true
	case c.StorageClass != nil:
		return c.OldStorageClass == nil || !apiequality.Semantic.DeepEqual(c.StorageClass.AllowedTopologies, c.OldStorageClass.AllowedTopologies)
	case c.StorageCapacity != nil:
		now := largestVolume(c.StorageCapacity)
		if c.OldStorageCapacity == nil || now == nil {
			return c.OldStorageCapacity == nil
		}
		old := largestVolume(c.OldStorageCapacity)
		return old == nil || now.Cmp(*old) > 0
	case c.OldCSIDriver != nil:
		tells := func(d *storagev1.CSIDriver) bool {
			return d != nil && d.Spec.StorageCapacity != nil && *d.Spec.StorageCapacity
		}
		return tells(c.OldCSIDriver) && !tells(c.CSIDriver)
	case c.Node != nil:
		return newLabels(c)
	}
	return false
}

// usesClaim reports whether the pod has that claim, as an ephemeral volume's too if they count.
func usesClaim(pod *scheduler.Pod, claim *corev1.PersistentVolumeClaim, inline bool) (uses bool) {
	if claim.Namespace != pod.Object.Namespace {
		return false
	}
	pod.EachClaim(func(name string, ephemeral bool) bool {
		uses = name == claim.Name && (inline || !ephemeral)
		return !uses
	})
	return uses
}
