package env

import (
	"context"
	"fmt"
	"net"
	"sort"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Var is one variable.
type Var struct{ Name, Value string }

// Sources is where variables come from. ConfigMap and Secret answer with a NotFound error of the API if there is none.
type Sources interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	Services(ctx context.Context, namespace string) ([]corev1.Service, error)
}

// Input is what a container's environment depends on.
type Input struct {
	Pod             *corev1.Pod
	Container       *corev1.Container
	PodIPs, HostIPs []string
	Allocatable     corev1.ResourceList
}

// Make makes the environment. Variables of Services come first, then envFrom, then env; later ones win.
func Make(ctx context.Context, in Input, src Sources) ([]Var, error) {
	var order []string
	values := map[string]string{}
	set := func(name, value string) {
		if _, ok := values[name]; !ok {
			order = append(order, name)
		}
		values[name] = value
	}
	ns := in.Pod.Namespace
	for i := range in.Container.EnvFrom {
		from := &in.Container.EnvFrom[i]
		data := map[string]string{}
		switch {
		case from.ConfigMapRef != nil:
			cm, err := src.ConfigMap(ctx, ns, from.ConfigMapRef.Name)
			if err != nil {
				if apierrors.IsNotFound(err) && optional(from.ConfigMapRef.Optional) {
					continue
				}
				return nil, err
			}
			data = cm.Data
		case from.SecretRef != nil:
			s, err := src.Secret(ctx, ns, from.SecretRef.Name)
			if err != nil {
				if apierrors.IsNotFound(err) && optional(from.SecretRef.Optional) {
					continue
				}
				return nil, err
			}
			for k, v := range s.Data {
				data[k] = string(v)
			}
		}
		for _, k := range sorted(data) {
			set(from.Prefix+k, data[k])
		}
	}
	services, err := serviceVars(ctx, in.Pod, src)
	if err != nil {
		return nil, err
	}
	known := make(map[string]string, len(services))
	for _, v := range services {
		known[v.Name] = v.Value
	}
	lookup := func(name string) (string, bool) {
		if v, ok := values[name]; ok {
			return v, true
		}
		v, ok := known[name]
		return v, ok
	}
	for i := range in.Container.Env {
		e := &in.Container.Env[i]
		value, ok := e.Value, true
		switch {
		case e.Value != "":
			value = Expand(e.Value, lookup)
		case e.ValueFrom != nil:
			if value, ok, err = from(ctx, in, e.ValueFrom, src); err != nil {
				return nil, err
			}
		}
		if ok {
			set(e.Name, value)
		}
	}
	var out []Var
	for _, v := range services {
		// What the container sets itself is not announced twice.
		if _, ok := values[v.Name]; !ok {
			out = append(out, v)
		}
	}
	for _, name := range order {
		out = append(out, Var{name, values[name]})
	}
	return out, nil
}

func optional(b *bool) bool { return b != nil && *b }

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func from(ctx context.Context, in Input, f *corev1.EnvVarSource, src Sources) (string, bool, error) {
	ns := in.Pod.Namespace
	switch {
	case f.FieldRef != nil:
		v, err := Field(in.Pod, f.FieldRef.FieldPath, in.PodIPs, in.HostIPs)
		return v, true, err
	case f.ResourceFieldRef != nil:
		c := in.Container
		if f.ResourceFieldRef.ContainerName != "" {
			c = findContainer(in.Pod, f.ResourceFieldRef.ContainerName)
			if c == nil {
				return "", false, fmt.Errorf("container %s not found", f.ResourceFieldRef.ContainerName)
			}
		}
		v, err := Resource(c, f.ResourceFieldRef, in.Allocatable)
		return v, true, err
	case f.ConfigMapKeyRef != nil:
		ref := f.ConfigMapKeyRef
		cm, err := src.ConfigMap(ctx, ns, ref.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && optional(ref.Optional) {
				return "", false, nil
			}
			return "", false, err
		}
		v, ok := cm.Data[ref.Key]
		if !ok {
			if optional(ref.Optional) {
				return "", false, nil
			}
			return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", ref.Key, ns, ref.Name)
		}
		return v, true, nil
	case f.SecretKeyRef != nil:
		ref := f.SecretKeyRef
		s, err := src.Secret(ctx, ns, ref.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && optional(ref.Optional) {
				return "", false, nil
			}
			return "", false, err
		}
		v, ok := s.Data[ref.Key]
		if !ok {
			if optional(ref.Optional) {
				return "", false, nil
			}
			return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", ref.Key, ns, ref.Name)
		}
		return string(v), true, nil
	case f.FileKeyRef != nil:
		return "", false, fmt.Errorf("environment variables from files (fileKeyRef) are not supported by this node")
	}
	return "", true, nil
}

func findContainer(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [...][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// masterService is announced to pods of every namespace.
const masterService = "kubernetes"

func serviceVars(ctx context.Context, pod *corev1.Pod, src Sources) ([]Var, error) {
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	var list []corev1.Service
	if links {
		own, err := src.Services(ctx, pod.Namespace)
		if err != nil {
			return nil, err
		}
		list = own
	}
	if !links || pod.Namespace != corev1.NamespaceDefault {
		master, err := src.Services(ctx, corev1.NamespaceDefault)
		if err != nil {
			return nil, err
		}
		for i := range master {
			if master[i].Name == masterService && !hasService(list, masterService) {
				list = append(list[:len(list):len(list)], master[i])
			}
		}
	}
	var out []Var
	for i := range list {
		out = append(out, linkVars(&list[i])...)
	}
	return out, nil
}

func hasService(list []corev1.Service, name string) bool {
	for i := range list {
		if list[i].Name == name {
			return true
		}
	}
	return false
}

// linkVars are the variables that announce a Service, as Docker's links did.
func linkVars(s *corev1.Service) []Var {
	ip := s.Spec.ClusterIP
	if ip == "" || ip == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
		return nil
	}
	prefix := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
	out := []Var{{prefix + "_SERVICE_HOST", ip}, {prefix + "_SERVICE_PORT", strconv.Itoa(int(s.Spec.Ports[0].Port))}}
	for i := range s.Spec.Ports {
		if p := &s.Spec.Ports[i]; p.Name != "" {
			out = append(out, Var{prefix + "_SERVICE_PORT_" + strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_")), strconv.Itoa(int(p.Port))})
		}
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		protocol := string(corev1.ProtocolTCP)
		if p.Protocol != "" {
			protocol = string(p.Protocol)
		}
		port := strconv.Itoa(int(p.Port))
		url := strings.ToLower(protocol) + "://" + net.JoinHostPort(ip, port)
		name := fmt.Sprintf("%s_PORT_%s_%s", prefix, port, strings.ToUpper(protocol))
		if i == 0 {
			out = append(out, Var{prefix + "_PORT", url})
		}
		out = append(out, Var{name, url}, Var{name + "_PROTO", strings.ToLower(protocol)}, Var{name + "_PORT", port}, Var{name + "_ADDR", ip})
	}
	return out
}
