package scheduler

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	volumehelper "k8s.io/component-helpers/storage/volume"
)

// VolumePlan is what has to be done for the claims of a pod before it can be bound to the node that was chosen for it.
type VolumePlan struct {
	Node string
	// Bind are volumes that exist, for claims that have none yet.
	Bind []VolumeMatch
	// Provision are claims for which volumes are to be made that can be reached from the node.
	Provision []*corev1.PersistentVolumeClaim
	// Timeout bounds the wait until all of that has come true.
	Timeout time.Duration

	// assumed are what the plan made the view show, less what another pod's plan had before.
	assumed map[metav1.Object]bool
}

// VolumeMatch is a volume for a claim.
type VolumeMatch struct {
	Volume *corev1.PersistentVolume
	Claim  *corev1.PersistentVolumeClaim
}

// Empty reports that there is nothing to do.
func (p *VolumePlan) Empty() bool { return p == nil || len(p.Bind)+len(p.Provision) == 0 }

// AssumeVolumes makes the view show volumes and claims as they will be when the plan has been carried out, until the API shows them changed, and
// keeps the plan, with the objects as they are to be written, for the runner. It is for a plugin's Reserve alone.
func (v *View) AssumeVolumes(pod *Pod, plan *VolumePlan) error {
	s := &v.storage
	out := &VolumePlan{Node: plan.Node, Timeout: plan.Timeout, assumed: map[metav1.Object]bool{}}
	for _, m := range plan.Bind {
		pv, dirty, err := volumehelper.GetBindVolumeToClaim(m.Volume, m.Claim)
		if err != nil {
			return fmt.Errorf("scheduler: volume %s for claim %s/%s: %w", m.Volume.Name, m.Claim.Namespace, m.Claim.Name, err)
		}
		if dirty {
			out.assumed[pv] = true
		} else {
			pv = m.Volume
		}
		out.Bind = append(out.Bind, VolumeMatch{pv, m.Claim})
	}
	for _, claim := range plan.Provision {
		if claim.Annotations[volumehelper.AnnSelectedNode] != plan.Node {
			claim = claim.DeepCopy()
			metav1.SetMetaDataAnnotation(&claim.ObjectMeta, volumehelper.AnnSelectedNode, plan.Node)
			out.assumed[claim] = true
		}
		out.Provision = append(out.Provision, claim)
	}
	for _, m := range out.Bind {
		if out.assumed[m.Volume] {
			s.assumedVolumes[m.Volume.Name] = m.Volume
			v.volumeMoved(m.Volume.Name)
		}
	}
	for _, c := range out.Provision {
		if out.assumed[c] {
			s.assumedClaims[c.Namespace+"/"+c.Name] = c
		}
	}
	s.plans[pod.key()] = out
	return nil
}

// ForgetVolumes undoes AssumeVolumes, as far as the API has not shown other versions of the objects since. It is for a plugin's Unreserve alone.
func (v *View) ForgetVolumes(uid types.UID) {
	s := &v.storage
	plan := s.plans[uid]
	if plan == nil {
		return
	}
	delete(s.plans, uid)
	for _, m := range plan.Bind {
		if plan.assumed[m.Volume] && s.assumedVolumes[m.Volume.Name] == m.Volume {
			delete(s.assumedVolumes, m.Volume.Name)
			v.volumeMoved(m.Volume.Name)
		}
	}
	for _, c := range plan.Provision {
		if key := c.Namespace + "/" + c.Name; plan.assumed[c] && s.assumedClaims[key] == c {
			delete(s.assumedClaims, key)
		}
	}
}

// VolumePlan returns what has to be done for the claims of a pod that was put on a node before it can be bound there; nil for nothing.
func (e *Engine) VolumePlan(uid types.UID) *VolumePlan { return e.view.storage.plans[uid] }

// VolumesBound tells the engine that a pod's VolumePlan has come true: what was assumed for it stays until the API shows the same.
func (e *Engine) VolumesBound(uid types.UID) { delete(e.view.storage.plans, uid) }
