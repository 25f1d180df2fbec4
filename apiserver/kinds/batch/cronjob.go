package batch

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"
	// Time zones must be known on machines without a zone database.
	_ "time/tzdata"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

// The controller appends 11 characters to make the names of Jobs, which are pods' labels of 63 at most.
const maxCronJobName = 63 - 11

func cronJob() *kind.Kind {
	path := field.NewPath("spec", "jobTemplate", "spec", "template")
	return &kind.Kind{
		GVK:        batchv1.SchemeGroupVersion.WithKind("CronJob"),
		Resource:   "cronjobs",
		Singular:   "cronjob",
		ShortNames: []string{"cj"},
		Categories: []string{"all"},
		Namespaced: true,

		Default: typed.Default(defaultCronJob),
		PrepareForCreate: typed.Prepare(func(ctx context.Context, c *batchv1.CronJob) {
			c.Status = batchv1.CronJobStatus{}
			c.Generation = 1
			podspec.PrepareTemplate(ctx, &c.Spec.JobTemplate.Spec.Template, nil, path)
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(ctx context.Context, c, old *batchv1.CronJob) {
			c.Status = old.Status
			podspec.PrepareTemplate(ctx, &c.Spec.JobTemplate.Spec.Template, &old.Spec.JobTemplate.Spec.Template, path)
			c.Generation = old.Generation
			if !apiequality.Semantic.DeepEqual(c.Spec, old.Spec) {
				c.Generation++
			}
		}),
		Validate: typed.Validate(func(c *batchv1.CronJob) field.ErrorList {
			errs := validateCronJobSpec(&c.Spec, nil, field.NewPath("spec"))
			if len(c.Name) > maxCronJobName {
				errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), c.Name, "must be no more than 52 characters"))
			}
			return errs
		}),
		ValidateUpdate: typed.ValidateUpdate(func(c, old *batchv1.CronJob) field.ErrorList {
			return validateCronJobSpec(&c.Spec, &old.Spec, field.NewPath("spec"))
		}),
		Warnings: typed.Warnings(func(ctx context.Context, obj, old *batchv1.CronJob) []string {
			var warnings []string
			var before *corev1.PodTemplateSpec
			if old == nil {
				warnings = rules.NameForPods(obj.Name)
			} else {
				if obj.Generation != old.Generation {
					before = &old.Spec.JobTemplate.Spec.Template
				} else {
					before = &obj.Spec.JobTemplate.Spec.Template
				}
			}
			warnings = append(warnings, jobSpecWarnings(&obj.Spec.JobTemplate.Spec)...)
			if old == nil || obj.Generation != old.Generation {
				warnings = append(warnings, podspec.TemplateWarnings(ctx, &obj.Spec.JobTemplate.Spec.Template, before, path)...)
			}
			if strings.Contains(obj.Spec.Schedule, "TZ") {
				warnings = append(warnings, "CRON_TZ or TZ used in spec.schedule is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details")
			}
			return warnings
		}),
		AllowUnconditionalUpdate: true,
		Status:                   &kind.Subresource{},
		Columns: append([]metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Schedule", batchv1.CronJobSpec{}.SwaggerDoc()["schedule"]),
			table.Text("Timezone", batchv1.CronJobSpec{}.SwaggerDoc()["timeZone"]),
			table.Bool("Suspend", batchv1.CronJobSpec{}.SwaggerDoc()["suspend"]),
			table.Number("Active", batchv1.CronJobStatus{}.SwaggerDoc()["active"]),
			table.Text("Last Schedule", batchv1.CronJobStatus{}.SwaggerDoc()["lastScheduleTime"]),
			table.Age(),
		}, table.TemplateColumns()...),
		Row: typed.Row(func(c *batchv1.CronJob, now time.Time) []any {
			last, zone := "<none>", "<none>"
			if c.Status.LastScheduleTime != nil {
				last = table.Since(*c.Status.LastScheduleTime, now)
			}
			if c.Spec.TimeZone != nil {
				zone = *c.Spec.TimeZone
			}
			names, images := table.Containers(c.Spec.JobTemplate.Spec.Template.Spec.Containers)
			return []any{
				c.Name, c.Spec.Schedule, zone, table.BoolPointer(c.Spec.Suspend), int64(len(c.Status.Active)), last,
				table.Since(c.CreationTimestamp, now), names, images, metav1.FormatLabelSelector(c.Spec.JobTemplate.Spec.Selector),
			}
		}),
	}
}

