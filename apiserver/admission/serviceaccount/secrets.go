package serviceaccount

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// reference is a use of a secret: where, and which.
type reference struct{ where, secret string }

// secretNames lists every secret that a pod uses by name, but image pull secrets.
func secretNames(pod *corev1.Pod) []reference {
	var out []reference
	add := func(where, secret string) {
		if secret != "" {
			out = append(out, reference{where, secret})
		}
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Secret != nil {
			add(fmt.Sprintf("volume with secret.secretName=%q", v.Secret.SecretName), v.Secret.SecretName)
		}
		if v.Projected != nil {
			for _, s := range v.Projected.Sources {
				if s.Secret != nil {
					add(fmt.Sprintf("volume with secret.secretName=%q", s.Secret.Name), s.Secret.Name)
				}
			}
		}
	}
	env := func(kind, name string, vars []corev1.EnvVar, from []corev1.EnvFromSource) {
		for _, e := range vars {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				ref := e.ValueFrom.SecretKeyRef
				add(fmt.Sprintf("%s %s with envVar %s referencing secret.secretName=%q", kind, name, e.Name, ref.Name), ref.Name)
			}
		}
		for _, e := range from {
			if e.SecretRef != nil {
				add(fmt.Sprintf("%s %s with envFrom referencing secret.secretName=%q", kind, name, e.SecretRef.Name), e.SecretRef.Name)
			}
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		env("init container", c.Name, c.Env, c.EnvFrom)
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		env("container", c.Name, c.Env, c.EnvFrom)
	}
	for i := range pod.Spec.EphemeralContainers {
		c := &pod.Spec.EphemeralContainers[i]
		env("ephemeral container", c.Name, c.Env, c.EnvFrom)
	}
	return out
}

// limitSecrets refuses secrets that an account which limits them does not list.
func limitSecrets(account *corev1.ServiceAccount, pod *corev1.Pod) error {
	mountable, pull := map[string]bool{}, map[string]bool{}
	for _, s := range account.Secrets {
		mountable[s.Name] = true
	}
	for _, s := range account.ImagePullSecrets {
		pull[s.Name] = true
	}
	for _, r := range secretNames(pod) {
		if !mountable[r.secret] {
			return fmt.Errorf("%s is not allowed because service account %s does not reference that secret", r.where, account.Name)
		}
	}
	for i, s := range pod.Spec.ImagePullSecrets {
		if !pull[s.Name] {
			return fmt.Errorf("imagePullSecrets[%d].name=%q is not allowed because service account %s does not reference that imagePullSecret", i, s.Name, account.Name)
		}
	}
	return nil
}
