package admission

import (
	"errors"
	"fmt"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/admission/defaulttolerationseconds"
	"github.com/keelson/keelson/apiserver/admission/limitranger"
	"github.com/keelson/keelson/apiserver/admission/namespacelifecycle"
	"github.com/keelson/keelson/apiserver/admission/priority"
	"github.com/keelson/keelson/apiserver/admission/serviceaccount"
)

// Deps is what the default plugins need.
type Deps struct {
	// Reader reads the objects that plugins look at, as the server. It may lag behind. Required.
	Reader client.Reader
	// Live reads what Reader does not have yet. Default: Reader.
	Live client.Reader
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
		p, err := priority.New(r, priority.Options{})
		add(priority.Name, p, err)
	}
	{
		p, err := defaulttolerationseconds.New(defaulttolerationseconds.Options{})
		add(defaulttolerationseconds.Name, p, err)
	}
	return plugins, errors.Join(errs...)
}
