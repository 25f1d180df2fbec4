package volumes

import (
	"context"
	"fmt"
	"path"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/kubelet/internal/env"
)

// file is what a path of a volume holds.
type file struct {
	data []byte
	mode int32
	uid  *int64
}

const defaultMode = 0o644

func modeOf(p *int32, or int32) int32 {
	if p != nil {
		return *p
	}
	return or
}

func optional(b *bool) bool { return b != nil && *b }

// payload is what a volume made of API objects contains; the plugin is empty if the volume is of another type.
func (m *Manager) payload(ctx context.Context, in Input, v *corev1.Volume) (plugin string, files map[string]file, err error) {
	files = map[string]file{}
	switch {
	case v.ConfigMap != nil:
		return "configmap", files, m.configMap(ctx, in.Pod, v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.Optional, modeOf(v.ConfigMap.DefaultMode, defaultMode), files)
	case v.Secret != nil:
		return "secret", files, m.secret(ctx, in.Pod, v.Secret.SecretName, v.Secret.Items, v.Secret.Optional, modeOf(v.Secret.DefaultMode, defaultMode), files)
	case v.DownwardAPI != nil:
		return "downward-api", files, downward(in, v.DownwardAPI.Items, modeOf(v.DownwardAPI.DefaultMode, defaultMode), files)
	case v.Projected != nil:
		mode := modeOf(v.Projected.DefaultMode, defaultMode)
		for i := range v.Projected.Sources {
			s := &v.Projected.Sources[i]
			switch {
			case s.ConfigMap != nil:
				err = m.configMap(ctx, in.Pod, s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, mode, files)
			case s.Secret != nil:
				err = m.secret(ctx, in.Pod, s.Secret.Name, s.Secret.Items, s.Secret.Optional, mode, files)
			case s.DownwardAPI != nil:
				err = downward(in, s.DownwardAPI.Items, mode, files)
			case s.ServiceAccountToken != nil:
				err = m.token(ctx, in.Pod, v.Name, s.ServiceAccountToken, files)
			default:
				err = fmt.Errorf("source %d of a projected volume is of a type this node does not support", i)
			}
			if err != nil {
				return "projected", nil, err
			}
		}
		return "projected", files, nil
	}
	return "", nil, nil
}

func (m *Manager) configMap(ctx context.Context, pod *corev1.Pod, name string, items []corev1.KeyToPath, opt *bool, mode int32, files map[string]file) error {
	cm, err := m.objects.ConfigMap(ctx, pod.Namespace, name)
	if err != nil {
		if apierrors.IsNotFound(err) && optional(opt) {
			return nil
		}
		return err
	}
	data := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	for k, v := range cm.BinaryData {
		data[k] = v
	}
	return project("configmap", data, items, opt, mode, files)
}

func (m *Manager) secret(ctx context.Context, pod *corev1.Pod, name string, items []corev1.KeyToPath, opt *bool, mode int32, files map[string]file) error {
	s, err := m.objects.Secret(ctx, pod.Namespace, name)
	if err != nil {
		if apierrors.IsNotFound(err) && optional(opt) {
			return nil
		}
		return err
	}
	return project("secret", s.Data, items, opt, mode, files)
}

func project(kind string, data map[string][]byte, items []corev1.KeyToPath, opt *bool, mode int32, files map[string]file) error {
	if len(items) == 0 {
		for k, v := range data {
			files[k] = file{data: v, mode: mode}
		}
		return nil
	}
	for _, it := range items {
		v, ok := data[it.Key]
		if !ok {
			if optional(opt) {
				continue
			}
			return fmt.Errorf("references non-existent %s key: %s", kind, it.Key)
		}
		files[path.Clean(it.Path)] = file{data: v, mode: modeOf(it.Mode, mode)}
	}
	return nil
}

func downward(in Input, items []corev1.DownwardAPIVolumeFile, mode int32, files map[string]file) error {
	for i := range items {
		it := &items[i]
		var value string
		var err error
		switch {
		case it.FieldRef != nil:
			value, err = env.Field(in.Pod, it.FieldRef.FieldPath, in.PodIPs, in.HostIPs)
		case it.ResourceFieldRef != nil:
			var c *corev1.Container
			for j := range in.Pod.Spec.Containers {
				if in.Pod.Spec.Containers[j].Name == it.ResourceFieldRef.ContainerName {
					c = &in.Pod.Spec.Containers[j]
				}
			}
			for j := range in.Pod.Spec.InitContainers {
				if in.Pod.Spec.InitContainers[j].Name == it.ResourceFieldRef.ContainerName {
					c = &in.Pod.Spec.InitContainers[j]
				}
			}
			if c == nil {
				return fmt.Errorf("container %s not found", it.ResourceFieldRef.ContainerName)
			}
			value, err = env.Resource(c, it.ResourceFieldRef, in.Allocatable)
		}
		if err != nil {
			return err
		}
		files[path.Clean(it.Path)] = file{data: []byte(value), mode: modeOf(it.Mode, mode)}
	}
	return nil
}

type tokenKey struct {
	pod      types.UID
	volume   string
	path     string
	audience string
}

type token struct {
	value string
	due   time.Time
	end   time.Time
}

// token is the pod's service-account token, asked for anew before it expires.
func (m *Manager) token(ctx context.Context, pod *corev1.Pod, volume string, src *corev1.ServiceAccountTokenProjection, files map[string]file) error {
	key := tokenKey{pod.UID, volume, src.Path, src.Audience}
	now := m.clock.Now()
	m.mu.Lock()
	t, ok := m.tokens[key]
	m.mu.Unlock()
	if !ok || !now.Before(t.due) {
		fresh, err := m.requestToken(ctx, pod, src)
		switch {
		case err == nil:
			t = fresh
			m.mu.Lock()
			m.tokens[key] = t
			m.mu.Unlock()
		case !ok || !now.Before(t.end):
			return fmt.Errorf("failed to fetch token: %w", err)
		default:
			m.log.Error(err, "Renewing a service account's token", "pod", pod.Namespace+"/"+pod.Name)
		}
	}
	f := file{data: []byte(t.value), mode: 0o600}
	if f.uid = commonUser(pod); f.uid == nil && fsGroup(pod) == nil {
		f.mode = defaultMode
	}
	files[path.Clean(src.Path)] = f
	return nil
}

func (m *Manager) requestToken(ctx context.Context, pod *corev1.Pod, src *corev1.ServiceAccountTokenProjection) (token, error) {
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: src.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if src.Audience != "" {
		req.Spec.Audiences = []string{src.Audience}
	}
	name := pod.Spec.ServiceAccountName
	if name == "" {
		name = "default"
	}
	start := m.clock.Now()
	resp, err := m.objects.Token(ctx, pod.Namespace, name, req)
	if err != nil {
		return token{}, err
	}
	end := resp.Status.ExpirationTimestamp.Time
	if resp.Status.ExpirationTimestamp == (metav1.Time{}) {
		end = start.Add(time.Hour)
	}
	return token{value: resp.Status.Token, due: tokenDue(start, end), end: end}, nil
}

// commonUser is the user all containers run as, if the pod says so.
func commonUser(pod *corev1.Pod) *int64 {
	var user *int64
	for _, list := range [...][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			var u *int64
			if sc := pod.Spec.SecurityContext; sc != nil {
				u = sc.RunAsUser
			}
			if sc := list[i].SecurityContext; sc != nil && sc.RunAsUser != nil {
				u = sc.RunAsUser
			}
			if u == nil || user != nil && *user != *u {
				return nil
			}
			user = u
		}
	}
	return user
}
