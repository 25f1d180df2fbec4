package admission

import (
	"errors"
	"fmt"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/admission/certificates"
	"github.com/keelson/keelson/apiserver/admission/defaultingressclass"
	"github.com/keelson/keelson/apiserver/admission/defaultstorageclass"
	"github.com/keelson/keelson/apiserver/admission/defaulttolerationseconds"
	"github.com/keelson/keelson/apiserver/admission/limitranger"
	"github.com/keelson/keelson/apiserver/admission/namespacelifecycle"
	"github.com/keelson/keelson/apiserver/admission/noderestriction"
	"github.com/keelson/keelson/apiserver/admission/podsecurity"
	"github.com/keelson/keelson/apiserver/admission/priority"
	"github.com/keelson/keelson/apiserver/admission/resize"
	"github.com/keelson/keelson/apiserver/admission/resourcequota"
	"github.com/keelson/keelson/apiserver/admission/runtimeclass"
	"github.com/keelson/keelson/apiserver/admission/serviceaccount"
	"github.com/keelson/keelson/apiserver/admission/taintnodes"
)

// Deps is what the default plugins need.
type Deps struct {
	// Reader reads the objects that plugins look at, as the server. It may lag behind. Required.
	Reader client.Reader
	// Live reads what Reader does not have yet. Default: Reader.
	Live client.Reader
	// Client writes the status of ResourceQuotas, as the server. Without it the plugin ResourceQuota is left out.
	Client client.Client
	// Authorizer answers the plugins that guard approving and signing certificates. Without it those are left out.
	Authorizer authorizer.UnconditionalAuthorizer
	// Clock is the time. Default: the real one.
	Clock clock.Clock
}

// Default returns the plugins that run by default, in the order of kube-apiserver.
func Default(deps Deps) ([]Plugin, error) {
	if deps.Reader == nil {
		return nil, errors.New("admission: Deps.Reader: expected a reader, got nil")
	}
	var plugins []Plugin
	var errs []error
	add := func(name string, p admission.Interface, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("admission: plugin %s: %w", name, err))
			return
		}
		plugins = append(plugins, Plugin{Name: name, Interface: p})
	}
	r := deps.Reader
	{
		p, err := namespacelifecycle.New(r, namespacelifecycle.Options{Live: deps.Live})
		add(namespacelifecycle.Name, p, err)
	}
	{
		p, err := limitranger.New(r, limitranger.Options{})
		add(limitranger.Name, p, err)
	}
	{
		p, err := serviceaccount.New(r, serviceaccount.Options{Live: deps.Live, Clock: deps.Clock})
		add(serviceaccount.Name, p, err)
	}
	{
		p, err := noderestriction.New(r, noderestriction.Options{})
		add(noderestriction.Name, p, err)
	}
	add(taintnodes.Name, taintnodes.New(), nil)
	{
		p, err := podsecurity.New(r, podsecurity.Options{})
		add(podsecurity.Name, p, err)
	}
	{
		p, err := priority.New(r, priority.Options{})
		add(priority.Name, p, err)
	}
	{
		p, err := defaulttolerationseconds.New(defaulttolerationseconds.Options{})
		add(defaulttolerationseconds.Name, p, err)
	}
	{
		p, err := defaultstorageclass.New(r, defaultstorageclass.Options{})
		add(defaultstorageclass.Name, p, err)
	}
	{
		p, err := resize.New(r, resize.Options{})
		add(resize.Name, p, err)
	}
	{
		p, err := runtimeclass.New(r, runtimeclass.Options{})
		add(runtimeclass.Name, p, err)
	}
	if deps.Authorizer != nil {
		approval, err := certificates.NewApproval(deps.Authorizer)
		add(certificates.ApprovalName, approval, err)
		signing, err := certificates.NewSigning(deps.Authorizer)
		add(certificates.SigningName, signing, err)
	}
	add(certificates.SubjectRestrictionName, certificates.NewSubjectRestriction(), nil)
	{
		p, err := defaultingressclass.New(r, defaultingressclass.Options{})
		add(defaultingressclass.Name, p, err)
	}
	if deps.Client != nil {
		// Last, so that nothing is charged for a request that another plugin refuses.
		p, err := resourcequota.New(deps.Client, resourcequota.Options{Live: deps.Live})
		add(resourcequota.Name, p, err)
	}
	return plugins, errors.Join(errs...)
}
