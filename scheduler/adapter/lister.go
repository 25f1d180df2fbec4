package adapter

import (
	"errors"
	"fmt"
	"strings"

	fwk "k8s.io/kube-scheduler/framework"

	"github.com/keelson/keelson/scheduler"
)

var errNoDecision = errors.New("adapter: nodes can be listed only while a decision is made")

// current is the view of the decision under way.
func (f *Framework) current() *scheduler.View {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view
}

// info is a node as plugins see it, the same one throughout a decision.
func (f *Framework) info(n *scheduler.Node) *nodeInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cycle == nil {
		return newNodeInfo(n, f.nodesWith)
	}
	info := f.cycle.infos[n.Object.Name]
	if info == nil || info.from != n {
		info = newNodeInfo(n, f.nodesWith)
		f.cycle.infos[n.Object.Name] = info
	}
	return info
}

// infos are all nodes.
func (f *Framework) infos(view *scheduler.View) (out []fwk.NodeInfo) {
	for _, n := range view.Nodes() {
		if n != nil {
			out = append(out, f.info(n))
		}
	}
	return out
}

// nodesWith is the number of nodes that have an image.
func (f *Framework) nodesWith(image string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.images == nil {
		f.images = map[string]int{}
		for _, n := range f.view.Nodes() {
			if n == nil {
				continue
			}
			for _, i := range n.Object.Status.Images {
				for _, name := range i.Names {
					f.images[name]++
				}
			}
		}
	}
	return f.images[image]
}

// lister implements the listers over the view of the decision under way.
type lister struct{ f *Framework }

var (
	_ fwk.SharedLister      = lister{}
	_ fwk.NodeInfoLister    = lister{}
	_ fwk.StorageInfoLister = lister{}
)

func (l lister) NodeInfos() fwk.NodeInfoLister       { return l }
func (l lister) StorageInfos() fwk.StorageInfoLister { return l }

func (l lister) PodGroupStates() fwk.PodGroupStateLister {
	l.f.lacks("SnapshotSharedLister().PodGroupStates")
	return nil
}

func (l lister) PodGroups() fwk.PodGroupLister {
	l.f.lacks("SnapshotSharedLister().PodGroups")
	return nil
}

func (l lister) CompositePodGroupStates() fwk.CompositePodGroupStateLister {
	l.f.lacks("SnapshotSharedLister().CompositePodGroupStates")
	return nil
}

func (l lister) CompositePodGroups() fwk.CompositePodGroupLister {
	l.f.lacks("SnapshotSharedLister().CompositePodGroups")
	return nil
}

func (l lister) List() ([]fwk.NodeInfo, error) {
	return l.having(func(fwk.NodeInfo) bool { return true })
}

func (l lister) having(has func(fwk.NodeInfo) bool) (out []fwk.NodeInfo, _ error) {
	view := l.f.current()
	if view == nil {
		return nil, errNoDecision
	}
	for _, n := range view.Nodes() {
		if n == nil {
			continue
		}
		if info := l.f.info(n); has(info) {
			out = append(out, info)
		}
	}
	return out, nil
}

func (l lister) HavePodsWithAffinityList() ([]fwk.NodeInfo, error) {
	return l.having(func(n fwk.NodeInfo) bool { return len(n.GetPodsWithAffinity()) > 0 })
}

func (l lister) HavePodsWithRequiredAntiAffinityList() ([]fwk.NodeInfo, error) {
	return l.having(func(n fwk.NodeInfo) bool { return len(n.GetPodsWithRequiredAntiAffinity()) > 0 })
}

func (l lister) HavePodsWithRequiredNonHostScopedAntiAffinityList() ([]fwk.NodeInfo, error) {
	return l.having(func(n fwk.NodeInfo) bool { return len(n.GetPodsWithRequiredNonHostScopedAntiAffinity()) > 0 })
}

func (l lister) Get(name string) (fwk.NodeInfo, error) {
	view := l.f.current()
	if view == nil {
		return nil, errNoDecision
	}
	if n := view.Node(name); n != nil {
		return l.f.info(n), nil
	}
	return nil, fmt.Errorf("nodeinfo not found for node name %q", name)
}

func (l lister) IsPVCUsedByPods(key string) bool {
	view := l.f.current()
	if view == nil {
		return false
	}
	namespace, name, _ := strings.Cut(key, "/")
	return view.ClaimUsers(namespace, name) > 0
}
