package cronjob_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/cronjob"
)

// Virtual time starts at midnight, 2000-01-01 UTC.
func run(t *testing.T, schedule string, edit func(*batchv1.CronJobSpec), f func(e *controllertest.Env)) {
	controllertest.Run(t, func(e *controllertest.Env) {
		ctl, err := cronjob.New(e.Client, e.Cache, cronjob.Options{})
		e.Check(err)
		e.Start(ctl.Run)
		three, one := int32(3), int32(1)
		cj := &batchv1.CronJob{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"},
			Spec: batchv1.CronJobSpec{
				Schedule: schedule, ConcurrencyPolicy: batchv1.AllowConcurrent, SuccessfulJobsHistoryLimit: &three, FailedJobsHistoryLimit: &one,
				JobTemplate: batchv1.JobTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: batchv1.JobSpec{Template: controllertest.Template("x", nil)}},
			},
		}
		if edit != nil {
			edit(&cj.Spec)
		}
		e.Create(cj)
		f(e)
	})
}

func jobs(e *controllertest.Env) string {
	var out []string
	for _, j := range controllertest.All[*batchv1.Job](e.Cluster) {
		at, err := time.Parse(time.RFC3339, j.Annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"])
		e.Check(err)
		s := at.UTC().Format("15:04")
		if len(j.Status.Conditions) > 0 {
			s += "*"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func finish(e *controllertest.Env, how batchv1.JobConditionType) {
	for _, j := range controllertest.All[*batchv1.Job](e.Cluster) {
		if len(j.Status.Conditions) == 0 {
			controllertest.Edit(e.Cluster, "default", j.Name, func(j *batchv1.Job) {
				now := metav1.Now()
				j.Status.Conditions = []batchv1.JobCondition{{Type: how, Status: corev1.ConditionTrue}}
				j.Status.CompletionTime = &now
			})
		}
	}
	e.Settle()
}

func get(e *controllertest.Env) *batchv1.CronJob {
	c, _ := controllertest.Get[*batchv1.CronJob](e.Cluster, "default", "c")
	return c
}

func TestSchedule(t *testing.T) {
	run(t, "*/10 * * * *", nil, func(e *controllertest.Env) {
		e.Advance(9 * time.Minute)
		if got := jobs(e); got != "" {
			t.Errorf("too early: %s", got)
		}
		e.Advance(2 * time.Minute)
		if got := jobs(e); got != "00:10" {
			t.Fatal(got)
		}
		cj := get(e)
		j := controllertest.All[*batchv1.Job](e.Cluster)[0]
		if j.Name != fmt.Sprintf("c-%d", time.Date(2000, 1, 1, 0, 10, 0, 0, time.UTC).Unix()/60) || j.Labels["a"] != "b" || !metav1.IsControlledBy(j, cj) {
			t.Errorf("job %+v", j.ObjectMeta)
		}
		if len(cj.Status.Active) != 1 || cj.Status.LastScheduleTime == nil || cj.Status.LastSuccessfulTime != nil {
			t.Errorf("status %+v", cj.Status)
		}
		finish(e, batchv1.JobComplete)
		if s := get(e).Status; len(s.Active) != 0 || s.LastSuccessfulTime == nil {
			t.Errorf("status %+v", s)
		}
		for range 5 {
			e.Advance(10 * time.Minute)
			finish(e, batchv1.JobComplete)
		}
		if got := jobs(e); got != "00:40* 00:50* 01:00*" {
			t.Errorf("history: %s", got)
		}
		ev := strings.Join(e.Events(), "\n")
		for _, want := range []string{"SuccessfulCreate: Created job c-", "SawCompletedJob: Saw completed job: c-", "SuccessfulDelete: Deleted job c-"} {
			if !strings.Contains(ev, want) {
				t.Errorf("no event %q:\n%s", want, ev)
			}
		}
	})
}

func TestConcurrency(t *testing.T) {
	for policy, want := range map[batchv1.ConcurrencyPolicy]string{
		batchv1.AllowConcurrent: "00:10 00:20 00:30", batchv1.ForbidConcurrent: "00:10", batchv1.ReplaceConcurrent: "00:30",
	} {
		run(t, "*/10 * * * *", func(s *batchv1.CronJobSpec) { s.ConcurrencyPolicy = policy }, func(e *controllertest.Env) {
			e.Advance(35 * time.Minute)
			if got := jobs(e); got != want {
				t.Errorf("%s: %s", policy, got)
			}
			if policy != batchv1.ForbidConcurrent {
				return
			}
			// Once the one before has ended, the missed time is made up for.
			finish(e, batchv1.JobComplete)
			if got := jobs(e); got != "00:10* 00:30" {
				t.Errorf("%s: %s", policy, got)
			}
		})
	}
}

func TestTimeZoneSuspendAndDeadline(t *testing.T) {
	tz := "Asia/Tokyo"
	run(t, "0 12 * * *", func(s *batchv1.CronJobSpec) { s.TimeZone = &tz }, func(e *controllertest.Env) {
		e.Advance(4 * time.Hour)
		if got := jobs(e); got != "03:00" {
			t.Error(got)
		}
	})
	yes, no, deadline := true, false, int64(60)
	for want, d := range map[string]*int64{"00:50": nil, "": &deadline} {
		run(t, "*/10 * * * *", func(s *batchv1.CronJobSpec) { s.Suspend, s.StartingDeadlineSeconds = &yes, d }, func(e *controllertest.Env) {
			e.Advance(55 * time.Minute)
			controllertest.Edit(e.Cluster, "default", "c", func(c *batchv1.CronJob) { c.Spec.Suspend = &no })
			e.Settle()
			if got := jobs(e); got != want {
				t.Errorf("resumed: %q, expected %q", got, want)
			}
		})
	}
}

func TestBadSchedules(t *testing.T) {
	mars := "Mars/Olympus"
	run(t, "nonsense", nil, func(e *controllertest.Env) {
		e.Settle()
		if ev := strings.Join(e.Events(), "\n"); !strings.Contains(ev, `UnparseableSchedule: unparseable schedule: "nonsense"`) {
			t.Error(ev)
		}
	})
	run(t, "* * * * *", func(s *batchv1.CronJobSpec) { s.TimeZone = &mars }, func(e *controllertest.Env) {
		e.Settle()
		if ev := strings.Join(e.Events(), "\n"); !strings.Contains(ev, `UnknownTimeZone: invalid timeZone: "Mars/Olympus"`) {
			t.Error(ev)
		}
	})
}

// TestOnceEach: a status that could not be written must not make a second job.
func TestOnceEach(t *testing.T) {
	run(t, "*/10 * * * *", nil, func(e *controllertest.Env) {
		e.Settle()
		r := controllertest.NewRand(7)
		e.Cluster.React(func(c controllertest.Call) error {
			if c.Verb != "watch" && c.Verb != "list" && r.IntN(4) == 0 {
				return fmt.Errorf("injected")
			}
			return nil
		})
		e.Advance(55 * time.Minute)
		e.Cluster.React(nil)
		e.Advance(time.Minute)
		if got := jobs(e); got != "00:10 00:20 00:30 00:40 00:50" {
			t.Error(got)
		}
	})
}
