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

// Points implements scheduler.Partial.
func (NodeVolumeLimits) Points() scheduler.Points { return scheduler.AtPreFilter | scheduler.AtFilter }

// driverVolumes are the pod's volumes of one driver.
type driverVolumes struct {
	name    string
	nodes   *scheduler.DriverNodes // nil: no node has the driver
	must    bool                   // the driver must be there
	volumes int32
	used    []scheduler.CSIVolume // those of them that pods on nodes have already
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
		j.Domains = &scheduler.DomainJudgement{ID: "no volumes", Filter: func(*scheduler.Place) *scheduler.Rejection { return r }}
		return j, nil
	}
	drivers := byDriver(view, volumes)
	if len(drivers) == 0 {
		return j, nil
	}
	j.Domains = limitDomains(drivers)
	for _, d := range drivers {
		for _, v := range d.used {
			j.Domains.Exempt = append(j.Domains.Exempt, view.VolumeNodes(v)...)
		}
	}
	if len(j.Domains.Exempt) > 0 {
		j.Domains.FilterExempt = limitFilter(view, drivers)
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
			d.must = mustBeThere(view.CSIDriver(v.Driver))
			if (d.nodes == nil || d.nodes.Limited == 0) && !d.must {
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

// mustBeThere reports whether pods only go to nodes where the driver is installed.
func mustBeThere(d *storagev1.CSIDriver) bool {
	return d != nil && d.Spec.PreventPodSchedulingIfMissing != nil && *d.Spec.PreventPodSchedulingIfMissing
}

func tooMany() *scheduler.Rejection { return scheduler.RejectFull("node(s) exceed max volume count") }

func notThere(driver string) *scheduler.Rejection {
	return scheduler.RejectFull(driver + " CSI driver is not installed on the node")
}

// limitDomains tells nodes apart by the room that they have left. It doesn't serve for nodes where some of the volumes are already: there more may fit.
func limitDomains(drivers []*driverVolumes) *scheduler.DomainJudgement {
	j := &scheduler.DomainJudgement{}
	var id []byte
	for _, d := range drivers {
		nodes := d.nodes
		if nodes == nil {
			nodes = &scheduler.DriverNodes{}
		}
		id = appendStrings(id, d.name)
		j.Sums = append(j.Sums, scheduler.DomainSum{Amount: func(n *scheduler.Node) (int64, bool) {
			slot := n.Index()
			if slot >= len(nodes.Limit) || nodes.Limit[slot] < 0 {
				return 0, false
			}
			return int64(nodes.Limit[slot] - nodes.Attached[slot]), true
		}}, scheduler.DomainSum{Amount: func(n *scheduler.Node) (int64, bool) {
			slot := n.Index()
			return 0, slot < len(nodes.Installed) && nodes.Installed[slot]
		}})
	}
	j.ID = "volume limits " + string(id)
	j.Filter = func(p *scheduler.Place) *scheduler.Rejection {
		for i, d := range drivers {
			if _, installed := p.Sum(2*i + 1); d.must && !installed {
				return notThere(d.name)
			}
		}
		for i, d := range drivers {
			if room, limited := p.Sum(2 * i); limited && room < int64(d.volumes) {
				return tooMany()
			}
		}
		return nil
	}
	return j
}

func limitFilter(view *scheduler.View, drivers []*driverVolumes) func(*scheduler.Node) *scheduler.Rejection {
	full := tooMany()
	return func(n *scheduler.Node) *scheduler.Rejection {
		slot := n.Index()
		for _, d := range drivers {
			if d.must && (d.nodes == nil || !d.nodes.Installed[slot]) {
				return notThere(d.name)
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
	case c.OldCSIDriver != nil:
		return mustBeThere(c.OldCSIDriver) && !mustBeThere(c.CSIDriver)
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
