package core

import (
	"context"
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

func secret() *kind.Kind {
	return &kind.Kind{
		GVK:        corev1.SchemeGroupVersion.WithKind("Secret"),
		Resource:   "secrets",
		Singular:   "secret",
		Namespaced: true,

		Default: typed.Default(func(s *corev1.Secret) {
			if s.Type == "" {
				s.Type = corev1.SecretTypeOpaque
			}
			// stringData is how data is written; it is never stored.
			if len(s.StringData) > 0 {
				if s.Data == nil {
					s.Data = make(map[string][]byte, len(s.StringData))
				}
				for key, value := range s.StringData {
					s.Data[key] = []byte(value)
				}
			}
			s.StringData = nil
		}),
		PrepareForCreate: asGiven,
		PrepareForUpdate: typed.PrepareUpdate(func(_ context.Context, s, old *corev1.Secret) {
			if s.Type == "" {
				s.Type = old.Type
			}
		}),
		Validate: typed.Validate(validateSecret),
		ValidateUpdate: typed.ValidateUpdate(func(s, old *corev1.Secret) field.ErrorList {
			e := &validate.Errors{}
			e.Immutable(s.Type, old.Type, field.NewPath("type"))
			if old.Immutable != nil && *old.Immutable {
				if s.Immutable == nil || !*s.Immutable {
					e.Forbidden(field.NewPath("immutable"), immutableIsSet)
				}
				if !equality.Semantic.DeepEqual(s.Data, old.Data) {
					e.Forbidden(field.NewPath("data"), immutableIsSet)
				}
			}
			e.Add(validateSecret(s))
			return e.List
		}),
		AllowUnconditionalUpdate: true,
		Fields: map[string]func(client.Object) string{
			"type": typed.Field(func(s *corev1.Secret) string { return string(s.Type) }),
		},
		Columns: []metav1.TableColumnDefinition{
			table.Name(), table.Text("Type", corev1.Secret{}.SwaggerDoc()["type"]),
			{Name: "Data", Type: "string", Description: corev1.Secret{}.SwaggerDoc()["data"]},
			table.Age(),
		},
		Row: typed.Row(func(s *corev1.Secret, now time.Time) []any {
			return []any{s.Name, string(s.Type), int64(len(s.Data)), table.Since(s.CreationTimestamp, now)}
		}),
	}
}

func validateSecret(s *corev1.Secret) field.ErrorList {
	e := &validate.Errors{}
	data := field.NewPath("data")
	size := 0
	for _, key := range sets.List(sets.KeySet(s.Data)) {
		e.InvalidEach(data.Key(key), key, validation.IsConfigMapKey(key))
		size += len(s.Data[key])
	}
	if size > corev1.MaxSecretSize {
		e.TooLong(data, "", corev1.MaxSecretSize)
	}
	require := func(keys ...string) {
		for _, key := range keys {
			if _, given := s.Data[key]; !given {
				e.Required(data.Key(key), "")
			}
		}
	}
	switch s.Type {
	case corev1.SecretTypeServiceAccountToken:
		if s.Annotations[corev1.ServiceAccountNameKey] == "" {
			e.Required(field.NewPath("metadata", "annotations").Key(corev1.ServiceAccountNameKey), "")
		}
	case corev1.SecretTypeDockercfg:
		dockerConfig(e, s, corev1.DockerConfigKey)
	case corev1.SecretTypeDockerConfigJson:
		dockerConfig(e, s, corev1.DockerConfigJsonKey)
	case corev1.SecretTypeBasicAuth:
		_, user := s.Data[corev1.BasicAuthUsernameKey]
		_, password := s.Data[corev1.BasicAuthPasswordKey]
		if !user && !password {
			require(corev1.BasicAuthUsernameKey, corev1.BasicAuthPasswordKey)
		}
	case corev1.SecretTypeSSHAuth:
		if len(s.Data[corev1.SSHAuthPrivateKey]) == 0 {
			e.Required(data.Key(corev1.SSHAuthPrivateKey), "")
		}
	case corev1.SecretTypeTLS:
		require(corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
	return e.List
}

func dockerConfig(e *validate.Errors, s *corev1.Secret, key string) {
	p := field.NewPath("data").Key(key)
	content, given := s.Data[key]
	if !given {
		e.Required(p, "")
		return
	}
	if err := json.Unmarshal(content, &map[string]any{}); err != nil {
		e.Invalid(p, "<secret contents redacted>", err.Error())
	}
}
