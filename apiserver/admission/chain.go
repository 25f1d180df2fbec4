package admission

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
)

// Plugin is an admission plugin and the name by which it is switched on and off.
type Plugin struct {
	Name string
	// Interface implements admission.MutationInterface, admission.ValidationInterface, or both.
	Interface admission.Interface
	// Off has the plugin run only if ChainOptions.On names it.
	Off bool
}

// ChainOptions choose plugins by name. A name that no plugin has is an error, and so is one in both lists.
type ChainOptions struct {
	On, Off []string
}

// Chain runs plugins one after the other: first all that mutate, and in its Validate all that validate. It is immutable.
type Chain struct {
	names     []string
	mutating  map[admission.Operation][]admission.MutationInterface
	validates map[admission.Operation][]admission.ValidationInterface
}

var (
	_ admission.MutationInterface   = (*Chain)(nil)
	_ admission.ValidationInterface = (*Chain)(nil)
)

// NewChain returns the chain of those plugins that are on, in their order.
func NewChain(plugins []Plugin, opts ChainOptions) (*Chain, error) {
	var known []string
	for _, p := range plugins {
		if p.Interface == nil {
			return nil, fmt.Errorf("admission: plugin %q: expected an implementation, got nil", p.Name)
		}
		if slices.Contains(known, p.Name) {
			return nil, fmt.Errorf("admission: plugin %q is there twice", p.Name)
		}
		known = append(known, p.Name)
	}
	for _, list := range []struct {
		field string
		names []string
	}{{"On", opts.On}, {"Off", opts.Off}} {
		for _, name := range list.names {
			if !slices.Contains(known, name) {
				return nil, fmt.Errorf("admission: ChainOptions.%s: expected one of %v, got %q", list.field, known, name)
			}
		}
	}
	for _, name := range opts.On {
		if slices.Contains(opts.Off, name) {
			return nil, fmt.Errorf("admission: ChainOptions: plugin %q is both in On and in Off", name)
		}
	}
	c := &Chain{
		mutating:  map[admission.Operation][]admission.MutationInterface{},
		validates: map[admission.Operation][]admission.ValidationInterface{},
	}
	for _, p := range plugins {
		if slices.Contains(opts.Off, p.Name) || (p.Off && !slices.Contains(opts.On, p.Name)) {
			continue
		}
		c.names = append(c.names, p.Name)
		m, _ := p.Interface.(admission.MutationInterface)
		v, _ := p.Interface.(admission.ValidationInterface)
		for _, op := range []admission.Operation{admission.Create, admission.Update, admission.Delete, admission.Connect} {
			if !p.Interface.Handles(op) {
				continue
			}
			if m != nil {
				c.mutating[op] = append(c.mutating[op], m)
			}
			if v != nil {
				c.validates[op] = append(c.validates[op], v)
			}
		}
	}
	return c, nil
}

// Names returns the names of the plugins that run, in order.
func (c *Chain) Names() []string { return slices.Clone(c.names) }

// Handles implements admission.Interface.
func (c *Chain) Handles(op admission.Operation) bool {
	return len(c.mutating[op]) > 0 || len(c.validates[op]) > 0
}

// Admit implements admission.MutationInterface; the first error ends it.
func (c *Chain) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	for _, p := range c.mutating[a.GetOperation()] {
		if err := p.Admit(ctx, a, o); err != nil {
			return err
		}
	}
	return nil
}

// Validate implements admission.ValidationInterface; the first error ends it.
func (c *Chain) Validate(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	for _, p := range c.validates[a.GetOperation()] {
		if err := p.Validate(ctx, a, o); err != nil {
			return err
		}
	}
	return nil
}

// Late stands for a Chain that is made later than what uses it. Until Set, it refuses every request with a ServiceUnavailable
// error. The zero value is usable.
type Late struct{ chain atomic.Pointer[Chain] }

var (
	_ admission.MutationInterface   = (*Late)(nil)
	_ admission.ValidationInterface = (*Late)(nil)
)

// Set gives the chain; it may be called again.
func (l *Late) Set(c *Chain) { l.chain.Store(c) }

// Handles implements admission.Interface.
func (l *Late) Handles(op admission.Operation) bool {
	c := l.chain.Load()
	return c == nil || c.Handles(op)
}

// Admit implements admission.MutationInterface.
func (l *Late) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	c := l.chain.Load()
	if c == nil {
		return apierrors.NewServiceUnavailable(notReady)
	}
	return c.Admit(ctx, a, o)
}

// Validate implements admission.ValidationInterface.
func (l *Late) Validate(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	c := l.chain.Load()
	if c == nil {
		return apierrors.NewServiceUnavailable(notReady)
	}
	return c.Validate(ctx, a, o)
}

const notReady = "admission plugins are not ready"
