package limitranger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/admission"
	resourcehelper "k8s.io/component-helpers/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// Name is the name of the plugin.
	Name = "LimitRanger"
	// Annotation tells what the plugin set in a pod.
	Annotation = "kubernetes.io/limit-ranger"
)

// Options of the plugin.
type Options struct{}

// Plugin implements admission.MutationInterface and admission.ValidationInterface.
type Plugin struct {
	*admission.Handler
	ranges client.Reader
}

var (
	_ admission.MutationInterface   = (*Plugin)(nil)
	_ admission.ValidationInterface = (*Plugin)(nil)
)

// New returns the plugin, which reads LimitRanges from reader.
func New(reader client.Reader, _ Options) (*Plugin, error) {
	if reader == nil {
		return nil, errors.New("limitranger: reader: expected one, got nil")
	}
	return &Plugin{Handler: admission.NewHandler(admission.Create, admission.Update), ranges: reader}, nil
}

// concerns tells the requests that limits apply to: containers of a pod change their resources by resize only.
func concerns(a admission.Attributes) bool {
	if a.GetResource().Group != "" || a.GetNamespace() == "" {
		return false
	}
	switch a.GetResource().Resource {
	case "pods":
		if a.GetOperation() == admission.Update {
			return a.GetSubresource() == "resize"
		}
		return a.GetSubresource() == ""
	case "persistentvolumeclaims":
		return a.GetSubresource() == ""
	default:
		return false
	}
}

// leaving tells updates of an object that is being deleted: they must go through for its finalizers to be removed.
func leaving(a admission.Attributes) bool {
	if a.GetOperation() != admission.Update {
		return false
	}
	accessor, err := meta.Accessor(a.GetObject())
	return err == nil && accessor.GetDeletionTimestamp() != nil
}

func (p *Plugin) limits(ctx context.Context, a admission.Attributes) ([]corev1.LimitRange, error) {
	var list corev1.LimitRangeList
	if err := p.ranges.List(ctx, &list, client.InNamespace(a.GetNamespace())); err != nil {
		return nil, admission.NewForbidden(a, fmt.Errorf("unable to %s %v at this time because there was an error enforcing limit ranges: %w", a.GetOperation(), a.GetResource(), err))
	}
	slices.SortFunc(list.Items, func(x, y corev1.LimitRange) int { return strings.Compare(x.Name, y.Name) })
	return list.Items, nil
}

// Admit implements admission.MutationInterface.
func (p *Plugin) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok || !concerns(a) || leaving(a) {
		return nil
	}
	ranges, err := p.limits(ctx, a)
	if err != nil {
		return err
	}
	for i := range ranges {
		applyDefaults(pod, &ranges[i])
	}
	return nil
}

// Validate implements admission.ValidationInterface.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a) || leaving(a) {
		return nil
	}
	ranges, err := p.limits(ctx, a)
	if err != nil {
		return err
	}
	for i := range ranges {
		var errs []error
		switch obj := a.GetObject().(type) {
		case *corev1.Pod:
			errs = checkPod(obj, &ranges[i])
		case *corev1.PersistentVolumeClaim:
			errs = checkClaim(obj, &ranges[i])
		}
		if err := utilerrors.NewAggregate(errs); err != nil {
			return admission.NewForbidden(a, err)
		}
	}
	return nil
}

func applyDefaults(pod *corev1.Pod, limits *corev1.LimitRange) {
	requests, maximum := corev1.ResourceList{}, corev1.ResourceList{}
	for i := range limits.Spec.Limits {
		item := &limits.Spec.Limits[i]
		if item.Type != corev1.LimitTypeContainer {
			continue
		}
		for k, v := range item.DefaultRequest {
			requests[k] = v
		}
		for k, v := range item.Default {
			maximum[k] = v
		}
	}
	var notes []string
	fill := func(kind string, containers []corev1.Container) {
		for i := range containers {
			c := &containers[i]
			if set := fillList(&c.Resources.Requests, requests); len(set) > 0 {
				notes = append(notes, strings.Join(set, ", ")+" request for "+kind+" "+c.Name)
			}
			if set := fillList(&c.Resources.Limits, maximum); len(set) > 0 {
				notes = append(notes, strings.Join(set, ", ")+" limit for "+kind+" "+c.Name)
			}
		}
	}
	fill("container", pod.Spec.Containers)
	fill("init container", pod.Spec.InitContainers)
	if len(notes) > 0 {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations[Annotation] = "LimitRanger plugin set: " + strings.Join(notes, "; ")
	}
}

func fillList(list *corev1.ResourceList, defaults corev1.ResourceList) []string {
	var set []string
	for k, v := range defaults {
		if _, ok := (*list)[k]; ok {
			continue
		}
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[k] = v.DeepCopy()
		set = append(set, string(k))
	}
	slices.Sort(set)
	return set
}

func checkClaim(claim *corev1.PersistentVolumeClaim, limits *corev1.LimitRange) []error {
	var errs []error
	for i := range limits.Spec.Limits {
		item := &limits.Spec.Limits[i]
		if item.Type != corev1.LimitTypePersistentVolumeClaim {
			continue
		}
		for _, k := range sorted(item.Min) {
			errs = appendError(errs, minimum(string(item.Type), k, item.Min[k], claim.Spec.Resources.Requests, nil))
		}
		for _, k := range sorted(item.Max) {
			errs = appendError(errs, maximumRequest(string(item.Type), k, item.Max[k], claim.Spec.Resources.Requests))
		}
	}
	return errs
}

func checkPod(pod *corev1.Pod, limits *corev1.LimitRange) []error {
	var errs []error
	for i := range limits.Spec.Limits {
		item := &limits.Spec.Limits[i]
		switch item.Type {
		case corev1.LimitTypeContainer:
			for k := range pod.Spec.Containers {
				errs = append(errs, checkItem(item, pod.Spec.Containers[k].Resources.Requests, pod.Spec.Containers[k].Resources.Limits)...)
			}
			for k := range pod.Spec.InitContainers {
				errs = append(errs, checkItem(item, pod.Spec.InitContainers[k].Resources.Requests, pod.Spec.InitContainers[k].Resources.Limits)...)
			}
		case corev1.LimitTypePod:
			opts := resourcehelper.PodResourcesOptions{ExcludeOverhead: true}
			errs = append(errs, checkItem(item, resourcehelper.PodRequests(pod, opts), resourcehelper.PodLimits(pod, opts))...)
		}
	}
	return errs
}

func checkItem(item *corev1.LimitRangeItem, requests, limits corev1.ResourceList) []error {
	var errs []error
	kind := string(item.Type)
	for _, k := range sorted(item.Min) {
		errs = appendError(errs, minimum(kind, k, item.Min[k], requests, limits))
	}
	for _, k := range sorted(item.Max) {
		errs = appendError(errs, maximum(kind, k, item.Max[k], requests, limits))
	}
	for _, k := range sorted(item.MaxLimitRequestRatio) {
		errs = appendError(errs, ratio(kind, k, item.MaxLimitRequestRatio[k], requests, limits))
	}
	return errs
}

func appendError(errs []error, err error) []error {
	if err == nil {
		return errs
	}
	return append(errs, err)
}

func sorted(list corev1.ResourceList) []corev1.ResourceName {
	names := make([]corev1.ResourceName, 0, len(list))
	for k := range list {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}
