package apiserver

import (
	"k8s.io/apiserver/pkg/admission"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kadmission "github.com/keelson/keelson/apiserver/admission"
)

// admission returns the chain of the default plugins and the caller's, less those that are off.
func (s *Server) admission() (admission.Interface, error) {
	plugins, err := kadmission.Default(kadmission.Deps{Reader: s.reader, Client: s.self, Authorizer: s.authorizer, Clock: s.opts.Clock})
	if err != nil {
		return nil, err
	}
	return kadmission.NewChain(append(plugins, s.opts.Admission...), kadmission.ChainOptions{
		On: s.opts.EnableAdmission, Off: s.opts.DisableAdmission,
	})
}

// lateClient is a client for parts that are made before the core is; New sets it before anything can call it.
type lateClient struct{ client.Client }
