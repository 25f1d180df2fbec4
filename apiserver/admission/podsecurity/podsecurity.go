package podsecurity

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Name is the name of the plugin.
const Name = "PodSecurity"

// Options of the plugin; the zero value is privileged for namespaces without labels, and exempts nobody.
type Options struct {
	// Defaults hold for namespaces whose labels say nothing.
	Defaults api.Policy
	// Usernames, Namespaces and RuntimeClasses are exempt.
	Usernames, Namespaces, RuntimeClasses []string
}

// Plugin implements admission.ValidationInterface.
type Plugin struct {
	*admission.Handler
	objects   client.Reader
	opts      Options
	evaluator policy.Evaluator
}

var _ admission.ValidationInterface = (*Plugin)(nil)

// New returns the plugin, which reads Namespaces and Pods from reader.
func New(reader client.Reader, opts Options) (*Plugin, error) {
	if reader == nil {
		return nil, errors.New("podsecurity: reader: expected one, got nil")
	}
	for _, m := range []struct {
		name string
		lv   *api.LevelVersion
	}{{"Enforce", &opts.Defaults.Enforce}, {"Audit", &opts.Defaults.Audit}, {"Warn", &opts.Defaults.Warn}} {
		if m.lv.Level == "" {
			*m.lv = api.LevelVersion{Level: api.LevelPrivileged, Version: api.LatestVersion()}
		}
		if !m.lv.Level.Valid() {
			return nil, fmt.Errorf("podsecurity: Options.Defaults.%s.Level: expected privileged, baseline or restricted, got %q", m.name, m.lv.Level)
		}
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, fmt.Errorf("podsecurity: %w", err)
	}
	return &Plugin{Handler: admission.NewHandler(admission.Create, admission.Update), objects: reader, opts: opts, evaluator: evaluator}, nil
}

// Validate implements admission.ValidationInterface.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	switch obj := a.GetObject().(type) {
	case *corev1.Namespace:
		if a.GetSubresource() == "" {
			return p.namespace(ctx, a, obj)
		}
	case *corev1.Pod:
		return p.pod(ctx, a, obj)
	default:
		if meta, spec := template(obj); spec != nil && a.GetSubresource() == "" {
			return p.controller(ctx, a, meta, spec)
		}
	}
	return nil
}

// template returns the pod template of workloads.
func template(obj runtime.Object) (*metav1.ObjectMeta, *corev1.PodSpec) {
	var t *corev1.PodTemplateSpec
	switch o := obj.(type) {
	case *corev1.PodTemplate:
		t = &o.Template
	case *corev1.ReplicationController:
		t = o.Spec.Template
	case *appsv1.ReplicaSet:
		t = &o.Spec.Template
	case *appsv1.Deployment:
		t = &o.Spec.Template
	case *appsv1.DaemonSet:
		t = &o.Spec.Template
	case *appsv1.StatefulSet:
		t = &o.Spec.Template
	case *batchv1.Job:
		t = &o.Spec.Template
	case *batchv1.CronJob:
		t = &o.Spec.JobTemplate.Spec.Template
	}
	if t == nil {
		return nil, nil
	}
	return &t.ObjectMeta, &t.Spec
}

func (p *Plugin) policyOf(ctx context.Context, namespace string) (api.Policy, field.ErrorList, error) {
	var ns corev1.Namespace
	if err := p.objects.Get(ctx, client.ObjectKey{Name: namespace}, &ns); err != nil {
		return api.Policy{}, nil, apierrors.NewInternalError(fmt.Errorf("failed to lookup namespace %q: %w", namespace, err))
	}
	result, errs := api.PolicyToEvaluate(ns.Labels, p.opts.Defaults)
	return result, errs, nil
}

