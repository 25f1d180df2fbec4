package statefulset

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/controller/internal/pods"
)

// parentOf splits a pod's name into its set's and its ordinal.
func parentOf(name string) (parent string, ordinal int, ok bool) {
	i := strings.LastIndexByte(name, '-')
	if i <= 0 {
		return "", 0, false
	}
	n, err := strconv.ParseInt(name[i+1:], 10, 32)
	if err != nil || n < 0 {
		return "", 0, false
	}
	return name[:i], int(n), true
}

func ordinalOf(p *corev1.Pod) int {
	_, n, ok := parentOf(p.Name)
	if !ok {
		return -1
	}
	return n
}

func podName(set *appsv1.StatefulSet, ordinal int) string {
	return fmt.Sprintf("%s-%d", set.Name, ordinal)
}

func claimName(set *appsv1.StatefulSet, template *corev1.PersistentVolumeClaim, ordinal int) string {
	return fmt.Sprintf("%s-%s-%d", template.Name, set.Name, ordinal)
}

func revisionOf(p *corev1.Pod) string { return p.Labels[appsv1.StatefulSetRevisionLabel] }

func startOrdinal(set *appsv1.StatefulSet) int {
	if set.Spec.Ordinals == nil {
		return 0
	}
	return int(set.Spec.Ordinals.Start)
}

// newPod makes the pod of an ordinal at a revision. set is the one as of then.
func newPod(set *appsv1.StatefulSet, ordinal int, revision string) *corev1.Pod {
	p := pods.FromTemplate(&set.Spec.Template, set.Namespace, set.Name, metav1.NewControllerRef(set, kind))
	p.GenerateName = ""
	p.Name = podName(set, ordinal)
	setIdentity(set, p)
	setStorage(set, p)
	p.Labels[appsv1.StatefulSetRevisionLabel] = revision
	return p
}

func setIdentity(set *appsv1.StatefulSet, p *corev1.Pod) {
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[appsv1.StatefulSetPodNameLabel] = p.Name
	p.Labels[appsv1.PodIndexLabel] = strconv.Itoa(ordinalOf(p))
	p.Spec.Hostname, p.Spec.Subdomain = p.Name, set.Spec.ServiceName
}

func identityMatches(p *corev1.Pod) bool {
	return p.Labels[appsv1.StatefulSetPodNameLabel] == p.Name && p.Labels[appsv1.PodIndexLabel] == strconv.Itoa(ordinalOf(p))
}

// setStorage makes the pod's volumes of claim templates those of its claims.
func setStorage(set *appsv1.StatefulSet, p *corev1.Pod) {
	var out []corev1.Volume
	for i := range set.Spec.VolumeClaimTemplates {
		t := &set.Spec.VolumeClaimTemplates[i]
		out = append(out, corev1.Volume{Name: t.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(set, t, ordinalOf(p))},
		}})
	}
	for _, v := range p.Spec.Volumes {
		if !slices.ContainsFunc(out, func(o corev1.Volume) bool { return o.Name == v.Name }) {
			out = append(out, v)
		}
	}
	p.Spec.Volumes = out
}

// claimsOf are the claims a pod's ordinal has.
func claimsOf(set *appsv1.StatefulSet, ordinal int) []*corev1.PersistentVolumeClaim {
	var out []*corev1.PersistentVolumeClaim
	for i := range set.Spec.VolumeClaimTemplates {
		t := set.Spec.VolumeClaimTemplates[i].DeepCopy()
		t.Name, t.Namespace = claimName(set, t, ordinal), set.Namespace
		if set.Spec.Selector != nil {
			if t.Labels == nil {
				t.Labels = map[string]string{}
			}
			maps.Copy(t.Labels, set.Spec.Selector.MatchLabels)
		}
		t.Status = corev1.PersistentVolumeClaimStatus{}
		out = append(out, t)
	}
	return out
}
