package job_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/job"
)

func ptr[T any](v T) *T { return &v }

func newJob(edit func(*batchv1.JobSpec)) *batchv1.Job {
	l := map[string]string{"job": "j"}
	j := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "j"},
		Spec: batchv1.JobSpec{
			Parallelism: ptr[int32](1), Completions: ptr[int32](1), BackoffLimit: ptr[int32](6),
			Selector: controllertest.Labels(l), Template: controllertest.Template("work", l),
		},
	}
	j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	if edit != nil {
		edit(&j.Spec)
	}
	return j
}

func start(e *controllertest.Env) {
	ctl, err := job.New(e.Client, e.Cache, job.Options{})
	e.Check(err)
	e.Start(ctl.Run)
	e.Settle()
}

func get(e *controllertest.Env) *batchv1.Job {
	j, ok := controllertest.Get[*batchv1.Job](e.Cluster, "default", "j")
	if !ok {
		e.Fatal("no job")
	}
	return j
}

func ended(code int32) *corev1.PodStatus {
	s := &corev1.PodStatus{Phase: corev1.PodSucceeded, ContainerStatuses: []corev1.ContainerStatus{{
		Name: "main", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.Now()}},
	}}}
	if code != 0 {
		s.Phase = corev1.PodFailed
	}
	return s
}

// worker makes each new pod end at once, by what f returns; below 0 it runs on.
func worker(e *controllertest.Env, f func(p *corev1.Pod) int32) {
	e.Pods(func(p *corev1.Pod) *corev1.PodStatus {
		if p.Status.Phase != corev1.PodPending {
			return nil
		}
		code := f(p)
		if code < 0 {
			return controllertest.ReadyStatus("10.0.0.1")
		}
		return ended(code)
	})
}

func index(p *corev1.Pod) int {
	n, err := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil {
		return -1
	}
	return n
}

func describe(s batchv1.JobStatus) string {
	out := fmt.Sprintf("active=%d succeeded=%d failed=%d", s.Active, s.Succeeded, s.Failed)
	if s.CompletedIndexes != "" {
		out += " done=" + s.CompletedIndexes
	}
	if s.FailedIndexes != nil {
		out += " broken=" + *s.FailedIndexes
	}
	for _, c := range s.Conditions {
		if c.Status == corev1.ConditionTrue {
			out += fmt.Sprintf(" %s(%s: %s)", c.Type, c.Reason, c.Message)
		}
	}
	return out
}

const completed = " SuccessCriteriaMet(CompletionsReached: Reached expected number of succeeded pods) Complete(CompletionsReached: Reached expected number of succeeded pods)"

func failure(reason, message string) string {
	return fmt.Sprintf(" FailureTarget(%s: %s) Failed(%s: %s)", reason, message, reason, message)
}

