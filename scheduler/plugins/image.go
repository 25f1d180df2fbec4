package plugins

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
)

// ImageLocality prefers nodes that have the pod's images already, by their size, and the more so the more nodes have them: else all pods would go where
// the first one went.
type ImageLocality struct{}

// Sizes between which images count: below the first it isn't worth it, above the second it doesn't get better.
const (
	minImageBytes = 23 << 20
	maxImageBytes = 1000 << 20 // for each container and image volume
)

// Name implements scheduler.Plugin.
func (ImageLocality) Name() string { return "ImageLocality" }

// Points implements scheduler.Partial.
func (ImageLocality) Points() scheduler.Points { return scheduler.AtScore }

// Prepare implements scheduler.ClusterPlugin.
func (ImageLocality) Prepare(pod *scheduler.Pod, view *scheduler.View) (j scheduler.Judgement, _ *scheduler.Rejection) {
	names := imagesOf(pod.Object)
	if !slices.ContainsFunc(names, func(n string) bool { return view.ImageNodes(n) > 0 }) {
		return j, nil
	}
	total := view.Len()
	d := &scheduler.DomainJudgement{}
	var of []string // an image is summed up once
	for _, name := range names {
		if slices.Contains(of, name) {
			continue
		}
		of = append(of, name)
		d.Sums = append(d.Sums, scheduler.DomainSum{Amount: func(n *scheduler.Node) (int64, bool) { return imageSize(n.Object, name) }})
	}
	d.ID = "images " + strings.Join(of, " ")
	d.Scores = func(places []scheduler.Place, scores []int64) {
		most := maxImageBytes * int64(len(names))
		for i := range places {
			var sum int64
			for _, name := range names {
				if size, ok := places[i].Sum(slices.Index(of, name)); ok {
					spread := float64(view.ImageNodes(name)) / float64(total)
					sum += int64(float64(size) * spread)
				}
			}
			scores[i] = scheduler.MaxScore * (min(max(sum, minImageBytes), most) - minImageBytes) / (most - minImageBytes)
		}
	}
	j.Domains = d
	return j, nil
}

// imagesOf are the images of the pod's containers and of its image volumes, with tags.
func imagesOf(pod *corev1.Pod) (names []string) {
	for i := range pod.Spec.InitContainers {
		names = append(names, withTag(pod.Spec.InitContainers[i].Image))
	}
	for i := range pod.Spec.Containers {
		names = append(names, withTag(pod.Spec.Containers[i].Image))
	}
	for i := range pod.Spec.Volumes {
		if image := pod.Spec.Volumes[i].Image; image != nil {
			names = append(names, withTag(image.Reference))
		}
	}
	return names
}

func imageSize(n *corev1.Node, name string) (int64, bool) {
	for i := range n.Status.Images {
		if slices.Contains(n.Status.Images[i].Names, name) {
			return n.Status.Images[i].SizeBytes, true
		}
	}
	return 0, false
}

func withTag(image string) string {
	if strings.LastIndexByte(image, ':') <= strings.LastIndexByte(image, '/') {
		return image + ":latest"
	}
	return image
}
