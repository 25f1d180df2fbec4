package apiserver

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/keelson/keelson/apiserver/auth/rbac"
	"github.com/keelson/keelson/apiserver/internal/core"
	"github.com/keelson/keelson/apiserver/kinds/scheduling"
)

// kubernetesService is the name of the Service by which pods find the API server.
const kubernetesService = "kubernetes"

// bootstrap makes what a cluster begins with, as far as its kinds are served, and brings it up to date.
func (s *Server) bootstrap(ctx context.Context, advertise netip.AddrPort) error {
	if err := s.core.WaitReady(ctx); err != nil {
		return err
	}
	ctx = core.WithoutManagedFields(ctx)
	c := s.Client(self)
	var group errgroup.Group
	for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease} {
		group.Go(func() error {
			return s.ensure(ctx, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, nil)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if s.rbac != nil {
		group.Go(func() error {
			if !s.serves(&corev1.Namespace{}) || !s.serves(&rbacv1.ClusterRole{}) {
				return nil
			}
			if err := rbac.Reconcile(ctx, c, rbac.BootstrapPolicy(rbac.BootstrapOptions{})); err != nil {
				return err
			}
			return s.rbac.WaitReady(ctx)
		})
	}
	for _, pc := range scheduling.SystemClasses() {
		group.Go(func() error { return s.ensure(ctx, c, pc, nil) })
	}
	group.Go(func() error { return s.authenticationConfig(ctx, c) })
	group.Go(func() error { return s.kubernetesService(ctx, c, advertise) })
	return group.Wait()
}

func (s *Server) serves(obj client.Object) bool {
	gvk, err := apiutil.GVKForObject(obj, s.core.Scheme())
	if err != nil {
		return false
	}
	_, ok := s.core.LookupKind(gvk)
	return ok
}

// ensure makes obj exist. change, if not nil, corrects one that exists and reports whether it had to.
func (s *Server) ensure(ctx context.Context, c client.Client, obj client.Object, change func(have client.Object) bool) error {
	if !s.serves(obj) {
		return nil
	}
	const attempts = 5
	var err error
	for range attempts {
		have := obj.DeepCopyObject().(client.Object)
		err = c.Get(ctx, client.ObjectKeyFromObject(obj), have)
		switch {
		case apierrors.IsNotFound(err):
			err = c.Create(ctx, obj.DeepCopyObject().(client.Object))
		case err == nil && change != nil && change(have):
			err = c.Update(ctx, have)
		}
		if err == nil || !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) && !apierrors.IsNotFound(err) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("%T %s: %w", obj, client.ObjectKeyFromObject(obj), err)
	}
	return nil
}

// authenticationConfig tells extension servers whose client certificates to accept.
func (s *Server) authenticationConfig(ctx context.Context, c client.Client) error {
	want := map[string]string{"client-ca-file": string(s.ca.CertificatePEM())}
	return s.ensure(ctx, c, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "extension-apiserver-authentication"}, Data: want,
	}, func(have client.Object) bool {
		cm := have.(*corev1.ConfigMap)
		if equality.Semantic.DeepEqual(cm.Data, want) {
			return false
		}
		cm.Data = want
		return true
	})
}

// kubernetesService makes the Service of the API server and says where it is.
func (s *Server) kubernetesService(ctx context.Context, c client.Client, advertise netip.AddrPort) error {
	meta := metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: kubernetesService}
	meta.Labels = map[string]string{"component": "apiserver", "provider": "kubernetes"}
	port := int32(6443)
	if advertise.IsValid() {
		port = int32(advertise.Port())
	}
	ports := []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443, TargetPort: intstr.FromInt32(port)}}
	ip := firstAddress(s.opts.ServiceCIDRs[0]).String()
	err := s.ensure(ctx, c, &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
		ClusterIP: ip, ClusterIPs: []string{ip}, Type: corev1.ServiceTypeClusterIP, SessionAffinity: corev1.ServiceAffinityNone, Ports: ports,
		IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicySingleStack),
	}}, func(have client.Object) bool {
		svc := have.(*corev1.Service)
		if equality.Semantic.DeepEqual(svc.Spec.Ports, ports) {
			return false
		}
		svc.Spec.Ports = ports
		return true
	})
	if err != nil || !advertise.IsValid() {
		return err
	}
	if err := s.endpoints(ctx, c, advertise); err != nil {
		return err
	}
	return s.endpointSlice(ctx, c, advertise)
}

//nolint:staticcheck // Endpoints are deprecated, but clients of this one remain
func (s *Server) endpoints(ctx context.Context, c client.Client, at netip.AddrPort) error {
	want := []corev1.EndpointSubset{{
		Addresses: []corev1.EndpointAddress{{IP: at.Addr().String()}},
		Ports:     []corev1.EndpointPort{{Name: "https", Port: int32(at.Port()), Protocol: corev1.ProtocolTCP}},
	}}
	return s.ensure(ctx, c, &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceDefault, Name: kubernetesService, Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"},
		},
		Subsets: want,
	}, func(have client.Object) bool {
		ep := have.(*corev1.Endpoints)
		if equality.Semantic.DeepEqual(ep.Subsets, want) {
			return false
		}
		ep.Subsets = want
		return true
	})
}

func (s *Server) endpointSlice(ctx context.Context, c client.Client, at netip.AddrPort) error {
	family := discoveryv1.AddressTypeIPv4
	if at.Addr().Is6() {
		family = discoveryv1.AddressTypeIPv6
	}
	want := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceDefault, Name: kubernetesService, Labels: map[string]string{discoveryv1.LabelServiceName: kubernetesService},
		},
		AddressType: family,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{at.Addr().String()}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}},
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To(int32(at.Port())), Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
	return s.ensure(ctx, c, want, func(have client.Object) bool {
		es := have.(*discoveryv1.EndpointSlice)
		if equality.Semantic.DeepEqual(es.Endpoints, want.Endpoints) && equality.Semantic.DeepEqual(es.Ports, want.Ports) {
			return false
		}
		es.Endpoints, es.Ports = want.Endpoints, want.Ports
		return true
	})
}
