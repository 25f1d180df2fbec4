package core

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

func pod(opts Options) *kind.Kind {
	spec := field.NewPath("spec")
	return &kind.Kind{
		GVK:        corev1.SchemeGroupVersion.WithKind("Pod"),
		Resource:   "pods",
		Singular:   "pod",
		ShortNames: []string{"po"},
		Categories: []string{"all"},
		Namespaced: true,

		Default: typed.Default(defaultPod),
		PrepareForCreate: typed.Prepare(func(ctx context.Context, p *corev1.Pod) {
			p.Generation = 1
			p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: podspec.QOSClass(p)}
			podspec.Prepare(ctx, &p.Spec, nil, spec)
			podspec.PrepareAppArmor(p)
			mergeLabelKeys(p)
			if len(p.Spec.SchedulingGates) > 0 {
				p.Status.Conditions = []corev1.PodCondition{{
					Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
					Message: "Scheduling is blocked due to non-empty scheduling gates", LastTransitionTime: metav1.NewTime(opts.Clock.Now()),
				}}
			}
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(ctx context.Context, p, old *corev1.Pod) {
			p.Status = old.Status
			p.Generation = old.Generation
			if podspec.Same(&p.Spec, &old.Spec) {
				return
			}
			podspec.Prepare(ctx, &p.Spec, &old.Spec, spec)
			p.Generation = nextPodGeneration(p, old)
		}),
		Validate:       typed.Validate(podspec.ValidatePod),
		ValidateUpdate: typed.ValidateUpdate(podspec.ValidatePodUpdate),
		Warnings: typed.Warnings(func(ctx context.Context, p, old *corev1.Pod) []string {
			return podspec.PodWarnings(ctx, p, old)
		}),
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,

		Status: &kind.Subresource{
			Prepare:  typed.PrepareUpdate(preparePodStatus),
			Validate: typed.ValidateUpdate(podspec.ValidatePodStatusUpdate),
		},
		Subresources: map[string]*kind.Subresource{
			"ephemeralcontainers": {
				Prepare: typed.PrepareUpdate(func(ctx context.Context, p, old *corev1.Pod) {
					added := p.Spec.EphemeralContainers
					meta := p.ObjectMeta
					*p = *old.DeepCopy()
					p.ManagedFields, p.ResourceVersion = meta.ManagedFields, meta.ResourceVersion
					p.Spec.EphemeralContainers = added
					podspec.Prepare(ctx, &p.Spec, &old.Spec, spec)
					p.Generation = nextPodGeneration(p, old)
				}),
				Validate: typed.ValidateUpdate(podspec.ValidateEphemeralUpdate),
				Warnings: typed.Warnings(func(ctx context.Context, p, old *corev1.Pod) []string { return podspec.PodWarnings(ctx, p, old) }),
			},
			"resize": {
				Prepare:  typed.PrepareUpdate(prepareResize),
				Validate: typed.ValidateUpdate(podspec.ValidateResize),
				Warnings: typed.Warnings(func(ctx context.Context, p, old *corev1.Pod) []string {
					return append(podspec.PodWarnings(ctx, p, old), "Keelson's kubelet does not resize running containers: there, new resources are used when a container is next started")
				}),
			},
		},
		GracePeriod: func(_ context.Context, obj client.Object, requested *int64) int64 {
			p, ok := obj.(*corev1.Pod)
			if !ok {
				return 0
			}
			return gracePeriod(p, requested)
		},

		Fields: map[string]func(client.Object) string{
			"spec.nodeName":            typed.Field(func(p *corev1.Pod) string { return p.Spec.NodeName }),
			"spec.restartPolicy":       typed.Field(func(p *corev1.Pod) string { return string(p.Spec.RestartPolicy) }),
			"spec.schedulerName":       typed.Field(func(p *corev1.Pod) string { return p.Spec.SchedulerName }),
			"spec.serviceAccountName":  typed.Field(func(p *corev1.Pod) string { return p.Spec.ServiceAccountName }),
			"spec.hostNetwork":         typed.Field(func(p *corev1.Pod) string { return fmt.Sprint(p.Spec.HostNetwork) }),
			"status.phase":             typed.Field(func(p *corev1.Pod) string { return string(p.Status.Phase) }),
			"status.podIP":             typed.Field(func(p *corev1.Pod) string { return p.Status.PodIP }),
			"status.podIPs":            typed.Field(podIPs),
			"status.nominatedNodeName": typed.Field(func(p *corev1.Pod) string { return p.Status.NominatedNodeName }),
		},
		IndexFields: []string{"spec.nodeName"},
		Columns:     podColumns(),
		Row:         typed.Row(func(p *corev1.Pod, now time.Time) []any { return podRow(p, now) }),
	}
}

