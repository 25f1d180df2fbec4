package schedulertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
)

// Options of Run; the zero value will do for plugins that look at what Kubernetes' rules look at.
type Options struct {
	// Pod and Node add what the plugin looks at to random objects. Both have labels and annotations, maybe empty.
	Pod  func(r *rand.Rand, p *corev1.Pod)
	Node func(r *rand.Rand, n *corev1.Node)
	// Clusters is how many are tried, and Events how much happens in each. Default 20 and 60.
	Clusters, Events int
	// Seed of the randomness. Default 1.
	Seed uint64
}

func (o Options) withDefaults() Options {
	if o.Clusters == 0 {
		o.Clusters = 20
	}
	if o.Events == 0 {
		o.Events = 60
	}
	if o.Seed == 0 {
		o.Seed = 1
	}
	return o
}

func (o Options) validate() error {
	if o.Clusters < 0 || o.Events < 0 {
		return fmt.Errorf("schedulertest: Options.Clusters %d, Events %d: want nothing negative", o.Clusters, o.Events)
	}
	return nil
}

// checks by name. Each returns an error that says what was wrong, and in which cluster.
var checks = []struct {
	name  string
	check func(newPlugin func() scheduler.Plugin, o Options) error
}{
	{"Deterministic", checkDeterministic},
	{"ModifiesNothing", checkModifiesNothing},
	{"Scope", checkScope},
	{"Sign", checkSign},
	{"CachedAsPlain", checkCached},
	{"Hint", checkHint},
	{"Scores", checkScores},
	{"AsExplained", checkExplained},
	{"Reserve", checkReserve},
}

// Run checks the plugins that newPlugin makes, each check as a subtest.
func Run(t *testing.T, newPlugin func() scheduler.Plugin, opts Options) {
	t.Helper()
	if err := opts.validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if err := guarded(c.check, newPlugin, opts.withDefaults()); err != nil {
				t.Error(err)
			}
		})
	}
}

// Check is Run for who wants errors: it returns those of all checks, joined.
func Check(newPlugin func() scheduler.Plugin, opts Options) error {
	if err := opts.validate(); err != nil {
		return err
	}
	var errs []error
	for _, c := range checks {
		if err := guarded(c.check, newPlugin, opts.withDefaults()); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
		}
	}
	return errors.Join(errs...)
}

// guarded turns a plugin's panic into an error.
func guarded(check func(func() scheduler.Plugin, Options) error, newPlugin func() scheduler.Plugin, o Options) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return check(newPlugin, o)
}