// TestEnds runs jobs to their ends.
func TestEnds(t *testing.T) {
	indexed := func(s *batchv1.JobSpec, n int32) {
		s.CompletionMode = ptr(batchv1.IndexedCompletion)
		s.Completions, s.Parallelism = &n, &n
	}
	for _, c := range []struct {
		name string
		edit func(*batchv1.JobSpec)
		code func(*corev1.Pod) int32
		want string
	}{
		{"one", nil, func(*corev1.Pod) int32 { return 0 }, "active=0 succeeded=1 failed=0" + completed},
		{"many", func(s *batchv1.JobSpec) { s.Completions, s.Parallelism = ptr[int32](50), ptr[int32](7) }, func(*corev1.Pod) int32 { return 0 }, "active=0 succeeded=50 failed=0" + completed},
		{"indexed", func(s *batchv1.JobSpec) { indexed(s, 5) }, func(*corev1.Pod) int32 { return 0 }, "active=0 succeeded=5 failed=0 done=0-4" + completed},
		{"back-off limit", func(s *batchv1.JobSpec) { s.BackoffLimit = ptr[int32](2) }, func(*corev1.Pod) int32 { return 1 }, "active=0 succeeded=0 failed=3" + failure("BackoffLimitExceeded", "Job has reached the specified backoff limit")},
		{"back-off limit with others running", func(s *batchv1.JobSpec) {
			indexed(s, 3)
			s.BackoffLimit = ptr[int32](0)
		}, func(p *corev1.Pod) int32 {
			if index(p) == 1 {
				return 1
			}
			return -1
		}, "active=0 succeeded=0 failed=3" + failure("BackoffLimitExceeded", "Job has reached the specified backoff limit")},
		{"deadline", func(s *batchv1.JobSpec) { s.ActiveDeadlineSeconds = ptr[int64](60) }, func(*corev1.Pod) int32 { return -1 }, "active=0 succeeded=0 failed=1" + failure("DeadlineExceeded", "Job was active longer than specified deadline")},
		{"per index", func(s *batchv1.JobSpec) {
			indexed(s, 4)
			s.BackoffLimit, s.BackoffLimitPerIndex = ptr[int32](1<<31-1), ptr[int32](1)
		}, func(p *corev1.Pod) int32 { return int32(index(p) % 2) }, "active=0 succeeded=2 failed=4 done=0,2 broken=1,3" + failure("FailedIndexes", "Job has failed indexes")},
		{"max failed indexes", func(s *batchv1.JobSpec) {
			indexed(s, 4)
			s.BackoffLimit, s.BackoffLimitPerIndex, s.MaxFailedIndexes = ptr[int32](1<<31-1), ptr[int32](0), ptr[int32](0)
		}, func(p *corev1.Pod) int32 {
			if index(p) == 3 {
				return 1
			}
			return -1
		}, "active=0 succeeded=0 failed=4 broken=3" + failure("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes")},
		{"failure policy fails", func(s *batchv1.JobSpec) {
			s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
				Action:      batchv1.PodFailurePolicyActionFailJob,
				OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{42}},
			}}}
		}, func(*corev1.Pod) int32 { return 42 }, "active=0 succeeded=0 failed=1 FailureTarget(PodFailurePolicy: Container main for pod default/PODNAME failed with exit code 42 matching FailJob rule at index 0)" +
			" Failed(PodFailurePolicy: Container main for pod default/PODNAME failed with exit code 42 matching FailJob rule at index 0)"},
		{"success policy", func(s *batchv1.JobSpec) {
			indexed(s, 5)
			s.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: ptr("0,4"), SucceededCount: ptr[int32](1)}}}
		}, func(p *corev1.Pod) int32 {
			if index(p) == 4 {
				return 0
			}
			return -1
		}, "active=0 succeeded=1 failed=0 done=4 SuccessCriteriaMet(SuccessPolicy: Matched rules at index 0) Complete(SuccessPolicy: Matched rules at index 0)"},
	} {
		controllertest.Run(t, func(e *controllertest.Env) {
			worker(e, c.code)
			start(e)
			e.Create(newJob(c.edit))
			e.Advance(2 * time.Hour)
			j := get(e)
			want := c.want
			for _, ev := range e.Events() {
				if name, ok := strings.CutPrefix(ev, "SuccessfulCreate: Created pod: "); ok {
					want = strings.ReplaceAll(want, "PODNAME", name)
				}
			}
			if got := describe(j.Status); got != want {
				t.Errorf("%s:\n got %s\nwant %s", c.name, got, want)
			}
			if u := j.Status.UncountedTerminatedPods; u == nil || len(u.Succeeded)+len(u.Failed) > 0 {
				t.Errorf("%s: uncounted %+v", c.name, u)
			}
			if j.Status.StartTime == nil || (j.Status.CompletionTime != nil) != strings.Contains(want, "Complete(") {
				t.Errorf("%s: times %v, %v", c.name, j.Status.StartTime, j.Status.CompletionTime)
			}
			for _, p := range controllertest.All[*corev1.Pod](e.Cluster) {
				if len(p.Finalizers) > 0 {
					t.Errorf("%s: pod %s keeps %v", c.name, p.Name, p.Finalizers)
				}
			}
			e.Cluster.Calls()
			e.Advance(time.Hour)
			if calls := e.Cluster.Calls(); len(calls) > 0 {
				t.Errorf("%s: an idle controller made %d requests, such as %+v", c.name, len(calls), calls[0])
			}
		})
	}
}

