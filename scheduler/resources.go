package scheduler

import (
	"iter"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Resources are amounts by resource: of those that nearly all pods ask for by field, of the others by name. The zero value is nothing. Copies made by
// assignment share the amounts by name: what is to be changed must be a Clone.
type Resources struct {
	// MilliCPU is in thousandths of a core.
	MilliCPU int64
	// Memory and EphemeralStorage are in bytes.
	Memory, EphemeralStorage int64
	// Pods is how many there may be on a node.
	Pods int64

	others []amount // by name
}

// amount is how much there is of a resource that has no field.
type amount struct {
	name corev1.ResourceName
	n    int64
}

// Kubernetes counts a container without requests as this much when it scores nodes (not when it filters them).
const (
	DefaultMilliCPU = 100
	DefaultMemory   = 200 << 20
)

// ResourcesOf converts the API's quantities: milli-units of cpu, units (bytes, pieces) of everything else, rounded up.
func ResourcesOf(list corev1.ResourceList) Resources {
	var r Resources
	for name, q := range list {
		if name == corev1.ResourceCPU {
			r.MilliCPU = q.MilliValue()
		} else if v := q.Value(); v != 0 {
			*r.at(name) = v
		}
	}
	return r
}

// Of is the amount of a resource by its name; 0 if there is none.
func (r *Resources) Of(name corev1.ResourceName) int64 {
	switch name {
	case corev1.ResourceCPU:
		return r.MilliCPU
	case corev1.ResourceMemory:
		return r.Memory
	case corev1.ResourceEphemeralStorage:
		return r.EphemeralStorage
	case corev1.ResourcePods:
		return r.Pods
	}
	for i := range r.others {
		if r.others[i].name == name {
			return r.others[i].n
		}
	}
	return 0
}

// All are the amounts other than 0, by the order of their names.
func (r *Resources) All() iter.Seq2[corev1.ResourceName, int64] {
	return func(yield func(corev1.ResourceName, int64) bool) {
		rest := r.others
		for _, field := range [...]amount{
			{corev1.ResourceCPU, r.MilliCPU},
			{corev1.ResourceEphemeralStorage, r.EphemeralStorage},
			{corev1.ResourceMemory, r.Memory},
			{corev1.ResourcePods, r.Pods},
		} {
			for ; len(rest) > 0 && rest[0].name < field.name; rest = rest[1:] {
				if rest[0].n != 0 && !yield(rest[0].name, rest[0].n) {
					return
				}
			}
			if field.n != 0 && !yield(field.name, field.n) {
				return
			}
		}
		for _, a := range rest {
			if a.n != 0 && !yield(a.name, a.n) {
				return
			}
		}
	}
}

// Add adds o, sign times.
func (r *Resources) Add(o *Resources, sign int64) {
	r.MilliCPU += sign * o.MilliCPU
	r.Memory += sign * o.Memory
	r.EphemeralStorage += sign * o.EphemeralStorage
	r.Pods += sign * o.Pods
	for i := range o.others {
		*r.at(o.others[i].name) += sign * o.others[i].n
	}
}

// max raises each amount to that of o, if it is greater.
func (r *Resources) max(o *Resources) {
	r.MilliCPU, r.Memory = max(r.MilliCPU, o.MilliCPU), max(r.Memory, o.Memory)
	r.EphemeralStorage, r.Pods = max(r.EphemeralStorage, o.EphemeralStorage), max(r.Pods, o.Pods)
	for i := range o.others {
		n := r.at(o.others[i].name)
		*n = max(*n, o.others[i].n)
	}
}

// FitIn reports whether there is as much in total, less what is used, of every resource of which r is not 0.
func (r *Resources) FitIn(total, used *Resources) bool {
	if !fits(r.MilliCPU, total.MilliCPU, used.MilliCPU) || !fits(r.Memory, total.Memory, used.Memory) ||
		!fits(r.EphemeralStorage, total.EphemeralStorage, used.EphemeralStorage) || !fits(r.Pods, total.Pods, used.Pods) {
		return false
	}
	for i := range r.others {
		if o := &r.others[i]; !fits(o.n, total.Of(o.name), used.Of(o.name)) {
			return false
		}
	}
	return true
}

func fits(want, total, used int64) bool { return want == 0 || want <= total-used }

// Equal reports whether all amounts are equal.
func (r *Resources) Equal(o *Resources) bool {
	if r.MilliCPU != o.MilliCPU || r.Memory != o.Memory || r.EphemeralStorage != o.EphemeralStorage || r.Pods != o.Pods {
		return false
	}
	within := func(a, b *Resources) bool {
		return !slices.ContainsFunc(a.others, func(x amount) bool { return b.Of(x.name) != x.n })
	}
	return within(r, o) && within(o, r)
}

// Clone returns a copy that shares nothing.
func (r *Resources) Clone() Resources {
	c := *r
	c.others = slices.Clone(r.others)
	return c
}

// at is where the amount of a resource is.
func (r *Resources) at(name corev1.ResourceName) *int64 {
	switch name {
	case corev1.ResourceCPU:
		return &r.MilliCPU
	case corev1.ResourceMemory:
		return &r.Memory
	case corev1.ResourceEphemeralStorage:
		return &r.EphemeralStorage
	case corev1.ResourcePods:
		return &r.Pods
	}
	i, ok := slices.BinarySearchFunc(r.others, name, func(a amount, name corev1.ResourceName) int {
		return strings.Compare(string(a.name), string(name))
	})
	if !ok {
		r.others = slices.Insert(r.others, i, amount{name: name})
	}
	return &r.others[i].n
}

var nonMissing = corev1.ResourceList{
	corev1.ResourceCPU:    *resource.NewMilliQuantity(DefaultMilliCPU, resource.DecimalSI),
	corev1.ResourceMemory: *resource.NewQuantity(DefaultMemory, resource.BinarySI),
}

// requestsOf counts init, sidecar and pod-level requests and the overhead, and what a running pod's containers were
// really given while a resize is under way. alone is nil, or what the pod's own place is scored with where that is something else.
func requestsOf(pod *corev1.Pod) (requests, scored Resources, alone *Resources) {
	if requests, scored, ok := plainRequests(pod); ok {
		return requests, scored, nil
	}
	opts := resourcehelper.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true}
	list := resourcehelper.PodRequests(pod, opts)
	requests = ResourcesOf(list)
	opts.NonMissingContainerRequests = nonMissing
	if resourcehelper.IsPodLevelRequestsSet(pod) {
		// What the pod as a whole asks for holds for its containers; of the rest each counts as a little.
		opts.NonMissingContainerRequests = maps.Clone(nonMissing)
		maps.DeleteFunc(opts.NonMissingContainerRequests, func(name corev1.ResourceName, _ resource.Quantity) bool {
			_, asked := list[name]
			return asked
		})
		// kube-scheduler scores the pod's own place without its pod-level requests.
		plain := resourcehelper.PodResourcesOptions{SkipPodLevelResources: true}
		a := ResourcesOf(resourcehelper.PodRequests(pod, plain))
		plain.NonMissingContainerRequests = nonMissing
		all := resourcehelper.PodRequests(pod, plain)
		a.MilliCPU, a.Memory = all.Cpu().MilliValue(), all.Memory().Value()
		alone = &a
	}
	all := resourcehelper.PodRequests(pod, opts)
	return requests, Resources{MilliCPU: all.Cpu().MilliValue(), Memory: all.Memory().Value()}, alone
}

