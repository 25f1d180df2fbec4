package resourcequota

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/admission/resourcequota/usage"
)

// Name is the name of the plugin.
const Name = "ResourceQuota"

const (
	attempts = 10
)

// Options of the plugin.
type Options struct {
	// Live reads the newest ResourceQuotas after a conflict. Default: the client.
	Live client.Reader
	// Clock tells pods that are long to be gone. Default: the real one.
	Clock clock.PassiveClock
}

// Plugin implements admission.ValidationInterface.
type Plugin struct {
	*admission.Handler
	client client.Client
	live   client.Reader
	clock  clock.PassiveClock

	// Requests of one namespace take turns, so that they do not make each other's compare-and-set fail.
	mu    sync.Mutex
	turns map[string]*turn
}

type turn struct {
	sync.Mutex
	waiting int
}

var _ admission.ValidationInterface = (*Plugin)(nil)

// New returns the plugin, which reads ResourceQuotas and what they count with c, and writes their status.
func New(c client.Client, opts Options) (*Plugin, error) {
	if c == nil {
		return nil, errors.New("resourcequota: client: expected one, got nil")
	}
	if opts.Live == nil {
		opts.Live = c
	}
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	return &Plugin{Handler: admission.NewHandler(admission.Create, admission.Update), client: c, live: opts.Live, clock: opts.Clock, turns: map[string]*turn{}}, nil
}

// counts tells the requests that change what is used.
func counts(a admission.Attributes) bool {
	if a.GetNamespace() == "" || a.GetKind().GroupKind() == (schema.GroupKind{Kind: "Namespace"}) {
		return false
	}
	gr := a.GetResource().GroupResource()
	if a.GetOperation() == admission.Create {
		return a.GetSubresource() == ""
	}
	switch gr {
	case usage.Pods:
		return a.GetSubresource() == "resize"
	case usage.Services, usage.Claims:
		return a.GetSubresource() == ""
	default:
		return false
	}
}

// Validate implements admission.ValidationInterface. It writes what the request uses into the status of quotas, unless the request is a dry run.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !counts(a) {
		return nil
	}
	obj, ok := a.GetObject().(client.Object)
	if !ok {
		return nil
	}
	var quotas corev1.ResourceQuotaList
	if err := p.client.List(ctx, &quotas, client.InNamespace(a.GetNamespace())); err != nil {
		return admission.NewForbidden(a, fmt.Errorf("error resolving quota: %w", err))
	}
	if len(quotas.Items) == 0 {
		return nil
	}
	gr := a.GetResource().GroupResource()
	use := usage.Of(gr, obj, p.clock.Now())
	var before client.Object
	if a.GetOperation() == admission.Update {
		if before, ok = a.GetOldObject().(client.Object); !ok {
			return nil
		}
		use = increase(use, usage.Of(gr, before, p.clock.Now()))
		if len(use) == 0 {
			return nil
		}
	}
	done := p.takeTurn(a.GetNamespace())
	defer done()
	slices.SortFunc(quotas.Items, func(x, y corev1.ResourceQuota) int { return strings.Compare(x.Name, y.Name) })
	// All quotas are looked at before the first is written, so that a request that one of them refuses rarely leaves a trace in another.
	for _, dry := range []bool{true, a.IsDryRun()} {
		for i := range quotas.Items {
			if err := p.charge(ctx, a, &quotas.Items[i], obj, use, dry); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Plugin) takeTurn(namespace string) (done func()) {
	p.mu.Lock()
	t := p.turns[namespace]
	if t == nil {
		t = &turn{}
		p.turns[namespace] = t
	}
	t.waiting++
	p.mu.Unlock()
	t.Lock()
	return func() {
		t.Unlock()
		p.mu.Lock()
		defer p.mu.Unlock()
		if t.waiting--; t.waiting == 0 {
			delete(p.turns, namespace)
		}
	}
}

// charge adds use to one quota, if it counts obj and has enough left.
func (p *Plugin) charge(ctx context.Context, a admission.Attributes, listed *corev1.ResourceQuota, obj client.Object, use corev1.ResourceList, dry bool) error {
	matched, err := usage.Matches(listed, obj)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("error matching scopes of quota %s: %w", listed.Name, err))
	}
	if !matched {
		return nil
	}
	relevant := corev1.ResourceList{}
	for name, q := range use {
		if _, bounded := listed.Spec.Hard[name]; bounded && !q.IsZero() {
			relevant[name] = q
		}
	}
	if pod, ok := obj.(*corev1.Pod); ok && (a.GetOperation() == admission.Create || a.GetSubresource() == "resize") {
		if err := usage.Missing(pod, listed.Spec.Hard); err != nil {
			return admission.NewForbidden(a, fmt.Errorf("failed quota: %s: %w", listed.Name, err))
		}
	}
	if len(relevant) == 0 {
		return nil
	}
	key := client.ObjectKeyFromObject(listed)
	for range attempts {
		// Turns were taken since the list was read.
		var quota corev1.ResourceQuota
		if err := p.live.Get(ctx, key, &quota); err != nil {
			if apierrors.IsNotFound(err) {
				return nil
			}
			return apierrors.NewInternalError(err)
		}
		used, err := p.used(ctx, &quota, relevant)
		if err != nil {
			return apierrors.NewInternalError(err)
		}
		if err := exceeds(&quota, used, relevant); err != nil {
			return admission.NewForbidden(a, err)
		}
		if dry {
			return nil
		}
		next := quota.DeepCopy()
		next.Status.Hard = quota.Spec.Hard.DeepCopy()
		next.Status.Used = used
		for name, q := range relevant {
			sum := used[name].DeepCopy()
			sum.Add(q)
			next.Status.Used[name] = sum
		}
		switch err := p.client.Status().Update(ctx, next); {
		case err == nil:
			return nil
		case apierrors.IsNotFound(err):
			return nil
		case !apierrors.IsConflict(err):
			return apierrors.NewInternalError(err)
		}
	}
	return apierrors.NewConflict(corev1.Resource("resourcequotas"), listed.Name, errors.New("the object has been modified; please apply your changes to the latest version and try again"))
}

