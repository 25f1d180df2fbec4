package core

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

func service(opts Options) *kind.Kind {
	alloc := newServiceAllocator(opts)
	return &kind.Kind{
		GVK:         corev1.SchemeGroupVersion.WithKind("Service"),
		Resource:    "services",
		Singular:    "service",
		ShortNames:  []string{"svc"},
		Categories:  []string{"all"},
		StorePrefix: "services/specs",
		Namespaced:  true,

		NameValidation: apivalidation.NameIsDNSLabel,
		Default:        typed.Default(defaultService),
		PrepareForCreate: typed.Prepare(func(_ context.Context, s *corev1.Service) {
			s.Status = corev1.ServiceStatus{}
			normalizeClusterIPs(s, nil)
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(_ context.Context, s, old *corev1.Service) { prepareServiceUpdate(s, old) }),
		Validate: typed.Validate(func(s *corev1.Service) field.ErrorList {
			return validateService(s, nil, opts.AllowLoopback)
		}),
		ValidateUpdate: typed.ValidateUpdate(func(s, old *corev1.Service) field.ErrorList {
			e := &validate.Errors{}
			validateServiceChanges(e, s, old)
			e.Add(validateService(s, old, opts.AllowLoopback))
			return e.List
		}),
		Warnings:                 typed.Warnings(func(_ context.Context, s, old *corev1.Service) []string { return serviceWarnings(s, old) }),
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
		Begin:                    alloc.begin,
		Claims: func(obj client.Object) []string {
			s, ok := obj.(*corev1.Service)
			if !ok {
				return nil
			}
			return claims(s)
		},
		Status: &kind.Subresource{
			Prepare: typed.PrepareUpdate(func(_ context.Context, s, old *corev1.Service) {
				s.Spec = old.Spec
				s.Labels, s.Finalizers, s.OwnerReferences = old.Labels, old.Finalizers, old.OwnerReferences
				if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
					s.Status.LoadBalancer = corev1.LoadBalancerStatus{}
				}
			}),
			Validate: typed.ValidateUpdate(func(s, old *corev1.Service) field.ErrorList { return validateServiceStatus(s, old) }),
		},
		Fields: map[string]func(client.Object) string{
			"spec.clusterIP": typed.Field(func(s *corev1.Service) string { return s.Spec.ClusterIP }),
			"spec.type":      typed.Field(func(s *corev1.Service) string { return string(s.Spec.Type) }),
		},
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Type", corev1.ServiceSpec{}.SwaggerDoc()["type"]),
			table.Text("Cluster-IP", corev1.ServiceSpec{}.SwaggerDoc()["clusterIP"]),
			table.Text("External-IP", corev1.ServiceSpec{}.SwaggerDoc()["externalIPs"]),
			table.Text("Port(s)", corev1.ServiceSpec{}.SwaggerDoc()["ports"]),
			table.Age(),
			table.Wide(table.Text("Selector", corev1.ServiceSpec{}.SwaggerDoc()["selector"])),
		},
		Row: typed.Row(serviceRow),
	}
}

func defaultService(s *corev1.Service) {
	spec := &s.Spec
	if spec.SessionAffinity == "" {
		spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	switch spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		spec.SessionAffinityConfig = nil
	case corev1.ServiceAffinityClientIP:
		if c := spec.SessionAffinityConfig; c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr.To(corev1.DefaultClientIPServiceAffinitySeconds)}}
		}
	}
	if spec.Type == "" {
		spec.Type = corev1.ServiceTypeClusterIP
	}
	for i := range spec.Ports {
		port := &spec.Ports[i]
		if port.Protocol == "" {
			port.Protocol = corev1.ProtocolTCP
		}
		podspec.DefaultTargetPort(&port.TargetPort, port.Port)
	}
	if externallyAccessible(s) && spec.ExternalTrafficPolicy == "" {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	if spec.InternalTrafficPolicy == nil && spec.Type != corev1.ServiceTypeExternalName {
		spec.InternalTrafficPolicy = ptr.To(corev1.ServiceInternalTrafficPolicyCluster)
	}
	if spec.Type != corev1.ServiceTypeLoadBalancer {
		return
	}
	if spec.AllocateLoadBalancerNodePorts == nil {
		spec.AllocateLoadBalancerNodePorts = ptr.To(true)
	}
	for i := range s.Status.LoadBalancer.Ingress {
		if ingress := &s.Status.LoadBalancer.Ingress[i]; ingress.IP != "" && ingress.IPMode == nil {
			ingress.IPMode = ptr.To(corev1.LoadBalancerIPModeVIP)
		}
	}
}

func externallyAccessible(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer || s.Spec.Type == corev1.ServiceTypeNodePort ||
		s.Spec.Type == corev1.ServiceTypeClusterIP && len(s.Spec.ExternalIPs) > 0
}

func isHeadless(s *corev1.Service) bool {
	return s.Spec.ClusterIP == corev1.ClusterIPNone || len(s.Spec.ClusterIPs) == 1 && s.Spec.ClusterIPs[0] == corev1.ClusterIPNone
}

// needsClusterIP says whether a Service's type has addresses (or says None); needsNodePort whether it can have node ports,
// needsHealthPort whether it has one for health checks.
func needsClusterIP(s *corev1.Service) bool { return s.Spec.Type != corev1.ServiceTypeExternalName }

func needsNodePort(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer
}

func needsHealthPort(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

func serviceRow(s *corev1.Service, now time.Time) []any {
	ip := "<none>"
	if len(s.Spec.ClusterIPs) > 0 {
		ip = s.Spec.ClusterIPs[0]
	} else if s.Spec.ClusterIP != "" {
		ip = s.Spec.ClusterIP
	}
	external := "<none>"
	switch s.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
		if len(s.Spec.ExternalIPs) > 0 {
			external = strings.Join(s.Spec.ExternalIPs, ",")
		}
	case corev1.ServiceTypeLoadBalancer:
		var ips []string
		for _, ingress := range s.Status.LoadBalancer.Ingress {
			if ingress.IP != "" {
				ips = append(ips, ingress.IP)
			} else if ingress.Hostname != "" {
				ips = append(ips, ingress.Hostname)
			}
		}
		ips = append(ips, s.Spec.ExternalIPs...)
		external = "<pending>"
		if len(ips) > 0 {
			external = strings.Join(ips, ",")
		}
	case corev1.ServiceTypeExternalName:
		external = s.Spec.ExternalName
	}
	ports := make([]string, len(s.Spec.Ports))
	for i, port := range s.Spec.Ports {
		ports[i] = strconv.Itoa(int(port.Port)) + "/" + string(port.Protocol)
		if port.NodePort > 0 {
			ports[i] = fmt.Sprintf("%d:%d/%s", port.Port, port.NodePort, port.Protocol)
		}
	}
	list := strings.Join(ports, ",")
	if list == "" {
		list = "<none>"
	}
	return []any{s.Name, string(s.Spec.Type), ip, external, list, table.Since(s.CreationTimestamp, now), labels.FormatLabels(s.Spec.Selector)}
}
