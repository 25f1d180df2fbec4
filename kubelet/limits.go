package kubelet

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"

	"github.com/keelson/keelson/kubelet/internal/criconfig"
	"github.com/keelson/keelson/kubelet/internal/podstate"
)

// enforceStorage evicts pods that use more local storage than their limits allow: of an emptyDir, of a container, or of all
// containers together.
func (k *Kubelet) enforceStorage(ctx context.Context) {
	for _, rec := range k.records() {
		rec.mu.Lock()
		pod, live := rec.pod, rec.admission == admitted && !rec.gone && rec.rejected == nil && rec.pod.DeletionTimestamp == nil
		rec.mu.Unlock()
		if !live {
			continue
		}
		message := k.overStorage(ctx, pod)
		if message == "" {
			continue
		}
		rec.mu.Lock()
		if rec.rejected == nil {
			rec.rejected = &podstate.Rejection{Reason: "Evicted", Message: message}
			k.events.pod(pod, "", corev1.EventTypeWarning, "Evicted", message)
		}
		rec.mu.Unlock()
		k.queue.Add(rec.uid)
	}
}

// overStorage says which limit a pod exceeds, in Kubernetes' words; nothing if none.
func (k *Kubelet) overStorage(ctx context.Context, pod *corev1.Pod) string {
	var shared int64
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.EmptyDir == nil || v.EmptyDir.Medium != corev1.StorageMediumDefault {
			continue
		}
		limit := v.EmptyDir.SizeLimit
		if limit == nil && !limitsStorage(pod) {
			continue
		}
		vol, err := k.volumes.Volume(ctx, pod, v.Name)
		if err != nil {
			continue
		}
		used := diskUsage(vol.Path)
		if limit != nil && limit.Sign() > 0 && used > limit.Value() {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, limit.String())
		}
		shared += used
	}
	if !limitsStorage(pod) {
		return ""
	}
	stats, err := k.runtime.ListContainerStats(ctx, &runtimeapi.ContainerStatsFilter{LabelSelector: map[string]string{kubelettypes.KubernetesPodUIDLabel: string(pod.UID)}})
	if err != nil {
		return ""
	}
	used := map[string]int64{}
	for _, s := range stats {
		used[s.GetAttributes().GetMetadata().GetName()] = int64(s.GetWritableLayer().GetUsedBytes().GetValue())
	}
	total, limits, all := shared, int64(0), true
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		n := used[c.Name] + diskUsage(filepath.Join(criconfig.LogDirectory(k.logRoot(), pod), c.Name))
		total += n
		limit, ok := c.Resources.Limits[corev1.ResourceEphemeralStorage]
		if !ok {
			all = false
			continue
		}
		limits += limit.Value()
		if n > limit.Value() {
			return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", c.Name, limit.String())
		}
	}
	if all && total > limits {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %d. ", limits)
	}
	return ""
}

func limitsStorage(pod *corev1.Pod) bool {
	for i := range pod.Spec.Containers {
		if _, ok := pod.Spec.Containers[i].Resources.Limits[corev1.ResourceEphemeralStorage]; ok {
			return true
		}
	}
	return false
}

// diskUsage is how many bytes the files below a directory hold. What changes meanwhile is passed over.
func diskUsage(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}
