package compose

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/keelson/keelson/proxy"
	"github.com/keelson/keelson/proxy/dns"
	"github.com/keelson/keelson/proxy/nftproxy"
	"github.com/keelson/keelson/proxy/userproxy"
)

// CanIsolate reports whether this process can give pods network namespaces and Services nftables rules, and if not, why.
func CanIsolate() (bool, string) {
	if runtime.GOOS != "linux" {
		return false, "this is not Linux"
	}
	if os.Geteuid() != 0 {
		return false, "not run as root"
	}
	if _, err := exec.LookPath("nft"); err != nil {
		return false, "nftables' nft program is not installed"
	}
	if out, err := exec.CommandContext(context.Background(), "nft", "list", "tables").CombinedOutput(); err != nil {
		return false, fmt.Sprintf("nftables can't be used: %s", out)
	}
	return true, ""
}

// newBackend makes the data plane of Services; nil for none.
func newBackend(kind string, pods netip.Prefix, log logr.Logger) (proxy.Backend, error) {
	switch kind {
	case "nft":
		return nftproxy.New(nftproxy.Options{ClusterCIDR: []netip.Prefix{pods}, Logger: log})
	case "user":
		return userproxy.New(userproxy.Options{Logger: log, NodePortAddress: addr("127.0.0.1")})
	}
	return nil, nil
}

const dnsService = "kube-dns"

// runDNS serves the cluster's names on listen and, where pods reach it through its Service, says so in the API.
func runDNS(ctx context.Context, c client.Client, cc cache.Cache, node string, listen netip.AddrPort, service netip.Addr, log logr.Logger) error {
	upstream, err := dns.SystemUpstreams("")
	if err != nil {
		log.Info("names outside the cluster are not resolved", "reason", err.Error())
	}
	srv, err := dns.New(cc, dns.Options{Listen: []netip.AddrPort{listen}, Domain: domain, Upstream: upstream, Logger: log})
	if err != nil {
		return err
	}
	if listen.Addr() != service {
		// A right that was just given may take a moment to be known.
		if err := Poll(ctx, func() (bool, error) {
			err := announceDNS(ctx, c, node, listen.Addr())
			if apierrors.IsForbidden(err) {
				return false, nil
			}
			return err == nil, err
		}); err != nil {
			return fmt.Errorf("endpoint of service %s: %w", dnsService, err)
		}
	}
	return srv.Run(ctx)
}

// serviceOfDNS makes the kube-dns Service, whose endpoints the nodes announce.
func serviceOfDNS(ctx context.Context, c client.Client, service netip.Addr) error {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: dnsService}}
	_, err := controllerutil.CreateOrUpdate(ctx, c, svc, func() error {
		svc.Labels = map[string]string{"k8s-app": dnsService, "kubernetes.io/name": "CoreDNS"}
		svc.Spec.ClusterIP = service.String()
		svc.Spec.InternalTrafficPolicy = ptr.To(corev1.ServiceInternalTrafficPolicyLocal)
		svc.Spec.Ports = []corev1.ServicePort{
			{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP, TargetPort: intstr.FromInt32(53)},
			{Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(53)},
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("service %s: %w", dnsService, err)
	}
	return nil
}

// announceDNS makes this node's endpoint of the kube-dns Service. Pods use the one on their own node.
func announceDNS(ctx context.Context, c client.Client, node string, at netip.Addr) error {
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: dnsService + "-" + node}}
	_, err := controllerutil.CreateOrUpdate(ctx, c, slice, func() error {
		slice.Labels = map[string]string{discoveryv1.LabelServiceName: dnsService, discoveryv1.LabelManagedBy: "keelson"}
		slice.AddressType = discoveryv1.AddressTypeIPv4
		slice.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{at.String()}, NodeName: &node, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}}
		slice.Ports = []discoveryv1.EndpointPort{
			{Name: ptr.To("dns"), Port: ptr.To[int32](53), Protocol: ptr.To(corev1.ProtocolUDP)},
			{Name: ptr.To("dns-tcp"), Port: ptr.To[int32](53), Protocol: ptr.To(corev1.ProtocolTCP)},
		}
		return nil
	})
	return err
}
