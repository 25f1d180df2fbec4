package defaulttolerationseconds

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
)

// Name is the name of the plugin.
const Name = "DefaultTolerationSeconds"

// Options of the plugin; the zero value has Kubernetes' behaviour.
type Options struct {
	// NotReadySeconds and UnreachableSeconds are how long pods tolerate such nodes. Default: 300.
	NotReadySeconds, UnreachableSeconds *int64
}

// Plugin implements admission.MutationInterface.
type Plugin struct {
	*admission.Handler
	notReady, unreachable int64
}

var _ admission.MutationInterface = (*Plugin)(nil)

// New returns the plugin.
func New(opts Options) (*Plugin, error) {
	p := &Plugin{Handler: admission.NewHandler(admission.Create, admission.Update), notReady: 300, unreachable: 300}
	for _, o := range []struct {
		name string
		from *int64
		to   *int64
	}{{"NotReadySeconds", opts.NotReadySeconds, &p.notReady}, {"UnreachableSeconds", opts.UnreachableSeconds, &p.unreachable}} {
		if o.from == nil {
			continue
		}
		if *o.from < 0 {
			return nil, fmt.Errorf("defaulttolerationseconds: Options.%s: expected 0 or more seconds, got %d", o.name, *o.from)
		}
		*o.to = *o.from
	}
	return p, nil
}

// Admit implements admission.MutationInterface.
func (p *Plugin) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if r := a.GetResource(); r.Group != "" || r.Resource != "pods" || a.GetSubresource() != "" {
		return nil
	}
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("expected *v1.Pod but got %T", a.GetObject()))
	}
	add := func(taint string, seconds int64) {
		for _, t := range pod.Spec.Tolerations {
			if (t.Key == taint || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "") {
				return
			}
		}
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
			Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds,
		})
	}
	add(corev1.TaintNodeNotReady, p.notReady)
	add(corev1.TaintNodeUnreachable, p.unreachable)
	return nil
}
