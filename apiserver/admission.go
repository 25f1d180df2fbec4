package apiserver

import (
	"fmt"
	"slices"

	"k8s.io/apiserver/pkg/admission"

	"github.com/keelson/keelson/apiserver/kind"
)

// plugin is an admission plugin by the name it is disabled by.
type plugin struct {
	name string
	make func() (admission.Interface, error)
}

// plugins are those of a server, in the order they are asked.
func (s *Server) plugins() []plugin { return nil }

// admission returns the chain of plugins that are not disabled.
func (s *Server) admission() (admission.Interface, error) {
	all := s.plugins()
	for _, name := range s.opts.DisableAdmission {
		if !slices.ContainsFunc(all, func(p plugin) bool { return p.name == name }) {
			var names []string
			for _, p := range all {
				names = append(names, p.name)
			}
			return nil, fmt.Errorf("Options.DisableAdmission: %q: expected one of %v", name, names)
		}
	}
	var chain []admission.Interface
	for _, p := range all {
		if slices.Contains(s.opts.DisableAdmission, p.name) {
			continue
		}
		i, err := p.make()
		if err != nil {
			return nil, fmt.Errorf("admission plugin %s: %w", p.name, err)
		}
		chain = append(chain, i)
	}
	if len(chain) == 0 {
		return nil, nil
	}
	return admission.NewChainHandler(chain...), nil
}

func (s *Server) groups() ([]kind.Group, error) {
	return mergeGroups(DefaultGroups(GroupOptions{
		AllowLoopback: s.opts.unprivileged(), EventTTL: s.opts.EventTTL, Clock: s.opts.Clock, Authorizer: s.authorizer,
	}), s.opts.Groups), nil
}
