package plugins

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/keelson/keelson/scheduler"
)

// NodeVolumeLimits rejects nodes that could not attach all of the pod's volumes: each CSI driver has a limit for a node, in the node's CSINode.
// Volumes that several pods use count once.
type NodeVolumeLimits struct{}

// Name implements scheduler.Plugin.
func (NodeVolumeLimits) Name() string { return "NodeVolumeLimits" }

// driverVolumes are the pod's volumes of one driver.
type driverVolumes struct {
	name    string
	nodes   *scheduler.DriverNodes // nil: no node has the driver
	must    bool                   // the driver must be there
	volumes int32
	used    []scheduler.CSIVolume // those of them that pods have already, somewhere
}

// Prepare implements scheduler.ClusterPlugin.
func (NodeVolumeLimits) Prepare(pod *scheduler.Pod, view *scheduler.View) (j scheduler.Judgement, _ *scheduler.Rejection) {
	var volumes map[scheduler.CSIVolume]bool
	var why string
	pod.EachClaim(func(name string, inline bool) bool {
		claim := view.Claim(pod.Object.Namespace, name)
		switch {
		case claim == nil:
			why = fmt.Sprintf("looking up PVC %s/%s: %s", pod.Object.Namespace, name, claimNotFound(name))
		case inline:
			why = unusable(pod.Object, claim, name, true)
		}
		if why != "" {
			return false
		}
		if v, ok := view.CSIVolumeOf(claim); ok {
			if volumes == nil {
				volumes = map[scheduler.CSIVolume]bool{}
			}
			volumes[v] = true
		}
		return true
	})
	if why != "" {
		r := scheduler.Reject(why)
		j.Filter = func(*scheduler.Node) *scheduler.Rejection { return r }
		return j, nil
	}
	if drivers := byDriver(view, volumes); len(drivers) > 0 {
		j.Filter = limitFilter(view, drivers)
	}
	return j, nil
}

// byDriver leaves out drivers that reject no node.
func byDriver(view *scheduler.View, volumes map[scheduler.CSIVolume]bool) []*driverVolumes {
	all := map[string]*driverVolumes{}
	for v := range volumes {
		d := all[v.Driver]
		if d == nil {
			d = &driverVolumes{name: v.Driver, nodes: view.DriverNodes(v.Driver)}
			if obj := view.CSIDriver(v.Driver); obj != nil && obj.Spec.PreventPodSchedulingIfMissing != nil {
				d.must = *obj.Spec.PreventPodSchedulingIfMissing
			}
			if d.nodes == nil && !d.must {
				continue
			}
			all[v.Driver] = d
		}
		d.volumes++
		if view.VolumeUsedAnywhere(v) {
			d.used = append(d.used, v)
		}
	}
	out := make([]*driverVolumes, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[name])
	}
	return out
}

func limitFilter(view *scheduler.View, drivers []*driverVolumes) func(*scheduler.Node) *scheduler.Rejection {
	full := scheduler.RejectFull("node(s) exceed max volume count")
	return func(n *scheduler.Node) *scheduler.Rejection {
		slot := n.Index()
		for _, d := range drivers {
			if d.must && (d.nodes == nil || !d.nodes.Installed[slot]) {
				return scheduler.RejectFull(d.name + " CSI driver is not installed on the node")
			}
		}
		for _, d := range drivers {
			if d.nodes == nil || d.nodes.Limit[slot] < 0 {
				continue
			}
			more := d.volumes
			for _, v := range d.used {
				if view.VolumeUsed(v, slot) {
					more--
				}
			}
			if more > 0 && d.nodes.Attached[slot]+more > d.nodes.Limit[slot] {
				return full
			}
		}
		return nil
	}
}

// Hint implements scheduler.Hinter.
func (NodeVolumeLimits) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) bool {
	switch {
	case c.CSINode != nil:
		return c.OldCSINode == nil || raised(c.OldCSINode, c.CSINode)
	case c.FreedPod != nil:
		return hasClaims(c.FreedPod)
	case c.Claim != nil:
		return c.OldClaim == nil && usesClaim(pod, c.Claim, true)
	case c.GoneAttachment != nil:
		return slices.ContainsFunc(pod.Object.Spec.Volumes, func(v corev1.Volume) bool { return v.PersistentVolumeClaim != nil })
	case c.OldCSIDriver != nil, c.CSIDriver != nil:
		return true
	}
	return false
}

func hasClaims(pod *scheduler.Pod) (has bool) {
	pod.EachClaim(func(string, bool) bool {
		has = true
		return false
	})
	return has
}

// raised reports whether a driver is new or may have more volumes.
func raised(old, now *storagev1.CSINode) bool {
	limit := func(d *storagev1.CSINodeDriver) int32 {
		if d.Allocatable == nil || d.Allocatable.Count == nil {
			return 0
		}
		return *d.Allocatable.Count
	}
	for i := range now.Spec.Drivers {
		d := &now.Spec.Drivers[i]
		k := slices.IndexFunc(old.Spec.Drivers, func(o storagev1.CSINodeDriver) bool { return o.Name == d.Name })
		if k < 0 || limit(d) > limit(&old.Spec.Drivers[k]) {
			return true
		}
	}
	return false
}