func TestIndexedPods(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e)
		e.Create(newJob(func(s *batchv1.JobSpec) {
			s.CompletionMode, s.Completions, s.Parallelism = ptr(batchv1.IndexedCompletion), ptr[int32](3), ptr[int32](2)
		}))
		e.Settle()
		ps := controllertest.All[*corev1.Pod](e.Cluster)
		if len(ps) != 2 {
			t.Fatalf("%d pods", len(ps))
		}
		for i, p := range ps {
			env := p.Spec.Containers[0].Env
			if index(p) != i || p.Spec.Hostname != fmt.Sprint("j-", i) || p.GenerateName != fmt.Sprintf("j-%d-", i) || p.Labels[batchv1.JobCompletionIndexAnnotation] != fmt.Sprint(i) ||
				len(env) != 1 || env[0].Name != "JOB_COMPLETION_INDEX" || p.Finalizers[0] != batchv1.JobTrackingFinalizer {
				t.Errorf("pod %d: %+v %+v", i, p.ObjectMeta, env)
			}
		}
	})
}

func TestBackoff(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		var at []time.Duration
		began := time.Now()
		worker(e, func(*corev1.Pod) int32 {
			at = append(at, time.Since(began).Round(time.Second))
			return 1
		})
		start(e)
		began = time.Now()
		e.Create(newJob(func(s *batchv1.JobSpec) { s.BackoffLimit = ptr[int32](4) }))
		e.Advance(time.Hour)
		if got := fmt.Sprint(at); got != "[0s 10s 30s 1m10s 2m30s]" {
			t.Errorf("pods started after %s", got)
		}
	})
}

func TestIgnoredFailures(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		n := 0
		worker(e, func(*corev1.Pod) int32 {
			if n++; n <= 5 {
				return 7
			}
			return 0
		})
		start(e)
		e.Create(newJob(func(s *batchv1.JobSpec) {
			s.BackoffLimit = ptr[int32](0)
			s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
				Action:      batchv1.PodFailurePolicyActionIgnore,
				OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{7}},
			}}}
		}))
		e.Advance(5 * time.Hour)
		if got := describe(get(e).Status); got != "active=0 succeeded=1 failed=0"+completed {
			t.Error(got)
		}
	})
}

func TestSuspend(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		worker(e, func(*corev1.Pod) int32 { return -1 })
		start(e)
		e.Create(newJob(func(s *batchv1.JobSpec) {
			s.Suspend, s.Parallelism, s.Completions = ptr(true), ptr[int32](3), ptr[int32](3)
		}))
		e.Settle()
		if j := get(e); describe(j.Status) != "active=0 succeeded=0 failed=0 Suspended(JobSuspended: Job suspended)" || j.Status.StartTime != nil {
			t.Error(describe(j.Status), j.Status.StartTime)
		}
		suspend := func(v bool) {
			controllertest.Edit(e.Cluster, "default", "j", func(j *batchv1.Job) { j.Spec.Suspend = &v })
			e.Settle()
		}
		suspend(false)
		if j := get(e); describe(j.Status) != "active=3 succeeded=0 failed=0" || j.Status.StartTime == nil {
			t.Error(describe(j.Status))
		}
		suspend(true)
		if got := describe(get(e).Status); got != "active=0 succeeded=0 failed=0 Suspended(JobSuspended: Job suspended)" {
			t.Error(got)
		}
		if n := len(controllertest.All[*corev1.Pod](e.Cluster)); n != 0 {
			t.Errorf("%d pods", n)
		}
		if ev := strings.Join(e.Events(), "\n"); strings.Count(ev, "Suspended: Job suspended") != 1 || !strings.Contains(ev, "Resumed: Job resumed") {
			// Two Suspended events are one event with a count.
			t.Error(ev)
		}
	})
}

