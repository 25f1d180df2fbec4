package plugins

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/scheduler"
)

// VolumeBindingOptions are the arguments of VolumeBinding.
type VolumeBindingOptions struct {
	// BindTimeout bounds the wait for volumes to be bound, in whole seconds. Default 10 minutes; 0 is no wait.
	BindTimeout *time.Duration
	// Shape of the score by the used part of the storage: points between which it is interpolated, by rising utilization. Default: 10 for nothing used, 0 for
	// all.
	Shape []ShapePoint
}

// Validate reports what is wrong, in kube-scheduler's words: fields are named as in a KubeSchedulerConfiguration, below path.
func (o VolumeBindingOptions) Validate(path *field.Path) error {
	var errs field.ErrorList
	if t := o.BindTimeout; t != nil && *t < 0 {
		errs = append(errs, field.Invalid(path.Child("bindTimeoutSeconds"), int64(t.Seconds()), "invalid BindTimeoutSeconds, should not be a negative value"))
	}
	if o.Shape != nil {
		errs = append(errs, validateShape(o.Shape, path.Child("shape"))...)
	}
	return errs.ToAggregate()
}

// NewVolumeBinding returns the rule with options of your own.
func NewVolumeBinding(opts VolumeBindingOptions) (VolumeBinding, error) {
	if err := opts.Validate(nil); err != nil {
		return VolumeBinding{}, fmt.Errorf("plugins: VolumeBinding: %w", err)
	}
	var p VolumeBinding
	if opts.BindTimeout != nil {
		p.BindTimeout = max(*opts.BindTimeout, time.Nanosecond)
	}
	for _, at := range opts.Shape {
		p.Shape = append(p.Shape, UsedPoint{Used: int64(at.Utilization), Score: int64(at.Score) * (scheduler.MaxScore / maxShapeScore)})
	}
	return p, nil
}
