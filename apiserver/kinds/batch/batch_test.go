package batch

import (
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/apiserver/kinds/internal/kindtest"
)

func ptr[T any](v T) *T { return &v }

func podTemplate() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: "Never", Containers: []corev1.Container{{Name: "c", Image: "busybox"}}}}
}

func validJob() *batchv1.Job {
	return &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "pi", UID: "u1"}, Spec: batchv1.JobSpec{Template: podTemplate()}}
}

func TestJob(t *testing.T) {
	k := kindtest.Find(t, Group(), "Job")
	type change = kindtest.Change[*batchv1.Job]
	indexed := func(j *batchv1.Job) {
		j.Spec.CompletionMode, j.Spec.Completions, j.Spec.Parallelism = ptr(batchv1.IndexedCompletion), ptr(int32(5)), ptr(int32(5))
	}
	rule := func(r batchv1.PodFailurePolicyRule) func(*batchv1.Job) {
		return func(j *batchv1.Job) {
			j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{r}}
		}
	}
	kindtest.CreateTable(t, k, validJob(), []change{
		{
			"restart policy", func(j *batchv1.Job) { j.Spec.Template.Spec.RestartPolicy = "" },
			`spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"`,
		},
		{
			"own selector", func(j *batchv1.Job) {
				j.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
			},
			"spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"batch.kubernetes.io/controller-uid\":\"u1\"}}: `selector` not auto-generated\n" +
				"spec.template.metadata.labels: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u1\",\"batch.kubernetes.io/job-name\":\"pi\",\"controller-uid\":\"u1\",\"job-name\":\"pi\"}: `selector` does not match template `labels`",
		},
		{"manual selector", func(j *batchv1.Job) {
			j.Spec.ManualSelector, j.Spec.Selector = ptr(true), &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
			j.Spec.Template.Labels = map[string]string{"a": "b"}
		}, ""},
		{"indexed without completions", func(j *batchv1.Job) {
			j.Spec.CompletionMode, j.Spec.Parallelism = ptr(batchv1.IndexedCompletion), ptr(int32(2))
		}, `spec.completions: Required value: when completion mode is Indexed`},
		{"indexed", indexed, ""},
		{
			"per index without indexes", func(j *batchv1.Job) { j.Spec.BackoffLimitPerIndex = ptr(int32(1)) },
			`spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode`,
		},
		{
			"managed by", func(j *batchv1.Job) { j.Spec.ManagedBy = ptr("nobody") },
			`spec.managedBy: Invalid value: "nobody": must be a domain-prefixed path (such as "acme.io/foo")`,
		},
		{
			"failure rule without anything", rule(batchv1.PodFailurePolicyRule{Action: "FailIndex"}),
			"spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set\n" +
				"spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
		},
		{
			"exit codes", rule(batchv1.PodFailurePolicyRule{Action: "FailJob", OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
				ContainerName: ptr("x"), Operator: "In", Values: []int32{3, 0, 3},
			}}),
			`spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: "x": must be one of the container or initContainer names in the pod template
spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator
spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 3
spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [3,0,3]: must be ordered`,
		},
		{"success policy without indexes", func(j *batchv1.Job) {
			j.Spec.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededCount: ptr(int32(1))}}}
		}, `spec.successPolicy: Invalid value: {"rules":[{"succeededCount":1}]}: requires indexed completion mode`},
		{"success policy", func(j *batchv1.Job) {
			indexed(j)
			j.Spec.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{
				{SucceededIndexes: ptr("0,2-3"), SucceededCount: ptr(int32(4))}, {SucceededIndexes: ptr("4,1")}, {},
			}}
		}, `spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of indexes in the specified succeededIndexes field)
spec.successPolicy.rules[1].succeededIndexes: Invalid value: "4,1": error parsing succeededIndexes: non-increasing order, previous: 4, current: 1
spec.successPolicy.rules[2]: Required value: at least one of succeededCount or succeededIndexes must be specified`},
		{
			"long name", func(j *batchv1.Job) { indexed(j); j.Name = strings.Repeat("a", 62) },
			`metadata.name: Invalid value: "` + strings.Repeat("a", 62) + `": will not able to create pod with invalid DNS name: ` + strings.Repeat("a", 62) + `-4`,
		},
		{
			"scheduling is not there yet", func(j *batchv1.Job) { j.Spec.Scheduling = &batchv1.JobSchedulingConfiguration{} },
			`spec.scheduling: Forbidden: may not be set when the WorkloadWithJob feature is disabled`,
		},
	})
	elastic := validJob()
	indexed(elastic)
	kindtest.UpdateTable(t, k, elastic, []change{
		{"suspend", func(j *batchv1.Job) { j.Spec.Suspend = ptr(true) }, ""},
		{"grow", func(j *batchv1.Job) { j.Spec.Completions, j.Spec.Parallelism = ptr(int32(9)), ptr(int32(9)) }, ""},
		{
			"grow alone", func(j *batchv1.Job) { j.Spec.Completions = ptr(int32(9)) },
			`spec.completions: Invalid value: 9: can only be modified in tandem with spec.parallelism`,
		},
		{
			"mode", func(j *batchv1.Job) { j.Spec.CompletionMode = ptr(batchv1.NonIndexedCompletion) },
			`spec.completionMode: Invalid value: "NonIndexed": field is immutable`,
		},
	})
	suspended := validJob()
	suspended.Spec.Suspend = ptr(true)
	kindtest.UpdateTable(t, k, suspended, []change{
		{"node selector of a suspended job", func(j *batchv1.Job) { j.Spec.Template.Spec.NodeSelector = map[string]string{"a": "b"} }, ""},
	})
	old := validJob()
	kindtest.Create(k, old)
	moved := old.DeepCopy()
	moved.Spec.Template.Spec.NodeSelector = map[string]string{"a": "b"}
	if got := kindtest.Update(k, moved, old); !strings.Contains(got, "spec.template: Invalid value") || !strings.HasSuffix(got, "field is immutable") {
		t.Errorf("node selector of a running job: %s", got)
	}

	j := validJob()
	kindtest.Create(k, j)
	if *j.Spec.Completions != 1 || *j.Spec.Parallelism != 1 || *j.Spec.BackoffLimit != 6 || *j.Spec.CompletionMode != "NonIndexed" || *j.Spec.Suspend ||
		*j.Spec.PodReplacementPolicy != "TerminatingOrFailed" || j.Spec.Template.Labels["job-name"] != "pi" || j.Spec.Selector.MatchLabels["batch.kubernetes.io/controller-uid"] != "u1" {
		t.Errorf("defaults: %+v", j.Spec)
	}
	start := metav1.Now()
	end := metav1.NewTime(start.Add(90 * time.Second))
	j.Status = batchv1.JobStatus{Succeeded: 1, StartTime: &start, CompletionTime: &end, Conditions: []batchv1.JobCondition{{Type: "Complete", Status: "True"}}}
	if got, want := kindtest.Header(k)+"\n"+kindtest.Row(t, k, j), "Name | Status | Completions | Duration | Age | Containers | Images | Selector\n"+
		"pi | Complete | 1/1 | 90s | <unknown> | c | busybox | batch.kubernetes.io/controller-uid=u1"; got != want {
		t.Errorf("table: %s", got)
	}
	undone := j.DeepCopy()
	undone.Status.Conditions, undone.Status.CompletionTime = nil, nil
	if got := kindtest.Errors(k.Status.Validate(t.Context(), undone, j)); !strings.Contains(got, "completionTime cannot be mutated or unset") || !strings.Contains(got, "cannot disable the terminal Complete=True condition") {
		t.Errorf("status: %s", got)
	}
}

