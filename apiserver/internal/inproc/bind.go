package inproc

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/apiserver/internal/core"
)

// BindPods implements scheduler.BatchBinder: each binding is what SubResource("binding").Create makes of it.
func (c *Client) BindPods(ctx context.Context, bindings []corev1.Binding) []error {
	r, err := c.types.resourceOf(corev1.SchemeGroupVersion.WithKind("Pod"))
	creations := make([]core.Creation, len(bindings))
	errs := make([]error, len(bindings))
	for i := range bindings {
		b := &bindings[i]
		creations[i] = core.Creation{Namespace: b.Namespace, Name: b.Name, Object: b}
		errs[i] = err
	}
	if err != nil {
		return errs
	}
	return c.core.CreateEach(c.ctx(ctx), r, "binding", creations, metav1.CreateOptions{})
}