func TestWorkQueue(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e)
		e.Create(newJob(func(s *batchv1.JobSpec) { s.Completions, s.Parallelism = nil, ptr[int32](3) }))
		e.Settle()
		ps := controllertest.All[*corev1.Pod](e.Cluster)
		controllertest.Edit(e.Cluster, "default", ps[0].Name, func(p *corev1.Pod) { p.Status = *ended(0) })
		controllertest.Edit(e.Cluster, "default", ps[1].Name, func(p *corev1.Pod) { p.Status = *ended(1) })
		e.Advance(time.Minute)
		if got := describe(get(e).Status); got != "active=1 succeeded=1 failed=1" {
			t.Error(got)
		}
		controllertest.Edit(e.Cluster, "default", ps[2].Name, func(p *corev1.Pod) { p.Status = *ended(0) })
		e.Settle()
		if got := describe(get(e).Status); got != "active=0 succeeded=2 failed=1"+completed {
			t.Error(got)
		}
	})
}

// TestOrphansAreFreed: without their job, pods must not be kept by the finalizer.
func TestOrphansAreFreed(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e)
		e.Create(newJob(nil))
		e.Settle()
		e.Check(e.Client.Delete(e.Ctx, get(e)))
		e.Settle()
		for _, p := range controllertest.All[*corev1.Pod](e.Cluster) {
			if len(p.Finalizers) > 0 {
				t.Errorf("pod keeps %v", p.Finalizers)
			}
		}
	})
}

// TestCountsOnce injects faults and deletes finished pods; the counts must be
// right nevertheless.
func TestCountsOnce(t *testing.T) {
	for seed := range uint64(8) {
		controllertest.Run(t, func(e *controllertest.Env) {
			r := controllertest.NewRand(seed)
			mode := []batchv1.CompletionMode{batchv1.NonIndexedCompletion, batchv1.IndexedCompletion}[seed%2]
			failures := 0
			worker(e, func(p *corev1.Pod) int32 {
				if r.IntN(10) == 0 {
					failures++
					return 1
				}
				return 0
			})
			start(e)
			e.Create(newJob(func(s *batchv1.JobSpec) {
				s.Completions, s.Parallelism, s.BackoffLimit, s.CompletionMode = ptr[int32](40), ptr[int32](6), ptr[int32](1000), &mode
			}))
			e.Cluster.React(func(c controllertest.Call) error {
				if c.Verb == "watch" || c.Verb == "list" || c.Kind.Kind == "Pod" && c.Subresource == "status" || r.IntN(5) > 0 {
					return nil
				}
				return errors.New("injected")
			})
			for range 200 {
				if all := controllertest.All[*corev1.Pod](e.Cluster); len(all) > 0 && r.IntN(3) == 0 {
					if p := all[r.IntN(len(all))]; p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
						_ = e.Client.Delete(e.Ctx, p, client.GracePeriodSeconds(0))
					}
				}
				e.Advance(time.Duration(r.IntN(10)) * time.Second)
			}
			e.Cluster.React(nil)
			e.Advance(10 * time.Hour)
			s := get(e).Status
			if s.Succeeded != 40 || int(s.Failed) != failures || s.CompletionTime == nil {
				t.Errorf("seed %d: %s, expected 40 succeeded and %d failed", seed, describe(s), failures)
			}
		})
	}
}

func TestLarge(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		worker(e, func(*corev1.Pod) int32 { return 0 })
		start(e)
		e.Create(newJob(func(s *batchv1.JobSpec) {
			s.Completions, s.Parallelism, s.CompletionMode = ptr[int32](1500), ptr[int32](1500), ptr(batchv1.IndexedCompletion)
		}))
		e.Advance(time.Minute)
		if got := describe(get(e).Status); got != "active=0 succeeded=1500 failed=0 done=0-1499"+completed {
			t.Error(got)
		}
	})
}
