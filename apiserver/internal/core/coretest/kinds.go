package coretest

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
)

// Groups are a few kinds, small but of every sort.
func Groups() []kind.Group {
	configMap := &kind.Kind{
		GVK: corev1.SchemeGroupVersion.WithKind("ConfigMap"), Resource: "configmaps", Singular: "configmap", Namespaced: true,
		AllowUnconditionalUpdate: true, AllowCreateOnUpdate: true,
		Validate: func(_ context.Context, obj client.Object) field.ErrorList {
			if _, bad := obj.(*corev1.ConfigMap).Data["bad key"]; bad {
				return field.ErrorList{field.Invalid(field.NewPath("data").Key("bad key"), "bad key", "no spaces")}
			}
			return nil
		},
	}
	pod := &kind.Kind{
		GVK: corev1.SchemeGroupVersion.WithKind("Pod"), Resource: "pods", Singular: "pod", ShortNames: []string{"po"}, Namespaced: true,
		AllowUnconditionalUpdate: true, ReturnDeletedObject: true,
		Default: func(obj client.Object) {
			p := obj.(*corev1.Pod)
			if p.Spec.RestartPolicy == "" {
				p.Spec.RestartPolicy = corev1.RestartPolicyAlways
			}
		},
		Status: &kind.Subresource{},
		GracePeriod: func(_ context.Context, obj client.Object, requested *int64) int64 {
			switch p := obj.(*corev1.Pod); {
			case p.Spec.NodeName == "":
				return 0
			case requested != nil:
				return *requested
			}
			return 30
		},
		Fields: map[string]func(client.Object) string{
			"spec.nodeName": func(o client.Object) string { return o.(*corev1.Pod).Spec.NodeName },
			"status.phase":  func(o client.Object) string { return string(o.(*corev1.Pod).Status.Phase) },
		},
		IndexFields: []string{"spec.nodeName"},
	}
	node := &kind.Kind{
		GVK: corev1.SchemeGroupVersion.WithKind("Node"), Resource: "nodes", Singular: "node", StorePrefix: "minions",
		AllowUnconditionalUpdate: true, Status: &kind.Subresource{},
	}
	namespace := &kind.Kind{
		GVK: corev1.SchemeGroupVersion.WithKind("Namespace"), Resource: "namespaces", Singular: "namespace",
		AllowUnconditionalUpdate: true, Status: &kind.Subresource{},
		PrepareForCreate: func(_ context.Context, obj client.Object) {
			obj.(*corev1.Namespace).Spec.Finalizers = []corev1.FinalizerName{"kubernetes"}
		},
		PrepareForUpdate: func(_ context.Context, obj, old client.Object) {
			obj.(*corev1.Namespace).Spec = *old.(*corev1.Namespace).Spec.DeepCopy()
		},
		PrepareForDelete: func(_ context.Context, obj client.Object) {
			obj.(*corev1.Namespace).Status.Phase = corev1.NamespaceTerminating
		},
		HoldsRemoval: func(obj client.Object) bool { return len(obj.(*corev1.Namespace).Spec.Finalizers) > 0 },
		Subresources: map[string]*kind.Subresource{"finalize": {Verbs: []string{"update"}}},
	}
	event := &kind.Kind{
		GVK: corev1.SchemeGroupVersion.WithKind("Event"), Resource: "events", Singular: "event", Namespaced: true,
		AllowUnconditionalUpdate: true, TTLSeconds: func(client.Object) int64 { return 3600 },
	}
	deployment := &kind.Kind{
		GVK: appsv1.SchemeGroupVersion.WithKind("Deployment"), Resource: "deployments", Singular: "deployment", Namespaced: true,
		AllowUnconditionalUpdate: true, Status: &kind.Subresource{},
		Default: func(obj client.Object) {
			if d := obj.(*appsv1.Deployment); d.Spec.Replicas == nil {
				d.Spec.Replicas = new(int32)
				*d.Spec.Replicas = 1
			}
		},
		Scale: &kind.Scale{
			Get: func(obj client.Object) (int32, int32, string) {
				d := obj.(*appsv1.Deployment)
				s, _ := metav1.LabelSelectorAsSelector(d.Spec.Selector)
				return *d.Spec.Replicas, d.Status.Replicas, s.String()
			},
			Set: func(obj client.Object, n int32) { obj.(*appsv1.Deployment).Spec.Replicas = &n },
		},
	}
	return []kind.Group{
		{
			Name: "", Versions: []string{"v1"},
			AddToScheme: func(s *runtime.Scheme) error {
				if err := corev1.AddToScheme(s); err != nil {
					return err
				}
				return policyv1.AddToScheme(s)
			},
			Kinds: []*kind.Kind{configMap, pod, node, namespace, event},
			Virtuals: []*kind.Virtual{
				{
					GVK: policyv1.SchemeGroupVersion.WithKind("Eviction"), Resource: "pods", Subresource: "eviction", Namespaced: true,
					Create: func(ctx context.Context, namespace, name string, obj client.Object, dryRun bool) (runtime.Object, error) {
						err := kind.AccessFrom(ctx).Delete(ctx, corev1.SchemeGroupVersion.WithKind("Pod"), namespace, name, metav1.DeleteOptions{})
						return &metav1.Status{Status: metav1.StatusSuccess}, err
					},
				},
				{
					GVK: corev1.SchemeGroupVersion.WithKind("Binding"), Resource: "pods", Subresource: "binding", Namespaced: true,
					Create: func(ctx context.Context, namespace, name string, obj client.Object, dryRun bool) (runtime.Object, error) {
						_, err := kind.AccessFrom(ctx).Update(ctx, corev1.SchemeGroupVersion.WithKind("Pod"), namespace, name, dryRun, func(p client.Object) error {
							p.(*corev1.Pod).Spec.NodeName = obj.(*corev1.Binding).Target.Name
							return nil
						})
						return &metav1.Status{Status: metav1.StatusSuccess}, err
					},
				},
			},
		},
		{
			Name: "apps", Versions: []string{"v1"},
			AddToScheme: func(s *runtime.Scheme) error {
				if err := autoscalingv1.AddToScheme(s); err != nil {
					return err
				}
				return appsv1.AddToScheme(s)
			},
			Kinds: []*kind.Kind{deployment},
		},
	}
}
