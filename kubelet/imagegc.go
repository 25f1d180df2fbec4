package kubelet

import (
	"context"
	"sort"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// collectImages removes images no container uses, the largest first, while the file system they are on is fuller than the threshold.
func (k *Kubelet) collectImages(ctx context.Context) {
	if k.opts.ImageGCThreshold >= 100 {
		return
	}
	info, err := k.image.ImageFsInfo(ctx)
	if err != nil || len(info.GetImageFilesystems()) == 0 {
		return
	}
	used, total := fsUsage(info.ImageFilesystems[0].GetFsId().GetMountpoint())
	if total == 0 || used*100/total < uint64(k.opts.ImageGCThreshold) {
		return
	}
	containers, err := k.runtime.ListContainers(ctx, nil)
	if err != nil {
		return
	}
	inUse := map[string]bool{}
	for _, c := range containers {
		inUse[c.ImageRef], inUse[c.ImageId], inUse[c.GetImage().GetImage()] = true, true, true
	}
	list, err := k.image.ListImages(ctx, nil)
	if err != nil {
		return
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Size > list[j].Size })
	goal := total * uint64(max(k.opts.ImageGCThreshold-5, 0)) / 100
	var freed uint64
	for _, img := range list {
		if used-min(freed, used) <= goal {
			break
		}
		busy := img.Pinned || inUse[img.Id]
		for _, names := range [...][]string{img.RepoTags, img.RepoDigests} {
			for _, n := range names {
				busy = busy || inUse[n]
			}
		}
		if busy {
			continue
		}
		if err := k.image.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: img.Id}); err != nil {
			k.log.Error(err, "Removing an image", "image", img.Id)
			continue
		}
		freed += img.Size
	}
	if used-min(freed, used) > goal {
		k.events.nodeEvent(corev1.EventTypeWarning, "FreeDiskSpaceFailed", "Failed to garbage collect required amount of images")
	}
}
