// Package cronjob makes Jobs at the times CronJobs ask for.
//
//	ctl, err := cronjob.New(c, cache, cronjob.Options{})
//	...
//	err = ctl.Run(ctx)
//
// Schedules are those of github.com/robfig/cron in a time zone. Concurrency
// policies, starting deadlines, suspension and history limits are supported.
package cronjob
