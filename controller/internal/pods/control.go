package pods

import (
	"context"
	"errors"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Control creates and deletes pods, and tells so in events of their owner.
type Control struct {
	Client   client.Client
	Recorder record.EventRecorder
}

// Create creates a pod. It fills pod with what the server made of it.
func (c Control) Create(ctx context.Context, pod *corev1.Pod, owner client.Object) error {
	if err := c.Client.Create(ctx, pod); err != nil {
		// In a namespace that is going away nothing else can be expected.
		if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			c.Recorder.Eventf(owner, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		}
		return err
	}
	c.Recorder.Eventf(owner, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", pod.Name)
	return nil
}

// Delete deletes a pod. One that is gone is a NotFound error without an event.
func (c Control) Delete(ctx context.Context, pod *corev1.Pod, owner client.Object) error {
	err := c.Client.Delete(ctx, pod, client.Preconditions{UID: &pod.UID})
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return err
	case err != nil:
		c.Recorder.Eventf(owner, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
		return err
	}
	c.Recorder.Eventf(owner, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", pod.Name)
	return nil
}

// IsGone says whether an error of Delete means that the pod was gone before.
func IsGone(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsConflict(err) }

// SlowStart calls f for 0 ≤ i < n in batches of first, then twice as many at a
// time, so that what always fails is not tried n times. It returns after the
// first batch with a failure, with the number of successes and the failures.
func SlowStart(n, first int, f func(i int) error) (int, error) {
	done := 0
	for batch := min(n, first); batch > 0; batch = min(2*batch, n-done) {
		errs := Parallel(batch, func(i int) error { return f(done + i) })
		failed := 0
		for _, err := range errs {
			if err != nil {
				failed++
			}
		}
		if failed > 0 {
			return done + batch - failed, errors.Join(distinct(errs)...)
		}
		done += batch
	}
	return done, nil
}

// parallel bounds how many requests of one batch are made at a time.
const parallel = 64

// Parallel calls f for 0 ≤ i < n, many at a time, and returns all results.
func Parallel(n int, f func(i int) error) []error {
	errs := make([]error, n)
	if n == 1 {
		errs[0] = f(0)
		return errs
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = f(i)
		})
	}
	wg.Wait()
	return errs
}

// distinct keeps one error of each text: thousands of the same say no more.
func distinct(errs []error) []error {
	seen := map[string]bool{}
	var out []error
	for _, err := range errs {
		if err != nil && !seen[err.Error()] {
			seen[err.Error()] = true
			out = append(out, err)
		}
	}
	return out
}
