package ttlafterfinished_test

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/ttlafterfinished"
)

func TestDeletesInTime(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		ctl, err := ttlafterfinished.New(e.Client, e.Cache, ttlafterfinished.Options{})
		e.Check(err)
		e.Start(ctl.Run)
		ttl := int32(60)
		for _, n := range []string{"short", "running", "kept"} {
			j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: n}}
			if n != "kept" {
				j.Spec.TTLSecondsAfterFinished = &ttl
			}
			e.Create(j)
			if n != "running" {
				controllertest.Edit(e.Cluster, "default", n, func(j *batchv1.Job) {
					j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
				})
			}
		}
		deleting := func() (out string) {
			for _, j := range controllertest.All[*batchv1.Job](e.Cluster) {
				if j.DeletionTimestamp != nil {
					out += j.Name + " " + j.Finalizers[0]
				}
			}
			return out
		}
		e.Advance(59 * time.Second)
		if got := deleting(); got != "" {
			t.Errorf("too early: %s", got)
		}
		// Prolonged at the last moment.
		controllertest.Edit(e.Cluster, "default", "short", func(j *batchv1.Job) { *j.Spec.TTLSecondsAfterFinished = 120 })
		e.Advance(30 * time.Second)
		if got := deleting(); got != "" {
			t.Errorf("prolonged, but %s", got)
		}
		e.Advance(time.Minute)
		if got := deleting(); got != "short foregroundDeletion" {
			t.Errorf("deleting %q", got)
		}
	})
}
