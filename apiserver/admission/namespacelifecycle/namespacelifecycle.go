package namespacelifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Name is the name of the plugin.
const Name = "NamespaceLifecycle"

// Options of the plugin; the zero value has Kubernetes' behaviour.
type Options struct {
	// Live reads Namespaces that the plugin's reader does not have (yet). Default: the same reader.
	Live client.Reader
	// Immortal are the namespaces that cannot be deleted. Default: default, kube-system, kube-public.
	Immortal []string
}

// Plugin implements admission.MutationInterface.
type Plugin struct {
	*admission.Handler
	namespaces, live client.Reader
	immortal         []string
}

var _ admission.MutationInterface = (*Plugin)(nil)

// New returns the plugin, which reads Namespaces from reader.
func New(reader client.Reader, opts Options) (*Plugin, error) {
	if reader == nil {
		return nil, errors.New("namespacelifecycle: reader: expected one, got nil")
	}
	p := &Plugin{
		Handler:    admission.NewHandler(admission.Create, admission.Update, admission.Delete),
		namespaces: reader, live: opts.Live, immortal: opts.Immortal,
	}
	if p.immortal == nil {
		p.immortal = []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic}
	}
	return p, nil
}

// Admit implements admission.MutationInterface; it changes nothing.
func (p *Plugin) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	isNamespace := a.GetKind().Group == "" && a.GetKind().Kind == "Namespace"
	if a.GetOperation() == admission.Delete && isNamespace && slices.Contains(p.immortal, a.GetName()) {
		return apierrors.NewForbidden(a.GetResource().GroupResource(), a.GetName(), errors.New("this namespace may not be deleted"))
	}
	if a.GetNamespace() == "" || isNamespace || a.GetOperation() == admission.Delete || isAccessReview(a) {
		return nil
	}
	namespace, err := p.find(ctx, a.GetNamespace())
	if err != nil {
		return err
	}
	if a.GetOperation() != admission.Create || namespace.Status.Phase != corev1.NamespaceTerminating {
		return nil
	}
	forbidden := admission.NewForbidden(a, fmt.Errorf("unable to create new content in namespace %s because it is being terminated", a.GetNamespace()))
	var status *apierrors.StatusError
	if errors.As(forbidden, &status) && status.ErrStatus.Details != nil {
		status.ErrStatus.Details.Causes = append(status.ErrStatus.Details.Causes, metav1.StatusCause{
			Type: corev1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", a.GetNamespace()), Field: "metadata.namespace",
		})
	}
	return forbidden
}

func (p *Plugin) find(ctx context.Context, name string) (*corev1.Namespace, error) {
	var namespace corev1.Namespace
	err := p.namespaces.Get(ctx, client.ObjectKey{Name: name}, &namespace)
	if apierrors.IsNotFound(err) && p.live != nil {
		err = p.live.Get(ctx, client.ObjectKey{Name: name}, &namespace)
	}
	switch {
	case err == nil:
		return &namespace, nil
	case apierrors.IsNotFound(err):
		return nil, err
	default:
		return nil, apierrors.NewInternalError(err)
	}
}

// isAccessReview tells questions about a namespace, which may be asked of one that is not there.
func isAccessReview(a admission.Attributes) bool {
	r := a.GetResource()
	return r.Group == "authorization.k8s.io" && r.Resource == "localsubjectaccessreviews"
}
