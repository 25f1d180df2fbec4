package kubelet

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func statusEqual(a, b *corev1.PodStatus) bool { return apiequality.Semantic.DeepEqual(a, b) }

// sameStatus tells if a decision's status is the one already known. The machine hands out equal slices for an unchanged status, which
// saves comparing them.
func sameStatus(have, now *corev1.PodStatus, version uint64) bool {
	if version == 0 {
		return false
	}
	if len(have.ContainerStatuses) > 0 && len(now.ContainerStatuses) > 0 && len(have.Conditions) > 0 && len(now.Conditions) > 0 &&
		&have.ContainerStatuses[0] == &now.ContainerStatuses[0] && &have.Conditions[0] == &now.Conditions[0] {
		return true
	}
	return statusEqual(have, now)
}

// writeStatus brings the API's status of a pod up to the kubelet's.
func (k *Kubelet) writeStatus(ctx context.Context, uid types.UID) {
	rec := k.record(uid)
	if rec == nil {
		return
	}
	rec.mu.Lock()
	version, status, pod, gone := rec.version, rec.status, rec.pod, rec.gone
	done := rec.version == rec.writtenVersion
	rec.mu.Unlock()
	if done || gone {
		return
	}
	as, err := k.putStatus(ctx, pod, &status)
	if apierrors.IsNotFound(err) {
		// The deletion is on its way through the informer.
		err = nil
	}
	if err != nil {
		if ctx.Err() == nil {
			k.log.Error(err, "Writing a pod's status", "pod", pod.Namespace+"/"+pod.Name)
			k.statuses.AddAt(uid, k.clock.Now().Add(time.Second))
		}
		return
	}
	rec.mu.Lock()
	rec.writtenVersion = max(rec.writtenVersion, version)
	again := rec.version != version
	if as != "" {
		rec.writtenAs = as
		rec.overtaken = rec.changedSince()
	}
	waiting := rec.pod.DeletionTimestamp != nil || rec.overtaken
	rec.mu.Unlock()
	if again {
		k.statuses.Add(uid)
	}
	if waiting {
		k.queue.Add(uid)
	}
}

// putStatus updates the status by the version the kubelet has seen, or, if that is an old one, by the newest, leaving
// the conditions that are others'. It returns the resourceVersion that this led to.
func (k *Kubelet) putStatus(ctx context.Context, pod *corev1.Pod, status *corev1.PodStatus) (string, error) {
	obj := pod.DeepCopy()
	status.DeepCopyInto(&obj.Status)
	err := k.client.Status().Update(ctx, obj)
	for range 5 {
		if !apierrors.IsConflict(err) {
			break
		}
		obj = &corev1.Pod{}
		if err := k.client.Get(ctx, client.ObjectKeyFromObject(pod), obj); err != nil {
			return "", err
		}
		if obj.UID != pod.UID {
			return "", nil
		}
		foreign := foreignConditions(obj.Status.Conditions)
		status.DeepCopyInto(&obj.Status)
		obj.Status.Conditions = append(ownConditions(obj.Status.Conditions), foreign...)
		err = k.client.Status().Update(ctx, obj)
	}
	return obj.ResourceVersion, err
}

// sameConditions compares the statuses of the kubelet's own conditions.
func sameConditions(api, own []corev1.PodCondition) bool {
	for i := range own {
		if !isOwnCondition(own[i].Type) {
			continue
		}
		j := slices.IndexFunc(api, func(c corev1.PodCondition) bool { return c.Type == own[i].Type })
		if j < 0 || api[j].Status != own[i].Status {
			return false
		}
	}
	return true
}

func isOwnCondition(t corev1.PodConditionType) bool {
	switch t {
	case corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled:
		return true
	}
	return false
}

func ownConditions(list []corev1.PodCondition) []corev1.PodCondition {
	var out []corev1.PodCondition
	for i := range list {
		if isOwnCondition(list[i].Type) {
			out = append(out, list[i])
		}
	}
	return out
}

func foreignConditions(list []corev1.PodCondition) []corev1.PodCondition {
	var out []corev1.PodCondition
	for i := range list {
		if !isOwnCondition(list[i].Type) {
			out = append(out, list[i])
		}
	}
	return out
}
