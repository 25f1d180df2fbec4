package serviceaccount

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// Name is the name of the plugin.
	Name = "ServiceAccount"
	// DefaultAPITokenMountPath is where containers find the volume.
	DefaultAPITokenMountPath = "/var/run/secrets/kubernetes.io/serviceaccount"

	defaultAccount = "default"
	volumePrefix   = "kube-api-access-"
	rootCA         = "kube-root-ca.crt"
	// Kubelets renew a token an hour old; the seconds beyond tell such tokens from those that somebody asked for.
	tokenSeconds = 60*60 + 7

	enforceMountable = "kubernetes.io/enforce-mountable-secrets"

	// The controller that makes the default account of a new namespace takes a moment.
	defaultAccountAttempts = 10
	retryInterval          = 100 * time.Millisecond
)

// Options of the plugin; the zero value has Kubernetes' behaviour.
type Options struct {
	// Live reads ServiceAccounts that the plugin's reader does not have (yet). Default: the same reader.
	Live client.Reader
	// NoToken leaves out the token volume.
	NoToken bool
	// Clock times the wait for a namespace's default account. Default: the real one.
	Clock clock.Clock
}

// Plugin implements admission.MutationInterface and admission.ValidationInterface.
type Plugin struct {
	*admission.Handler
	accounts client.Reader
	opts     Options
}

var (
	_ admission.MutationInterface   = (*Plugin)(nil)
	_ admission.ValidationInterface = (*Plugin)(nil)
)

// New returns the plugin, which reads ServiceAccounts from reader.
func New(reader client.Reader, opts Options) (*Plugin, error) {
	if reader == nil {
		return nil, errors.New("serviceaccount: reader: expected one, got nil")
	}
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	return &Plugin{Handler: admission.NewHandler(admission.Create, admission.Update), accounts: reader, opts: opts}, nil
}

func isMirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

func podOf(a admission.Attributes) (*corev1.Pod, bool) {
	if r := a.GetResource(); r.Group != "" || r.Resource != "pods" {
		return nil, false
	}
	pod, ok := a.GetObject().(*corev1.Pod)
	return pod, ok && pod != nil
}

// Admit implements admission.MutationInterface.
func (p *Plugin) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	pod, ok := podOf(a)
	if !ok || a.GetSubresource() != "" {
		return nil
	}
	if a.GetOperation() == admission.Update {
		return nil
	}
	if isMirror(pod) {
		return p.Validate(ctx, a, o)
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = defaultAccount
	}
	// The deprecated alias follows.
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	account, err := p.find(ctx, a.GetNamespace(), pod.Spec.ServiceAccountName)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("error looking up service account %s/%s: %w", a.GetNamespace(), pod.Spec.ServiceAccountName, err))
	}
	if !p.opts.NoToken && automounts(account, pod) {
		mountToken(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = append([]corev1.LocalObjectReference(nil), account.ImagePullSecrets...)
	}
	return nil
}

// Validate implements admission.ValidationInterface.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, ok := podOf(a)
	if !ok || (a.GetSubresource() != "" && a.GetSubresource() != "ephemeralcontainers") {
		return nil
	}
	if a.GetOperation() == admission.Update && a.GetSubresource() != "ephemeralcontainers" {
		return nil
	}
	if isMirror(pod) {
		return validateMirror(a, pod)
	}
	if pod.Spec.ServiceAccountName == "" {
		return admission.NewForbidden(a, errors.New("no service account specified for pod "+pod.Namespace+"/"+pod.Name))
	}
	account, err := p.find(ctx, a.GetNamespace(), pod.Spec.ServiceAccountName)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("error looking up service account %s/%s: %w", a.GetNamespace(), pod.Spec.ServiceAccountName, err))
	}
	if strings.EqualFold(account.Annotations[enforceMountable], "true") {
		if err := limitSecrets(account, pod); err != nil {
			return admission.NewForbidden(a, err)
		}
	}
	return nil
}

// validateMirror keeps kubelets from getting at secrets through pods that nobody but they made.
func validateMirror(a admission.Attributes, pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName != "" {
		return admission.NewForbidden(a, errors.New("a mirror pod may not reference service accounts"))
	}
	if len(secretNames(pod)) > 0 {
		return admission.NewForbidden(a, errors.New("a mirror pod may not reference secrets"))
	}
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil {
				return admission.NewForbidden(a, errors.New("a mirror pod may not use ServiceAccountToken volume projections"))
			}
		}
	}
	return nil
}

func (p *Plugin) find(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	attempts := 1
	if name == defaultAccount {
		attempts = defaultAccountAttempts
	}
	key := client.ObjectKey{Namespace: namespace, Name: name}
	for attempt := 1; ; attempt++ {
		var account corev1.ServiceAccount
		err := p.accounts.Get(ctx, key, &account)
		if apierrors.IsNotFound(err) && p.opts.Live != nil {
			err = p.opts.Live.Get(ctx, key, &account)
		}
		if err == nil {
			return &account, nil
		}
		if !apierrors.IsNotFound(err) || attempt == attempts {
			if apierrors.IsNotFound(err) {
				// In the words of kube-apiserver, whose lister names the kind.
				err = apierrors.NewNotFound(corev1.Resource("serviceaccount"), name)
			}
			return nil, err
		}
		select {
		case <-p.opts.Clock.After(retryInterval):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func automounts(account *corev1.ServiceAccount, pod *corev1.Pod) bool {
	switch {
	case pod.Spec.AutomountServiceAccountToken != nil:
		return *pod.Spec.AutomountServiceAccountToken
	case account.AutomountServiceAccountToken != nil:
		return *account.AutomountServiceAccountToken
	default:
		return true
	}
}

func mountToken(pod *corev1.Pod) {
	name := ""
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Projected != nil && strings.HasPrefix(v.Name, volumePrefix) {
			name = v.Name
			break
		}
	}
	exists := name != ""
	if !exists {
		name = volumePrefix + utilrand.String(5)
	}
	mount := corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: DefaultAPITokenMountPath}
	mounted := false
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if c := &containers[i]; !mountsAt(c, DefaultAPITokenMountPath) {
				c.VolumeMounts = append(c.VolumeMounts, mount)
				mounted = true
			}
		}
	}
	if mounted && !exists {
		pod.Spec.Volumes = append(pod.Spec.Volumes, tokenVolume(name))
	}
}

func mountsAt(c *corev1.Container, path string) bool {
	for i := range c.VolumeMounts {
		if c.VolumeMounts[i].MountPath == path {
			return true
		}
	}
	return false
}

func tokenVolume(name string) corev1.Volume {
	mode, seconds := int32(0o644), int64(tokenSeconds)
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: &mode,
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCA},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
			}}},
		},
	}}}
}
