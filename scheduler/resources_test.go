package scheduler_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/keelson/keelson/scheduler"
)

func ExampleResources() {
	r := scheduler.ResourcesOf(corev1.ResourceList{"cpu": resource.MustParse("1500m"), "memory": resource.MustParse("1Ki"), "example.com/gpu": resource.MustParse("2")})
	fmt.Println(r.MilliCPU, r.Of("example.com/gpu"), r.Of("example.com/fpga"))
	for name, n := range r.All() {
		fmt.Println(name, n)
	}
	// Output:
	// 1500 2 0
	// cpu 1500
	// example.com/gpu 2
	// memory 1024
}

// TestResourcesAreMaps compares Resources with maps under random operations.
func TestResourcesAreMaps(t *testing.T) {
	type amounts map[corev1.ResourceName]int64
	names := []corev1.ResourceName{"a.example.com/x", "cpu", "ephemeral-storage", "example.com/gpu", "hugepages-2Mi", "memory", "pods", "z.example.com/y"}
	r := rand.New(rand.NewPCG(1, 1))
	draw := func() (scheduler.Resources, amounts) {
		list, plain := corev1.ResourceList{}, amounts{}
		for range r.IntN(4) {
			name, n := names[r.IntN(len(names))], r.Int64N(4)
			list[name], plain[name] = *resource.NewMilliQuantity(1000*n, resource.DecimalSI), n
			if name == corev1.ResourceCPU {
				plain[name] *= 1000
			}
		}
		return scheduler.ResourcesOf(list), plain
	}
	var sum scheduler.Resources
	plain := amounts{}
	for step := range 2000 {
		more, also := draw()
		sign := int64(1 - 2*r.IntN(2))
		before, was := sum.Clone(), maps.Clone(plain)
		sum.Add(&more, sign)
		for name, n := range also {
			plain[name] += sign * n
		}
		for _, name := range names {
			if sum.Of(name) != plain[name] || before.Of(name) != was[name] {
				t.Fatalf("step %d: %s is %d, was %d: want %d, and %d before", step, name, sum.Of(name), before.Of(name), plain[name], was[name])
			}
		}
		maps.DeleteFunc(plain, func(_ corev1.ResourceName, n int64) bool { return n == 0 })
		maps.DeleteFunc(was, func(_ corev1.ResourceName, n int64) bool { return n == 0 })
		var order []corev1.ResourceName
		for name, n := range sum.All() {
			if order = append(order, name); n != plain[name] {
				t.Fatalf("step %d: All says %d of %s, want %d", step, n, name, plain[name])
			}
		}
		if want := slices.Sorted(maps.Keys(plain)); !slices.Equal(order, want) {
			t.Fatalf("step %d: All has %v, want %v", step, order, want)
		}
		if got, want := sum.Equal(&before), maps.Equal(plain, was); got != want {
			t.Fatalf("step %d: Equal of %v and %v is %v", step, plain, was, got)
		}
		total, all := draw()
		fits := true
		for name, n := range also {
			fits = fits && (n == 0 || n <= all[name]-plain[name])
		}
		if got := more.FitIn(&total, &sum); got != fits {
			t.Fatalf("step %d: FitIn of %v in %v of which %v is used is %v", step, also, all, plain, got)
		}
	}
}

// TestRequestsAreThoseOfKubernetes compares what pods of all shapes ask for with Kubernetes' own sum.
func TestRequestsAreThoseOfKubernetes(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 1))
	list := func() corev1.ResourceList {
		l := corev1.ResourceList{}
		for range r.IntN(4) {
			l[pick(r, corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, "example.com/gpu")] = resource.MustParse(pick(r, "0", "1", "2500m", "3Gi", "700u", "1e3"))
		}
		return l
	}
	containers := func(n int) (cs []corev1.Container) {
		for i := range n {
			cs = append(cs, corev1.Container{Name: fmt.Sprint("c", i), Resources: corev1.ResourceRequirements{Requests: list()}})
		}
		return cs
	}
	for step := range 3000 {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: containers(1 + r.IntN(3))}}
		if r.IntN(3) == 0 {
			pod.Spec.Overhead = list()
		}
		switch r.IntN(8) {
		case 0:
			pod.Spec.InitContainers = containers(1)
		case 1:
			pod.Spec.Resources = &corev1.ResourceRequirements{Requests: list()}
		case 2:
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c0", AllocatedResources: list(), Resources: &corev1.ResourceRequirements{Requests: list()}}}
		case 3:
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodResizePending, Reason: corev1.PodReasonInfeasible}}
		case 4:
			pod.Status.AllocatedResources, pod.Status.Resources = list(), &corev1.ResourceRequirements{Requests: list()}
		}
		opts := resourcehelper.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true}
		list := resourcehelper.PodRequests(pod, opts)
		requests := scheduler.ResourcesOf(list)
		opts.NonMissingContainerRequests = corev1.ResourceList{
			corev1.ResourceCPU: *resource.NewMilliQuantity(scheduler.DefaultMilliCPU, resource.DecimalSI), corev1.ResourceMemory: *resource.NewQuantity(scheduler.DefaultMemory, resource.BinarySI),
		}
		alone := opts // what its own place is scored with
		alone.NonMissingContainerRequests = maps.Clone(opts.NonMissingContainerRequests)
		if resourcehelper.IsPodLevelRequestsSet(pod) {
			alone.SkipPodLevelResources, alone.UseStatusResources = true, false
			for name := range opts.NonMissingContainerRequests {
				if _, asked := list[name]; asked {
					delete(opts.NonMissingContainerRequests, name)
				}
			}
		}
		own := scheduler.ResourcesOf(resourcehelper.PodRequests(pod, alone))
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, "example.com/gpu"} {
			if got := scheduler.NewPod(pod).ScoreRequest(name); got != own.Of(name) {
				t.Fatalf("step %d: %+v is scored with %d of %s, want %d", step, pod, got, name, own.Of(name))
			}
		}
		all := scheduler.ResourcesOf(resourcehelper.PodRequests(pod, opts))
		scored := scheduler.Resources{MilliCPU: all.MilliCPU, Memory: all.Memory}
		if got := scheduler.NewPod(pod); !got.Requests.Equal(&requests) || !got.Scored.Equal(&scored) {
			t.Fatalf("step %d: %+v asks for %v, and %v when scored, want %v and %v", step, pod, got.Requests, got.Scored, requests, scored)
		}
	}
}
