package cronjob

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
)

// parse reads a CronJob's schedule in its time zone.
func parse(cj *batchv1.CronJob) (cron.Schedule, error) {
	s := cj.Spec.Schedule
	if cj.Spec.TimeZone != nil && !strings.Contains(s, "TZ") {
		s = fmt.Sprintf("TZ=%s %s", *cj.Spec.TimeZone, s)
	}
	return cron.ParseStandard(s)
}

// manyMissed is how many missed times are worth a warning.
const manyMissed = 100

// missed returns the latest time up to now at which a Job should have been
// made since the last, and how many such times there were.
func missed(cj *batchv1.CronJob, s cron.Schedule, now time.Time) (*time.Time, int, error) {
	from := cj.CreationTimestamp.Time
	if t := cj.Status.LastScheduleTime; t != nil {
		from = t.Time
	}
	if d := cj.Spec.StartingDeadlineSeconds; d != nil {
		if earliest := now.Add(-time.Duration(*d) * time.Second); earliest.After(from) {
			from = earliest
		}
	}
	first := s.Next(from)
	if first.IsZero() || first.After(now) {
		return nil, 0, nil
	}
	second := s.Next(first)
	if second.IsZero() || second.After(now) {
		return &first, 1, nil
	}
	between := second.Sub(first).Round(time.Second)
	if between < time.Second {
		return nil, 0, fmt.Errorf("time difference between two schedules is less than 1 second")
	}
	n := int(math.Min(float64(now.Sub(first)/between)+1, math.MaxInt32))
	latest := first
	// Of very many only the last ones are gone through.
	if n > manyMissed {
		if near := now.Add(-manyMissed * between); near.After(first) {
			if t := s.Next(near); !t.IsZero() && !t.After(now) {
				latest = t
			}
		}
	}
	for t := latest; !t.IsZero() && !t.After(now); t = s.Next(t) {
		latest = t
	}
	return &latest, n, nil
}