func defaultCronJob(c *batchv1.CronJob) {
	podspec.DefaultTemplate(&c.Spec.JobTemplate.Spec.Template)
	defaultPodFailurePolicy(c.Spec.JobTemplate.Spec.PodFailurePolicy)
	rules.SetZero(&c.Spec.ConcurrencyPolicy, batchv1.AllowConcurrent)
	rules.SetNil(&c.Spec.Suspend, false)
	rules.SetNil(&c.Spec.SuccessfulJobsHistoryLimit, 3)
	rules.SetNil(&c.Spec.FailedJobsHistoryLimit, 1)
}

func validateCronJobSpec(spec, old *batchv1.CronJobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if spec.Schedule == "" {
		errs = append(errs, field.Required(path.Child("schedule"), ""))
	} else {
		// A zone in the schedule of a stored CronJob may stay.
		allowZone := old != nil && strings.Contains(old.Schedule, "TZ")
		errs = append(errs, validateSchedule(spec.Schedule, allowZone, spec.TimeZone, path.Child("schedule"))...)
	}
	errs = append(errs, rules.NonNegativePointer(spec.StartingDeadlineSeconds, path.Child("startingDeadlineSeconds"))...)
	if old == nil || !apiequality.Semantic.DeepEqual(old.TimeZone, spec.TimeZone) {
		errs = append(errs, validateTimeZone(spec.TimeZone, path.Child("timeZone"))...)
	}
	if spec.ConcurrencyPolicy == "" {
		errs = append(errs, field.Required(path.Child("concurrencyPolicy"), ""))
	} else {
		errs = append(errs, rules.OneOf(spec.ConcurrencyPolicy, path.Child("concurrencyPolicy"), batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent)...)
	}
	var before *corev1.PodSpec
	if old != nil {
		before = &old.JobTemplate.Spec.Template.Spec
	}
	at := path.Child("jobTemplate", "spec")
	jobSpec := &spec.JobTemplate.Spec
	errs = append(errs, validateJobSpec(jobSpec, at, podspec.OptionsFor(&jobSpec.Template.Spec, before))...)
	if jobSpec.Selector != nil {
		errs = append(errs, field.Invalid(at.Child("selector"), jobSpec.Selector, "`selector` will be auto-generated"))
	}
	if jobSpec.ManualSelector != nil && *jobSpec.ManualSelector {
		errs = append(errs, field.NotSupported(at.Child("manualSelector"), jobSpec.ManualSelector, []string{"nil", "false"}))
	}
	errs = append(errs, rules.NonNegativePointer(spec.SuccessfulJobsHistoryLimit, path.Child("successfulJobsHistoryLimit"))...)
	return append(errs, rules.NonNegativePointer(spec.FailedJobsHistoryLimit, path.Child("failedJobsHistoryLimit"))...)
}

func validateSchedule(schedule string, allowZone bool, zone *string, path *field.Path) (errs field.ErrorList) {
	if err := parseSchedule(schedule); err != nil {
		errs = append(errs, field.Invalid(path, schedule, err.Error()))
	}
	if strings.Contains(schedule, "TZ") {
		if zone != nil {
			errs = append(errs, field.Invalid(path, schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule"))
		} else if !allowZone {
			errs = append(errs, field.Invalid(path, schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"))
		}
	}
	return errs
}

// parseSchedule guards against the panic of robfig/cron on a zone without a schedule behind it ("TZ=0").
func parseSchedule(schedule string) (err error) {
	if (strings.HasPrefix(schedule, "TZ=") || strings.HasPrefix(schedule, "CRON_TZ=")) && !strings.Contains(schedule, " ") {
		return fmt.Errorf("missing schedule after time zone: %s", schedule)
	}
	_, err = cron.ParseStandard(schedule)
	return err
}

func validateTimeZone(zone *string, path *field.Path) field.ErrorList {
	if zone == nil {
		return nil
	}
	if *zone == "" {
		return field.ErrorList{field.Invalid(path, *zone, "timeZone must be nil or non-empty string")}
	}
	for _, part := range strings.Split(*zone, "/") {
		if part == "." || part == ".." || strings.HasPrefix(part, "-") || !zoneCharacters(part) {
			return field.ErrorList{field.Invalid(path, *zone, fmt.Sprintf("unknown time zone %s", *zone))}
		}
	}
	if strings.EqualFold(*zone, "Local") {
		return field.ErrorList{field.Invalid(path, *zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")}
	}
	if _, err := time.LoadLocation(*zone); err != nil {
		return field.ErrorList{field.Invalid(path, *zone, err.Error())}
	}
	return nil
}

// zoneCharacters keeps paths out of the zone database's file look-up.
func zoneCharacters(part string) bool { return zonePart.MatchString(part) }

var zonePart = regexp.MustCompile(`^[A-Za-z0-9._+-]{1,32}$`)
