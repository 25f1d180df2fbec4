// Package batch declares the kinds of API group batch: Job and CronJob, version v1.
package batch
