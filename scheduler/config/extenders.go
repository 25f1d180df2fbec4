package config

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	configv1 "k8s.io/kube-scheduler/config/v1"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/extender"
)

// buildExtenders returns also the resources that nodes aren't rejected for. Those extenders that are ignorable come last.
func buildExtenders(from []configv1.Extender) (out []scheduler.Extender, ignored []string, err error) {
	for i := range from {
		c := &from[i]
		opts := extender.Options{
			FilterVerb: c.FilterVerb, PrioritizeVerb: c.PrioritizeVerb, PreemptVerb: c.PreemptVerb, BindVerb: c.BindVerb, Weight: c.Weight,
			HTTPS: c.EnableHTTPS, Timeout: c.HTTPTimeout.Duration, NodeCacheCapable: c.NodeCacheCapable, Ignorable: c.Ignorable,
		}
		if t := c.TLSConfig; t != nil {
			opts.TLS = extender.TLSOptions{
				Insecure: t.Insecure, ServerName: t.ServerName, CertFile: t.CertFile, KeyFile: t.KeyFile, CAFile: t.CAFile,
				CertData: t.CertData, KeyData: t.KeyData, CAData: t.CAData,
			}
		}
		for _, r := range c.ManagedResources {
			opts.ManagedResources = append(opts.ManagedResources, corev1.ResourceName(r.Name))
			if r.IgnoredByScheduler {
				ignored = append(ignored, r.Name)
			}
		}
		x, err := extender.New(c.URLPrefix, opts)
		if err != nil {
			return nil, nil, fmt.Errorf("extenders[%d]: %w", i, err)
		}
		out = append(out, x)
	}
	slices.SortStableFunc(out, func(a, b scheduler.Extender) int {
		switch {
		case a.Ignorable() == b.Ignorable():
			return 0
		case a.Ignorable():
			return 1
		}
		return -1
	})
	return out, ignored, nil
}
