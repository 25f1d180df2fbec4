package plugins

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
)

// ImageLocality prefers nodes that have the pod's images already, by their size.
type ImageLocality struct{}

// Sizes between which images count: below the first it isn't worth it, above the second it doesn't get better.
const (
	minImageBytes = 23 << 20
	maxImageBytes = 1000 << 20 // for each container
)

// Name implements scheduler.Plugin.
func (ImageLocality) Name() string { return "ImageLocality" }

// Scope implements scheduler.Scoped.
func (ImageLocality) Scope() scheduler.Scope { return scheduler.ScopeNode }

// Sign implements scheduler.Signer.
func (ImageLocality) Sign(pod *scheduler.Pod, to []byte) []byte {
	eachContainer(pod, func(c *corev1.Container) { to = appendStrings(to, c.Image) })
	return to
}

// Score implements scheduler.ScorePlugin.
func (ImageLocality) Score(pod *scheduler.Pod, node *scheduler.Node) int64 {
	if len(node.Object.Status.Images) == 0 {
		return 0
	}
	var sum, containers int64
	eachContainer(pod, func(c *corev1.Container) {
		containers++
		want := withTag(c.Image)
		for i := range node.Object.Status.Images {
			for _, name := range node.Object.Status.Images[i].Names {
				if name == want {
					sum += node.Object.Status.Images[i].SizeBytes
					return
				}
			}
		}
	})
	most := maxImageBytes * containers
	sum = min(max(sum, minImageBytes), most)
	return scheduler.MaxScore * (sum - minImageBytes) / (most - minImageBytes)
}

func eachContainer(pod *scheduler.Pod, f func(*corev1.Container)) {
	for i := range pod.Object.Spec.InitContainers {
		f(&pod.Object.Spec.InitContainers[i])
	}
	for i := range pod.Object.Spec.Containers {
		f(&pod.Object.Spec.Containers[i])
	}
}

func withTag(image string) string {
	if strings.LastIndexByte(image, ':') <= strings.LastIndexByte(image, '/') {
		return image + ":latest"
	}
	return image
}