func TestCronJob(t *testing.T) {
	k := kindtest.Find(t, Group(), "CronJob")
	type change = kindtest.Change[*batchv1.CronJob]
	valid := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "tick"}, Spec: batchv1.CronJobSpec{
		Schedule: "*/5 * * * *", TimeZone: ptr("Europe/Berlin"), JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: podTemplate()}},
	}}
	kindtest.CreateTable(t, k, valid, []change{
		{"macro", func(c *batchv1.CronJob) { c.Spec.Schedule = "@hourly" }, ""},
		{"no schedule", func(c *batchv1.CronJob) { c.Spec.Schedule = "" }, `spec.schedule: Required value`},
		{
			"bad schedule", func(c *batchv1.CronJob) { c.Spec.Schedule = "error" },
			`spec.schedule: Invalid value: "error": expected exactly 5 fields, found 1: [error]`,
		},
		{
			"zone in schedule", func(c *batchv1.CronJob) { c.Spec.Schedule, c.Spec.TimeZone = "TZ=UTC 0 * * * *", nil },
			`spec.schedule: Invalid value: "TZ=UTC 0 * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead`,
		},
		{
			"both zones", func(c *batchv1.CronJob) { c.Spec.Schedule = "TZ=UTC 0 * * * *" },
			`spec.schedule: Invalid value: "TZ=UTC 0 * * * *": cannot use both timeZone field and TZ or CRON_TZ in schedule`,
		},
		{
			"only a zone", func(c *batchv1.CronJob) { c.Spec.Schedule, c.Spec.TimeZone = "TZ=0", nil },
			"spec.schedule: Invalid value: \"TZ=0\": missing schedule after time zone: TZ=0\n" +
				`spec.schedule: Invalid value: "TZ=0": cannot use TZ or CRON_TZ in schedule, use timeZone field instead`,
		},
		{"empty zone", func(c *batchv1.CronJob) { c.Spec.TimeZone = ptr("") }, `spec.timeZone: Invalid value: "": timeZone must be nil or non-empty string`},
		{"unknown zone", func(c *batchv1.CronJob) { c.Spec.TimeZone = ptr("Moon/Crater") }, `spec.timeZone: Invalid value: "Moon/Crater": unknown time zone Moon/Crater`},
		{"path as zone", func(c *batchv1.CronJob) { c.Spec.TimeZone = ptr("../../etc/passwd") }, `spec.timeZone: Invalid value: "../../etc/passwd": unknown time zone ../../etc/passwd`},
		{
			"local zone", func(c *batchv1.CronJob) { c.Spec.TimeZone = ptr("Local") },
			`spec.timeZone: Invalid value: "Local": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones`,
		},
		{
			"policy", func(c *batchv1.CronJob) { c.Spec.ConcurrencyPolicy = "Sometimes" },
			`spec.concurrencyPolicy: Unsupported value: "Sometimes": supported values: "Allow", "Forbid", "Replace"`,
		},
		{
			"long name", func(c *batchv1.CronJob) { c.Name = strings.Repeat("a", 53) },
			`metadata.name: Invalid value: "` + strings.Repeat("a", 53) + `": must be no more than 52 characters`,
		},
		{
			"restart policy", func(c *batchv1.CronJob) { c.Spec.JobTemplate.Spec.Template.Spec.RestartPolicy = "Always" },
			`spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"`,
		},
	})
	c := valid.DeepCopy()
	kindtest.Create(k, c)
	if got, want := kindtest.Header(k)+"\n"+kindtest.Row(t, k, c), "Name | Schedule | Timezone | Suspend | Active | Last Schedule | Age | Containers | Images | Selector\n"+
		"tick | */5 * * * * | Europe/Berlin | False | 0 | <none> | <unknown> | c | busybox | <none>"; got != want {
		t.Errorf("table: %s", got)
	}
}
