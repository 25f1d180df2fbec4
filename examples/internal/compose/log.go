package compose

import (
	"slices"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// LibrariesLog has what Kubernetes' libraries log by themselves in a program go to its own log, errors at level 1: theirs are such as a client
// that hung up, or a command that a container doesn't have, which are told to who is concerned. Only a main may call it.
func LibrariesLog(log logr.Logger) {
	if log.GetSink() == nil {
		klog.SetLogger(logr.Discard())
		return
	}
	klog.SetLogger(logr.New(quiet{log.WithName("libraries").GetSink()}))
}

// quiet tells errors as information.
type quiet struct{ logr.LogSink }

// Error implements logr.LogSink.
func (q quiet) Error(err error, msg string, kv ...any) {
	if q.Enabled(1) {
		q.Info(1, msg, append(slices.Clone(kv), "err", err)...)
	}
}

// WithValues implements logr.LogSink.
func (q quiet) WithValues(kv ...any) logr.LogSink { return quiet{q.LogSink.WithValues(kv...)} }

// WithName implements logr.LogSink.
func (q quiet) WithName(name string) logr.LogSink { return quiet{q.LogSink.WithName(name)} }
