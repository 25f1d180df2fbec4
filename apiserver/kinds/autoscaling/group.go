package autoscaling

import (
	"fmt"
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

// Group returns the declarations of API group autoscaling.
func Group() kind.Group {
	return kind.Group{
		Name: autoscalingv2.GroupName,
		AddToScheme: func(s *runtime.Scheme) error {
			if err := autoscalingv2.AddToScheme(s); err != nil {
				return err
			}
			return autoscalingv1.AddToScheme(s)
		},
		Versions: []string{"v2", "v1"},
		Kinds:    []*kind.Kind{horizontalPodAutoscaler()},
	}
}

func horizontalPodAutoscaler() *kind.Kind {
	spec := autoscalingv2.HorizontalPodAutoscalerSpec{}.SwaggerDoc()
	return &kind.Kind{
		GVK:        autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"),
		Resource:   "horizontalpodautoscalers",
		Singular:   "horizontalpodautoscaler",
		ShortNames: []string{"hpa"},
		Categories: []string{"all"},
		Namespaced: true,
		Versions: []kind.Version{{
			GVK: autoscalingv1.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"), To: toV1, From: fromV1,
		}},

		Default:                  typed.Default(defaultAutoscaler),
		Validate:                 typed.Validate(func(h *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList { return validateAutoscaler(h, nil) }),
		ValidateUpdate:           typed.ValidateUpdate(validateAutoscaler),
		AllowUnconditionalUpdate: true,
		Status: &kind.Subresource{Validate: typed.ValidateUpdate(func(h, _ *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
			path := field.NewPath("status")
			errs := rules.NonNegative(h.Status.CurrentReplicas, path.Child("currentReplicas"))
			return append(errs, rules.NonNegative(h.Status.DesiredReplicas, path.Child("desiredReplicas"))...)
		})},
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Reference", spec["scaleTargetRef"]),
			table.Text("Targets", spec["metrics"]),
			table.Text("MinPods", spec["minReplicas"]),
			table.Text("MaxPods", spec["maxReplicas"]),
			table.Text("Replicas", autoscalingv2.HorizontalPodAutoscalerStatus{}.SwaggerDoc()["currentReplicas"]),
			table.Age(),
		},
		Row: typed.Row(func(h *autoscalingv2.HorizontalPodAutoscaler, now time.Time) []any {
			least := "<unset>"
			if h.Spec.MinReplicas != nil {
				least = fmt.Sprintf("%d", *h.Spec.MinReplicas)
			}
			return []any{
				h.Name, h.Spec.ScaleTargetRef.Kind + "/" + h.Spec.ScaleTargetRef.Name, targetsCell(h.Spec.Metrics, h.Status.CurrentMetrics),
				least, int64(h.Spec.MaxReplicas), int64(h.Status.CurrentReplicas), table.Since(h.CreationTimestamp, now),
			}
		}),
	}
}

// defaultAutoscaler has Kubernetes' pace of scaling: up by four pods or double in 15 seconds, down by all at once.
func defaultAutoscaler(h *autoscalingv2.HorizontalPodAutoscaler) {
	rules.SetNil(&h.Spec.MinReplicas, 1)
	if len(h.Spec.Metrics) == 0 {
		h.Spec.Metrics = []autoscalingv2.MetricSpec{cpuMetric(80)}
	}
	b := h.Spec.Behavior
	if b == nil {
		return
	}
	rules.SetNil(&b.ScaleUp, autoscalingv2.HPAScalingRules{})
	rules.SetNil(&b.ScaleUp.StabilizationWindowSeconds, 0)
	rules.SetNil(&b.ScaleUp.SelectPolicy, autoscalingv2.MaxChangePolicySelect)
	if b.ScaleUp.Policies == nil {
		b.ScaleUp.Policies = []autoscalingv2.HPAScalingPolicy{
			{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15},
			{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
		}
	}
	rules.SetNil(&b.ScaleDown, autoscalingv2.HPAScalingRules{})
	rules.SetNil(&b.ScaleDown.SelectPolicy, autoscalingv2.MaxChangePolicySelect)
	if b.ScaleDown.Policies == nil {
		b.ScaleDown.Policies = []autoscalingv2.HPAScalingPolicy{{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15}}
	}
}

func cpuMetric(percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name:   corev1.ResourceCPU,
		Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
	}}
}

const unknown = "<unknown>"

func targetsCell(specs []autoscalingv2.MetricSpec, statuses []autoscalingv2.MetricStatus) string {
	if len(specs) == 0 {
		return "<none>"
	}
	cells := make([]string, len(specs))
	for i := range specs {
		var status autoscalingv2.MetricStatus
		if i < len(statuses) {
			status = statuses[i]
		}
		cells[i] = targetCell(&specs[i], &status)
	}
	return table.Limited(cells, 2, ", ", "<none>")
}

func targetCell(spec *autoscalingv2.MetricSpec, status *autoscalingv2.MetricStatus) string {
	switch {
	case spec.Type == autoscalingv2.ExternalMetricSourceType && spec.External != nil:
		var current *autoscalingv2.MetricValueStatus
		if status.External != nil {
			current = &status.External.Current
		}
		return valueCell(&spec.External.Target, current)
	case spec.Type == autoscalingv2.ObjectMetricSourceType && spec.Object != nil:
		var current *autoscalingv2.MetricValueStatus
		if status.Object != nil {
			current = &status.Object.Current
		}
		return valueCell(&spec.Object.Target, current)
	case spec.Type == autoscalingv2.PodsMetricSourceType && spec.Pods != nil:
		current := unknown
		if status.Pods != nil {
			current = quantity(status.Pods.Current.AverageValue)
		}
		return current + "/" + quantity(spec.Pods.Target.AverageValue)
	case spec.Type == autoscalingv2.ResourceMetricSourceType && spec.Resource != nil:
		var current *autoscalingv2.MetricValueStatus
		if status.Resource != nil {
			current = &status.Resource.Current
		}
		return string(spec.Resource.Name) + ": " + resourceCell(&spec.Resource.Target, current)
	case spec.Type == autoscalingv2.ContainerResourceMetricSourceType && spec.ContainerResource != nil:
		var current *autoscalingv2.MetricValueStatus
		if status.ContainerResource != nil {
			current = &status.ContainerResource.Current
		}
		return string(spec.ContainerResource.Name) + ": " + resourceCell(&spec.ContainerResource.Target, current)
	default:
		return "<unknown type>"
	}
}

func quantity(q *apiresource.Quantity) string {
	if q == nil {
		return unknown
	}
	return q.String()
}

func valueCell(target *autoscalingv2.MetricTarget, current *autoscalingv2.MetricValueStatus) string {
	shown := unknown
	if target.AverageValue != nil {
		if current != nil {
			shown = quantity(current.AverageValue)
		}
		return shown + "/" + target.AverageValue.String() + " (avg)"
	}
	if current != nil {
		shown = quantity(current.Value)
	}
	return shown + "/" + quantity(target.Value)
}

func resourceCell(target *autoscalingv2.MetricTarget, current *autoscalingv2.MetricValueStatus) string {
	shown := unknown
	if target.AverageValue != nil {
		if current != nil {
			shown = quantity(current.AverageValue)
		}
		return shown + "/" + target.AverageValue.String()
	}
	if current != nil && current.AverageUtilization != nil {
		shown = fmt.Sprintf("%d%%", *current.AverageUtilization)
	}
	wanted := "<auto>"
	if target.AverageUtilization != nil {
		wanted = fmt.Sprintf("%d%%", *target.AverageUtilization)
	}
	return strings.Join([]string{shown, wanted}, "/")
}
