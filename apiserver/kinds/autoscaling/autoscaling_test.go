package autoscaling

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/apiserver/kinds/internal/kindtest"
)

func ptr[T any](v T) *T { return &v }

func valid() *autoscalingv2.HorizontalPodAutoscaler {
	return &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "web"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}, MaxReplicas: 5,
	}}
}

func TestAutoscaler(t *testing.T) {
	k := kindtest.Find(t, Group(), "HorizontalPodAutoscaler")
	type change = kindtest.Change[*autoscalingv2.HorizontalPodAutoscaler]
	type hpa = *autoscalingv2.HorizontalPodAutoscaler
	kindtest.CreateTable(t, k, valid(), []change{
		{"max", func(h hpa) { h.Spec.MaxReplicas = 0 }, "spec.maxReplicas: Required value\nspec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`"},
		{"min", func(h hpa) { h.Spec.MinReplicas = ptr(int32(0)) }, `spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas`},
		{
			"target", func(h hpa) { h.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{Name: "a/b"} },
			"spec.scaleTargetRef.kind: Required value\n" + `spec.scaleTargetRef.name: Invalid value: "a/b": may not contain '/'
spec.scaleTargetRef.apiVersion: Invalid value: "": apiVersion must specify API group`,
		},
		{
			"metric without source", func(h hpa) { h.Spec.Metrics = []autoscalingv2.MetricSpec{{Type: "Pods"}} },
			`spec.metrics[0].pods: Required value: must populate information for the given metric source`,
		},
		{"metric of two sources", func(h hpa) {
			m := cpuMetric(50)
			m.External = &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "q"}, Target: autoscalingv2.MetricTarget{Type: "Value", Value: ptr(resource.MustParse("1"))}}
			h.Spec.Metrics = []autoscalingv2.MetricSpec{m}
		}, `spec.metrics[0].external: Forbidden: must populate the given metric source only`},
		{"behavior", func(h hpa) {
			h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: &autoscalingv2.HPAScalingRules{
				StabilizationWindowSeconds: ptr(int32(3601)), Policies: []autoscalingv2.HPAScalingPolicy{{Type: "Pods", Value: 0, PeriodSeconds: 1801}},
			}}
		}, `spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600
spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero
spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800`},
	})
	h := valid()
	kindtest.Create(k, h)
	h.Status.CurrentReplicas = 2
	if got, want := kindtest.Header(k)+"\n"+kindtest.Row(t, k, h), "Name | Reference | Targets | MinPods | MaxPods | Replicas | Age\n"+
		"web | Deployment/web | cpu: <unknown>/80% | 1 | 5 | 2 | <unknown>"; got != want {
		t.Errorf("table: %s", got)
	}
}

