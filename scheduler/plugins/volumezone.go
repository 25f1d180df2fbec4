package plugins

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	volumehelper "k8s.io/component-helpers/storage/volume"

	"github.com/keelson/keelson/scheduler"
)

// VolumeZone keeps pods to the zones and regions that the labels of their bound volumes name. Nodes without any label of that kind are not
// judged.
type VolumeZone struct{}

// zoneLabels are those of volumes that count; the old ones may be the new ones on nodes.
var zoneLabels = [...]string{
	corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion, corev1.LabelTopologyZone, corev1.LabelTopologyRegion,
}

var currentLabels = map[string]string{
	corev1.LabelFailureDomainBetaZone: corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
}

// Name implements scheduler.Plugin.
func (VolumeZone) Name() string { return "VolumeZone" }

// Points implements scheduler.Partial.
func (VolumeZone) Points() scheduler.Points { return scheduler.AtPreFilter | scheduler.AtFilter }

// zone is a label of a volume: a node must have one of the values.
type zone struct {
	key    string
	values []string
}

// zonesOf ignores labels with an empty zone in their list.
func zonesOf(pv *corev1.PersistentVolume) (out []zone) {
	for _, key := range zoneLabels {
		list, ok := pv.Labels[key]
		if !ok {
			continue
		}
		values := strings.Split(list, "__")
		for i := range values {
			values[i] = strings.TrimSpace(values[i])
		}
		if !slices.Contains(values, "") {
			out = append(out, zone{key, values})
		}
	}
	return out
}

// Prepare implements scheduler.ClusterPlugin.
func (VolumeZone) Prepare(pod *scheduler.Pod, view *scheduler.View) (j scheduler.Judgement, _ *scheduler.Rejection) {
	var zones []zone
	var why string
	pod.EachClaim(func(name string, inline bool) bool {
		if inline {
			return true
		}
		var pv *corev1.PersistentVolume
		if pv, why = zonedVolume(pod, view, name); pv != nil {
			zones = append(zones, zonesOf(pv)...)
		}
		return why == ""
	})
	if why != "" {
		return j, scheduler.Reject(why)
	}
	if len(zones) == 0 {
		return j, nil
	}
	d := &scheduler.DomainJudgement{ID: "zones"}
	for _, key := range zoneLabels {
		if view.Domains(key).Len > 0 {
			d.ID += " " + key
			d.Sums = append(d.Sums, scheduler.DomainSum{Key: key, Apart: true, Amount: func(*scheduler.Node) (int64, bool) { return 0, false }})
		}
	}
	d.Filter = func(p *scheduler.Place) *scheduler.Rejection {
		if inZones(zones, p.Node().Object.Labels) {
			return nil
		}
		return scheduler.Reject("node(s) had no available volume zone")
	}
	j.Domains = d
	return j, nil
}

// inZones reports whether a node is in all of the zones, or has no label of that kind.
func inZones(zones []zone, labels map[string]string) bool {
	if !slices.ContainsFunc(zoneLabels[:], func(key string) bool { _, ok := labels[key]; return ok }) {
		return true
	}
	return !slices.ContainsFunc(zones, func(z zone) bool {
		value, ok := labels[z.key]
		if now, renamed := currentLabels[z.key]; !ok && renamed {
			value, ok = labels[now]
		}
		return !ok || !slices.Contains(z.values, value)
	})
}

// zonedVolume returns the volume of a claim, nil if that will be settled with the node, or why the pod must wait.
func zonedVolume(pod *scheduler.Pod, view *scheduler.View, name string) (*corev1.PersistentVolume, string) {
	claim := view.Claim(pod.Object.Namespace, name)
	if claim == nil {
		return nil, claimNotFound(name)
	}
	if volume := claim.Spec.VolumeName; volume != "" {
		pv := view.Volume(volume)
		if pv == nil {
			return nil, fmt.Sprintf("persistentvolume %q not found", volume)
		}
		return pv, ""
	}
	of := volumehelper.GetPersistentVolumeClaimClass(claim)
	if of == "" {
		return nil, "PersistentVolumeClaim had no pv name and storageClass name"
	}
	class := view.StorageClass(of)
	switch {
	case class == nil:
		return nil, fmt.Sprintf("storageclass.storage.k8s.io %q not found", of)
	case class.VolumeBindingMode == nil:
		return nil, fmt.Sprintf("VolumeBindingMode not set for StorageClass %q", of)
	case *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer:
		return nil, ""
	}
	return nil, "PersistentVolume had no name"
}

// Hint implements scheduler.Hinter.
func (VolumeZone) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) bool {
	switch {
	case c.StorageClass != nil:
		mode := c.StorageClass.VolumeBindingMode
		return c.OldStorageClass == nil && mode != nil && *mode == storagev1.VolumeBindingWaitForFirstConsumer
	case c.Node != nil:
		return newLabels(c)
	case c.Claim != nil:
		return usesClaim(pod, c.Claim, false)
	case c.Volume != nil:
		return c.OldVolume == nil || !slices.EqualFunc(zonesOf(c.Volume), zonesOf(c.OldVolume), func(a, b zone) bool {
			return a.key == b.key && maps.Equal(setOf(a.values), setOf(b.values))
		})
	}
	return false
}

func setOf(values []string) map[string]bool {
	set := map[string]bool{}
	for _, v := range values {
		set[v] = true
	}
	return set
}