// plainRequests is requestsOf for a pod of which its containers and its overhead say all, in whole numbers: it is their sum.
func plainRequests(pod *corev1.Pod) (requests, scored Resources, ok bool) {
	spec, status := &pod.Spec, &pod.Status
	if len(spec.InitContainers) > 0 || spec.Resources != nil || status.Resources != nil || status.AllocatedResources != nil ||
		len(status.ContainerStatuses)+len(status.InitContainerStatuses) > 0 || resourcehelper.IsPodResizeInfeasible(pod) {
		return requests, scored, false
	}
	ok = requests.plus(spec.Overhead)
	for i := range spec.Containers {
		list := spec.Containers[i].Resources.Requests
		ok = requests.plus(list) && ok
		if _, asks := list[corev1.ResourceCPU]; !asks {
			scored.MilliCPU += DefaultMilliCPU
		}
		if _, asks := list[corev1.ResourceMemory]; !asks {
			scored.Memory += DefaultMemory
		}
	}
	scored.MilliCPU += requests.MilliCPU
	scored.Memory += requests.Memory
	return requests, scored, ok
}

// plus adds quantities and reports whether they are whole numbers, so that nothing was rounded.
func (r *Resources) plus(list corev1.ResourceList) (whole bool) {
	whole = true
	for name, q := range list {
		if name == corev1.ResourceCPU {
			n := q.MilliValue()
			whole = whole && q.Cmp(*resource.NewMilliQuantity(n, resource.DecimalSI)) == 0
			r.MilliCPU += n
			continue
		}
		n, exact := q.AsInt64()
		if whole = whole && exact; n != 0 {
			*r.at(name) += n
		}
	}
	return whole
}