// used is the use in a quota's status, or, where the status does not have what is needed, the use that is counted.
func (p *Plugin) used(ctx context.Context, quota *corev1.ResourceQuota, needed corev1.ResourceList) (corev1.ResourceList, error) {
	complete := true
	for name := range needed {
		_, ok := quota.Status.Used[name]
		complete = complete && ok
	}
	if complete {
		return quota.Status.Used.DeepCopy(), nil
	}
	counted, err := usage.Count(ctx, usage.FromClient(p.client), quota, p.clock.Now())
	if err != nil {
		return nil, err
	}
	for name, q := range quota.Status.Used {
		if _, bounded := quota.Spec.Hard[name]; bounded {
			counted[name] = q
		}
	}
	return counted, nil
}

// exceeds returns the error of a quota that has not enough left.
func exceeds(quota *corev1.ResourceQuota, used, requested corev1.ResourceList) error {
	var over []corev1.ResourceName
	for name, q := range requested {
		sum := used[name].DeepCopy()
		sum.Add(q)
		if limit := quota.Spec.Hard[name]; sum.Cmp(limit) > 0 {
			over = append(over, name)
		}
	}
	if len(over) == 0 {
		return nil
	}
	slices.Sort(over)
	return fmt.Errorf("exceeded quota: %s, requested: %s, used: %s, limited: %s", quota.Name, text(requested, over), text(used, over), text(quota.Spec.Hard, over))
}

func text(list corev1.ResourceList, names []corev1.ResourceName) string {
	parts := make([]string, len(names))
	for i, n := range names {
		q := list[n]
		parts[i] = string(n) + "=" + q.String()
	}
	return strings.Join(parts, ",")
}

// increase is what is used more than before; what is used less is left to the resourcequota controller.
func increase(now, before corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for name, q := range now {
		more := q.DeepCopy()
		more.Sub(quantityOf(before, name))
		if more.Sign() > 0 {
			out[name] = more
		}
	}
	return out
}

func quantityOf(list corev1.ResourceList, name corev1.ResourceName) resource.Quantity {
	return list[name]
}