// full uses everything that v1 has no fields for.
func full() *autoscalingv2.HorizontalPodAutoscaler {
	h := valid()
	h.Annotations = map[string]string{"own": "kept"}
	name := autoscalingv2.MetricIdentifier{Name: "m", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}}
	q := func(s string) *resource.Quantity { return ptr(resource.MustParse(s)) }
	h.Spec.MinReplicas = ptr(int32(2))
	h.Spec.Metrics = []autoscalingv2.MetricSpec{
		{Type: "Object", Object: &autoscalingv2.ObjectMetricSource{DescribedObject: h.Spec.ScaleTargetRef, Metric: name, Target: autoscalingv2.MetricTarget{Type: "Value", Value: q("3")}}},
		{Type: "Object", Object: &autoscalingv2.ObjectMetricSource{DescribedObject: h.Spec.ScaleTargetRef, Metric: name, Target: autoscalingv2.MetricTarget{Type: "AverageValue", AverageValue: q("4")}}},
		{Type: "Pods", Pods: &autoscalingv2.PodsMetricSource{Metric: name, Target: autoscalingv2.MetricTarget{Type: "AverageValue", AverageValue: q("5")}}},
		{Type: "Resource", Resource: &autoscalingv2.ResourceMetricSource{Name: "memory", Target: autoscalingv2.MetricTarget{Type: "AverageValue", AverageValue: q("1Gi")}}},
		{Type: "ContainerResource", ContainerResource: &autoscalingv2.ContainerResourceMetricSource{Name: "cpu", Container: "c", Target: autoscalingv2.MetricTarget{Type: "Utilization", AverageUtilization: ptr(int32(7))}}},
		{Type: "External", External: &autoscalingv2.ExternalMetricSource{Metric: name, Target: autoscalingv2.MetricTarget{Type: "AverageValue", AverageValue: q("8")}}},
		cpuMetric(60),
	}
	h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{
		SelectPolicy: ptr(autoscalingv2.MinChangePolicySelect), Policies: []autoscalingv2.HPAScalingPolicy{{Type: "Percent", Value: 10, PeriodSeconds: 60}}, Tolerance: q("50m"),
	}}
	h.Status = autoscalingv2.HorizontalPodAutoscalerStatus{
		CurrentReplicas: 3, DesiredReplicas: 4, ObservedGeneration: ptr(int64(9)),
		Conditions: []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: "AbleToScale", Status: "True", Reason: "r", Message: "m"}},
		CurrentMetrics: []autoscalingv2.MetricStatus{
			{Type: "Resource", Resource: &autoscalingv2.ResourceMetricStatus{Name: "cpu", Current: autoscalingv2.MetricValueStatus{AverageUtilization: ptr(int32(55)), AverageValue: q("100m")}}},
		},
	}
	h.APIVersion, h.Kind = "autoscaling/v2", "HorizontalPodAutoscaler"
	return h
}

func TestConversionRoundTrips(t *testing.T) {
	hub := full()
	before := hub.DeepCopy()
	out, err := toV1(hub)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, hub); diff != "" {
		t.Errorf("conversion modifies its argument: %s", diff)
	}
	v1 := out.(*autoscalingv1.HorizontalPodAutoscaler)
	if *v1.Spec.TargetCPUUtilizationPercentage != 60 || *v1.Status.CurrentCPUUtilizationPercentage != 55 || v1.Annotations["own"] != "kept" {
		t.Errorf("v1: %+v %+v", v1.Spec, v1.Status)
	}
	const behavior = `{"ScaleUp":null,"ScaleDown":{"StabilizationWindowSeconds":null,"SelectPolicy":"Min","Policies":[{"Type":"Percent","Value":10,"PeriodSeconds":60}],"Tolerance":"50m"}}`
	if got := v1.Annotations[behaviorAnnotation]; got != behavior {
		t.Errorf("behavior annotation: %s", got)
	}
	back, err := fromV1(v1)
	if err != nil {
		t.Fatal(err)
	}
	if !apiequality.Semantic.DeepEqual(before, back) {
		t.Errorf("v2 → v1 → v2: %s", cmp.Diff(before, back))
	}
	again, err := toV1(back)
	if err != nil {
		t.Fatal(err)
	}
	if !apiequality.Semantic.DeepEqual(v1, again) {
		t.Errorf("v1 → v2 → v1: %s", cmp.Diff(v1, again.(*autoscalingv1.HorizontalPodAutoscaler)))
	}
}

func TestBadAnnotationsAreIgnored(t *testing.T) {
	in := &autoscalingv1.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{
		metricsAnnotation: "{", behaviorAnnotation: "[]", conditionsAnnotation: "1", currentMetricsAnnotation: `"x"`,
	}}}
	in.Spec.TargetCPUUtilizationPercentage = ptr(int32(5))
	out, err := fromV1(in)
	if err != nil {
		t.Fatal(err)
	}
	h := out.(*autoscalingv2.HorizontalPodAutoscaler)
	if len(h.Spec.Metrics) != 1 || h.Spec.Behavior != nil || len(h.Annotations) != 0 {
		t.Errorf("got %+v", h)
	}
}
