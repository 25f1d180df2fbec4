package apiserver

import (
	"k8s.io/apiserver/pkg/admission"

	kadmission "github.com/keelson/keelson/apiserver/admission"
)

// admission returns the chain of the default plugins and the caller's, less those that are off.
func (s *Server) admission() (admission.Interface, error) {
	plugins, err := kadmission.Default(kadmission.Deps{Reader: s.reader, Authorizer: s.authorizer, Clock: s.opts.Clock})
	if err != nil {
		return nil, err
	}
	return kadmission.NewChain(append(plugins, s.opts.Admission...), kadmission.ChainOptions{
		On: s.opts.EnableAdmission, Off: s.opts.DisableAdmission,
	})
}
