// Package job runs Jobs to their end.
//
//	ctl, err := job.New(c, cache, job.Options{})
//	...
//	err = ctl.Run(ctx)
//
// Pods are counted exactly once, by way of finalizer
// batch.kubernetes.io/job-tracking and status.uncountedTerminatedPods. Parallel
// and Indexed jobs, suspension, deadlines, back-off for the job and for each
// index, pod failure policies, success policies and pod replacement policies
// work as in kube-controller-manager, conditions, reasons and events included.
// Jobs with another spec.managedBy are left alone.
package job