func nextPodGeneration(p, old *corev1.Pod) int64 {
	if podspec.Same(&p.Spec, &old.Spec) {
		return old.Generation
	}
	return old.Generation + 1
}

func podIPs(p *corev1.Pod) string {
	ips := make([]string, len(p.Status.PodIPs))
	for i, ip := range p.Status.PodIPs {
		ips[i] = ip.IP
	}
	return strings.Join(ips, ",")
}

func defaultPod(p *corev1.Pod) {
	podspec.DefaultPod(p)
	// podIP is the first of podIPs; either can be given, and podIP decides.
	s := &p.Status
	switch {
	case s.PodIP != "" && (len(s.PodIPs) == 0 || s.PodIPs[0].IP != s.PodIP):
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	case s.PodIP == "" && len(s.PodIPs) > 0:
		s.PodIP = s.PodIPs[0].IP
	}
}

// mergeLabelKeys adds to label selectors what matchLabelKeys and mismatchLabelKeys say of the pod's own labels.
func mergeLabelKeys(p *corev1.Pod) {
	add := func(selector *metav1.LabelSelector, keys []string, op metav1.LabelSelectorOperator) {
		if selector == nil {
			return
		}
		for _, key := range keys {
			if value, has := p.Labels[key]; has {
				selector.MatchExpressions = append(selector.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: []string{value}})
			}
		}
	}
	terms := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range required {
			add(required[i].LabelSelector, required[i].MatchLabelKeys, metav1.LabelSelectorOpIn)
			add(required[i].LabelSelector, required[i].MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
		}
		for i := range preferred {
			term := &preferred[i].PodAffinityTerm
			add(term.LabelSelector, term.MatchLabelKeys, metav1.LabelSelectorOpIn)
			add(term.LabelSelector, term.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
		}
	}
	if a := p.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			terms(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		}
		if a.PodAntiAffinity != nil {
			terms(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		}
	}
}

func preparePodStatus(_ context.Context, p, old *corev1.Pod) {
	p.Spec = old.Spec
	p.DeletionTimestamp = old.DeletionTimestamp
	p.DeletionGracePeriodSeconds = old.DeletionGracePeriodSeconds
	p.OwnerReferences, p.Finalizers = old.OwnerReferences, old.Finalizers
	p.Generation = old.Generation
	// The class of service is this server's to say.
	p.Status.QOSClass = old.Status.QOSClass
}

func prepareResize(_ context.Context, p, old *corev1.Pod) {
	resized, meta := p.Spec, p.ObjectMeta
	*p = *old.DeepCopy()
	p.ManagedFields, p.ResourceVersion = meta.ManagedFields, meta.ResourceVersion
	copyResources := func(to, from []corev1.Container) {
		for i := range to {
			if j := slices.IndexFunc(from, func(c corev1.Container) bool { return c.Name == to[i].Name }); j >= 0 {
				to[i].Resources, to[i].ResizePolicy = from[j].Resources, from[j].ResizePolicy
			}
		}
	}
	copyResources(p.Spec.Containers, resized.Containers)
	copyResources(p.Spec.InitContainers, resized.InitContainers)
	p.Spec.Resources = resized.Resources
	p.Generation = nextPodGeneration(p, old)
}

// gracePeriod is how long a pod is given to end: none if no node ever knew it or it has ended.
func gracePeriod(p *corev1.Pod, requested *int64) int64 {
	var period int64
	switch {
	case requested != nil:
		period = *requested
	case p.Spec.TerminationGracePeriodSeconds != nil:
		period = *p.Spec.TerminationGracePeriodSeconds
	}
	if p.Spec.NodeName == "" || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		return 0
	}
	if period < 0 {
		return 1
	}
	return period
}
