package kubelet

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// minImageAge is how long an image stays that nobody has used yet.
const minImageAge = 2 * time.Minute

// imageUse remembers when images were first seen and last used. Only housekeeping uses it.
type imageUse struct{ seen, used map[string]time.Time }

// note looks at which images there are and which are in use, and returns those that are not.
func (u *imageUse) note(ctx context.Context, k *Kubelet) []*runtimeapi.Image {
	if k.opts.ImageGCThreshold >= 100 {
		return nil
	}
	list, err := k.image.ListImages(ctx, nil)
	if err != nil {
		return nil
	}
	containers, err := k.runtime.ListContainers(ctx, nil)
	if err != nil {
		return nil
	}
	inUse := map[string]bool{}
	for _, c := range containers {
		inUse[c.ImageRef], inUse[c.ImageId], inUse[c.GetImage().GetImage()] = true, true, true
	}
	now := k.clock.Now()
	seen, used := make(map[string]time.Time, len(list)), make(map[string]time.Time, len(list))
	var idle []*runtimeapi.Image
	for _, img := range list {
		seen[img.Id], used[img.Id] = now, now
		if t, ok := u.seen[img.Id]; ok {
			seen[img.Id], used[img.Id] = t, u.used[img.Id]
		}
		busy := img.Pinned || inUse[img.Id]
		for _, name := range slices.Concat(img.RepoTags, img.RepoDigests) {
			busy = busy || inUse[name]
		}
		if busy {
			used[img.Id] = now
		} else {
			idle = append(idle, img)
		}
	}
	u.seen, u.used = seen, used
	return idle
}

// collectImages removes images no container uses, those not used for longest first, while the file system they are on is fuller
// than the threshold.
func (k *Kubelet) collectImages(ctx context.Context) {
	idle := k.imageUse.note(ctx, k)
	if k.opts.ImageGCThreshold >= 100 {
		return
	}
	info, err := k.image.ImageFsInfo(ctx)
	if err != nil || len(info.GetImageFilesystems()) == 0 {
		return
	}
	used, total := k.fsUsage(info.ImageFilesystems[0].GetFsId().GetMountpoint())
	if total == 0 || used*100/total < uint64(k.opts.ImageGCThreshold) {
		return
	}
	u := &k.imageUse
	slices.SortFunc(idle, func(a, b *runtimeapi.Image) int {
		return cmp.Or(u.used[a.Id].Compare(u.used[b.Id]), u.seen[a.Id].Compare(u.seen[b.Id]), cmp.Compare(a.Id, b.Id))
	})
	goal := total * uint64(max(k.opts.ImageGCThreshold-5, 0)) / 100
	var freed uint64
	for _, img := range idle {
		if used-min(freed, used) <= goal {
			break
		}
		if k.clock.Since(u.seen[img.Id]) < minImageAge {
			continue
		}
		if err := k.image.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: img.Id}); err != nil {
			k.log.Error(err, "Removing an image", "image", img.Id)
			continue
		}
		freed += img.Size
	}
	if used-min(freed, used) > goal {
		k.events.nodeEvent(corev1.EventTypeWarning, "FreeDiskSpaceFailed", fmt.Sprintf("Failed to garbage collect required amount of images. Attempted to free %d bytes, but only found %d bytes eligible to free.", used-goal, freed))
	}
}
