package priority

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Name is the name of the plugin.
const Name = "Priority"

// Options of the plugin.
type Options struct{}

// Plugin implements admission.MutationInterface and admission.ValidationInterface.
type Plugin struct {
	*admission.Handler
	classes client.Reader
}

var (
	_ admission.MutationInterface   = (*Plugin)(nil)
	_ admission.ValidationInterface = (*Plugin)(nil)
)

// New returns the plugin, which reads PriorityClasses from reader.
func New(reader client.Reader, _ Options) (*Plugin, error) {
	if reader == nil {
		return nil, errors.New("priority: reader: expected one, got nil")
	}
	return &Plugin{Handler: admission.NewHandler(admission.Create, admission.Update), classes: reader}, nil
}

// Admit implements admission.MutationInterface.
func (p *Plugin) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	r := a.GetResource()
	if a.GetSubresource() == "" && r.Group == schedulingv1.GroupName && r.Resource == "podgroups" && a.GetOperation() == admission.Create {
		return p.admitGroup(ctx, a)
	}
	if a.GetSubresource() != "" || r.Group != "" || r.Resource != "pods" {
		return nil
	}
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok {
		return apierrors.NewBadRequest("resource was marked with kind Pod but was unable to be converted")
	}
	if old, ok := a.GetOldObject().(*corev1.Pod); ok && a.GetOperation() == admission.Update {
		// Clients that do not know the fields leave them out; what was decided at creation stays.
		if pod.Spec.PriorityClassName == old.Spec.PriorityClassName {
			if pod.Spec.Priority == nil {
				pod.Spec.Priority = old.Spec.Priority
			}
			if pod.Spec.PreemptionPolicy == nil {
				pod.Spec.PreemptionPolicy = old.Spec.PreemptionPolicy
			}
		}
		return nil
	}
	return p.admitPod(ctx, a, pod)
}

func (p *Plugin) admitPod(ctx context.Context, a admission.Attributes, pod *corev1.Pod) error {
	name, value, policy, err := p.resolve(ctx, a, pod.Spec.PriorityClassName)
	if err != nil {
		return err
	}
	pod.Spec.PriorityClassName = name
	if pod.Spec.Priority != nil && *pod.Spec.Priority != value {
		return admission.NewForbidden(a, fmt.Errorf("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *pod.Spec.Priority, value))
	}
	pod.Spec.Priority = &value
	if pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy != policy {
		return admission.NewForbidden(a, fmt.Errorf("the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *pod.Spec.PreemptionPolicy, policy))
	}
	pod.Spec.PreemptionPolicy = &policy
	return nil
}

// admitGroup gives a pod group its priority.
func (p *Plugin) admitGroup(ctx context.Context, a admission.Attributes) error {
	group, ok := a.GetObject().(*schedulingv1beta1.PodGroup)
	if !ok {
		return apierrors.NewBadRequest("resource was marked with kind PodGroup but was unable to be converted")
	}
	name, value, _, err := p.resolve(ctx, a, group.Spec.PriorityClassName)
	if err != nil {
		return err
	}
	if group.Spec.Priority != nil && *group.Spec.Priority != value {
		return admission.NewForbidden(a, fmt.Errorf("priority set in the pod group (%d) must match the priority computed (%d) based on the priority class set in the spec", *group.Spec.Priority, value))
	}
	group.Spec.PriorityClassName, group.Spec.Priority = name, &value
	return nil
}

// resolve returns what a class says, or for no name the default class.
func (p *Plugin) resolve(ctx context.Context, a admission.Attributes, name string) (_ string, value int32, policy corev1.PreemptionPolicy, err error) {
	class := &schedulingv1.PriorityClass{}
	if name == "" {
		if class, err = p.defaultClass(ctx); err != nil {
			return "", 0, "", fmt.Errorf("failed to get default priority class: %w", err)
		}
		if class == nil {
			return "", 0, corev1.PreemptLowerPriority, nil
		}
	} else if err := p.classes.Get(ctx, client.ObjectKey{Name: name}, class); err != nil {
		if apierrors.IsNotFound(err) {
			return "", 0, "", admission.NewForbidden(a, fmt.Errorf("no PriorityClass with name %v was found", name))
		}
		return "", 0, "", fmt.Errorf("failed to get PriorityClass with name %s: %w", name, err)
	}
	if class.PreemptionPolicy == nil {
		return class.Name, class.Value, corev1.PreemptLowerPriority, nil
	}
	return class.Name, class.Value, *class.PreemptionPolicy, nil
}

// defaultClass is the global default of the least value; more than one can come from races.
func (p *Plugin) defaultClass(ctx context.Context) (*schedulingv1.PriorityClass, error) {
	var classes schedulingv1.PriorityClassList
	if err := p.classes.List(ctx, &classes); err != nil {
		return nil, err
	}
	var found *schedulingv1.PriorityClass
	for i := range classes.Items {
		if c := &classes.Items[i]; c.GlobalDefault && (found == nil || c.Value < found.Value) {
			found = c
		}
	}
	return found, nil
}

// Validate implements admission.ValidationInterface.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if r := a.GetResource(); a.GetSubresource() != "" || r.Group != schedulingv1.GroupName || r.Resource != "priorityclasses" {
		return nil
	}
	class, ok := a.GetObject().(*schedulingv1.PriorityClass)
	if !ok {
		return apierrors.NewBadRequest("resource was marked with kind PriorityClass but was unable to be converted")
	}
	if !class.GlobalDefault {
		return nil
	}
	existing, err := p.defaultClass(ctx)
	if err != nil {
		return fmt.Errorf("failed to get default priority class: %w", err)
	}
	if existing != nil && existing.Name != class.Name {
		return admission.NewForbidden(a, fmt.Errorf("PriorityClass %v is already marked as default. Only one default can exist", existing.Name))
	}
	return nil
}