func (p *Plugin) exempt(a admission.Attributes, spec *corev1.PodSpec) bool {
	switch {
	case slices.Contains(p.opts.Namespaces, a.GetNamespace()):
		audit(a, api.ExemptionReasonAnnotationKey, "namespace")
	case a.GetUserInfo() != nil && slices.Contains(p.opts.Usernames, a.GetUserInfo().GetName()):
		audit(a, api.ExemptionReasonAnnotationKey, "user")
	case spec != nil && spec.RuntimeClassName != nil && slices.Contains(p.opts.RuntimeClasses, *spec.RuntimeClassName):
		audit(a, api.ExemptionReasonAnnotationKey, "runtimeClass")
	default:
		return false
	}
	return true
}

func audit(a admission.Attributes, key, value string) {
	// Only a key that is malformed or there already is an error.
	_ = a.AddAnnotation(api.AuditAnnotationPrefix+key, value)
}

func (p *Plugin) pod(ctx context.Context, a admission.Attributes, pod *corev1.Pod) error {
	switch a.GetSubresource() {
	case "", "ephemeralcontainers", "resize":
	default:
		return nil
	}
	if p.exempt(a, &pod.Spec) {
		return nil
	}
	chosen, errs, err := p.policyOf(ctx, a.GetNamespace())
	if err != nil {
		return err
	}
	if len(errs) == 0 && chosen.FullyPrivileged() {
		return nil
	}
	if old, ok := a.GetOldObject().(*corev1.Pod); ok && a.GetOperation() == admission.Update && !significant(pod, old) {
		return nil
	}
	return p.evaluate(ctx, a, chosen, errs, &pod.ObjectMeta, &pod.Spec, true)
}

func (p *Plugin) controller(ctx context.Context, a admission.Attributes, meta *metav1.ObjectMeta, spec *corev1.PodSpec) error {
	if p.exempt(a, spec) {
		return nil
	}
	chosen, errs, err := p.policyOf(ctx, a.GetNamespace())
	if err != nil {
		return err
	}
	if len(errs) == 0 && chosen.Warn.Level == api.LevelPrivileged && chosen.Audit.Level == api.LevelPrivileged {
		return nil
	}
	return p.evaluate(ctx, a, chosen, errs, meta, spec, false)
}

func (p *Plugin) evaluate(ctx context.Context, a admission.Attributes, chosen api.Policy, errs field.ErrorList, meta *metav1.ObjectMeta, spec *corev1.PodSpec, enforce bool) error {
	if len(errs) > 0 {
		audit(a, "error", fmt.Sprintf("failed to parse policy: %v", errs.ToAggregate()))
	}
	known := map[api.LevelVersion]policy.AggregateCheckResult{}
	check := func(lv api.LevelVersion) policy.AggregateCheckResult {
		r, ok := known[lv]
		if !ok {
			r = policy.AggregateCheckResults(p.evaluator.EvaluatePod(lv, meta, spec))
			known[lv] = r
		}
		return r
	}
	var refused error
	if enforce {
		audit(a, api.EnforcedPolicyAnnotationKey, chosen.Enforce.String())
		if r := check(chosen.Enforce); !r.Allowed {
			text := fmt.Sprintf("violates PodSecurity %q: %s", chosen.Enforce.String(), r.ForbiddenDetail())
			if len(errs) > 0 {
				text += fmt.Sprintf(" (failed to parse policy: %v)", errs.ToAggregate())
			}
			refused = apierrors.NewForbidden(a.GetResource().GroupResource(), a.GetName(), errors.New(text))
		}
	}
	if r := check(chosen.Audit); !r.Allowed {
		audit(a, api.AuditViolationsAnnotationKey, fmt.Sprintf("would violate PodSecurity %q: %s", chosen.Audit.String(), r.ForbiddenDetail()))
	}
	if refused != nil {
		return refused
	}
	if r := check(chosen.Warn); !r.Allowed {
		warning.AddWarning(ctx, "", fmt.Sprintf("would violate PodSecurity %q: %s", chosen.Warn.String(), r.ForbiddenDetail()))
	}
	return nil
}

// significant tells updates of a pod that matter: the rest of what checks look at cannot change.
func significant(pod, old *corev1.Pod) bool {
	image := func(list []corev1.Container, i int) string { return list[i].Image }
	for _, pair := range [][2][]corev1.Container{{pod.Spec.Containers, old.Spec.Containers}, {pod.Spec.InitContainers, old.Spec.InitContainers}} {
		if len(pair[0]) != len(pair[1]) {
			return true
		}
		for i := range pair[0] {
			if image(pair[0], i) != image(pair[1], i) {
				return true
			}
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		c := &pod.Spec.EphemeralContainers[i]
		same := func(o corev1.EphemeralContainer) bool { return o.Name == c.Name && o.Image == c.Image }
		if !slices.ContainsFunc(old.Spec.EphemeralContainers, same) {
			return true
		}
	}
	return false
}

func (p *Plugin) namespace(ctx context.Context, a admission.Attributes, ns *corev1.Namespace) error {
	now, errs := api.PolicyToEvaluate(ns.Labels, p.opts.Defaults)
	invalid := func() error {
		return apierrors.NewInvalid(a.GetKind().GroupKind(), ns.Name, errs)
	}
	old, ok := a.GetOldObject().(*corev1.Namespace)
	if a.GetOperation() == admission.Create || !ok {
		if len(errs) > 0 {
			return invalid()
		}
		return nil
	}
	before, oldErrs := api.PolicyToEvaluate(old.Labels, p.opts.Defaults)
	if len(errs) > 0 && (len(oldErrs) == 0 || !reflect.DeepEqual(errs, oldErrs)) {
		return invalid()
	}
	if now.Enforce == before.Enforce || now.Enforce.Level == api.LevelPrivileged || slices.Contains(p.opts.Namespaces, ns.Name) ||
		(now.Enforce.Version == before.Enforce.Version && api.CompareLevels(now.Enforce.Level, before.Enforce.Level) < 1) {
		return nil
	}
	for _, w := range p.existing(ctx, ns.Name, now.Enforce) {
		warning.AddWarning(ctx, "", w)
	}
	return nil
}

const maxPodsToCheck = 3000

// existing warns of the pods that a stricter level would not let in any more, one line a kind of violation.
func (p *Plugin) existing(ctx context.Context, namespace string, enforce api.LevelVersion) []string {
	var pods corev1.PodList
	if err := p.objects.List(ctx, &pods, client.InNamespace(namespace)); err != nil {
		return []string{"failed to list pods while checking new PodSecurity enforce level"}
	}
	type group struct {
		first string
		count int
	}
	var warnings []string
	if len(pods.Items) > maxPodsToCheck {
		warnings = append(warnings, fmt.Sprintf("new PodSecurity enforce level only checked against the first %d of %d existing pods", maxPodsToCheck, len(pods.Items)))
		pods.Items = pods.Items[:maxPodsToCheck]
	}
	groups := map[string]group{}
	for i := range pods.Items {
		pod := &pods.Items[i]
		r := policy.AggregateCheckResults(p.evaluator.EvaluatePod(enforce, &pod.ObjectMeta, &pod.Spec))
		if r.Allowed || (pod.Spec.RuntimeClassName != nil && slices.Contains(p.opts.RuntimeClasses, *pod.Spec.RuntimeClassName)) {
			continue
		}
		g := groups[r.ForbiddenReason()]
		if g.count == 0 || pod.Name < g.first {
			g.first = pod.Name
		}
		g.count++
		groups[r.ForbiddenReason()] = g
	}
	if len(groups) == 0 {
		return warnings
	}
	warnings = append(warnings, fmt.Sprintf("existing pods in namespace %q violate the new PodSecurity enforce level %q", namespace, enforce.String()))
	var lines []string
	for reason, g := range groups {
		switch g.count {
		case 1:
			lines = append(lines, fmt.Sprintf("%s: %s", g.first, reason))
		case 2:
			lines = append(lines, fmt.Sprintf("%s (and 1 other pod): %s", g.first, reason))
		default:
			lines = append(lines, fmt.Sprintf("%s (and %d other pods): %s", g.first, g.count-1, reason))
		}
	}
	slices.Sort(lines)
	return append(warnings, lines...)
}
